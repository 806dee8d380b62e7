// Numbers of rendered lines, durations, and lines that the caller renders. What each kind of record becomes is in
// tests/unit/test_ring_image.py and test_ring_device.py.
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "core/line_renderer.hpp"
#include "test_support.hpp"

using namespace fastlog;
using namespace fastlog::test;

namespace {

/// Whoever asks it for a value takes a dead process's for a live one's.
class Nobody final : public DeviceValues {
  public:
    void begin_round() noexcept override {}
    State poll(std::uint16_t) noexcept override { return State::settled; }
    std::int64_t made_ns(std::uint16_t) const noexcept override { return 0; }
    void give_up(std::uint16_t, MissingReason) noexcept override {}
    SettledValue value(PendingValue) const noexcept override { return {ValueTag::integer, 7}; }
    SettledValue duration(std::uint16_t) const noexcept override { return {ValueTag::real, 0}; }
    void release(std::uint16_t) noexcept override {}
};

struct Rendering {
    AlignedBytes arena{1 << 20};
    KeyTable table{arena.get(), 1 << 20};
    LineRenderer renderer{arena.get(), 1 << 20};

    std::string line(RecordKind kind, std::string_view payload,
                     const DeviceValues* from = nullptr) {
        AlignedBytes bytes(record_size(payload.size()));
        RecordHeader header{};
        header.length = static_cast<std::uint32_t>(payload.size());
        header.thread_id = 4711;
        header.kind = kind;
        std::memcpy(bytes.get(), &header, sizeof header);
        std::memcpy(bytes.get() + sizeof header, payload.data(), payload.size());
        std::string out;
        renderer.render(*reinterpret_cast<const RecordHeader*>(bytes.get()), 41, out, from);
        return out;
    }
};

std::string timing_payload(const TimingPayload& timing, std::string_view error = {}) {
    TimingPayload head = timing;
    head.error_length = static_cast<std::uint32_t>(error.size());
    std::string out(sizeof head, '\0');
    std::memcpy(out.data(), &head, sizeof head);
    return out.append(error);
}

}  // namespace

TEST_SUITE("line_renderer") {
    TEST_CASE("should give rendered lines lower numbers, and change nothing else of them") {
        const auto lines = [](std::uint64_t first) {
            std::string all;
            for (std::uint64_t n = first; n < first + 30; ++n) {
                all +=
                    "{\"timestamp\":\"2026-01-30T14:32:15.123456Z\",\"seq\":" + std::to_string(n) +
                    ",\"message\":\"\\\"seq\\\":95, }" + std::string((n - first) % 7, 'x') +
                    "\"}\n";
            }
            return all;
        };
        for (const std::uint64_t by : {0, 1, 90, 95}) {
            std::string all = lines(95);
            LineRenderer::renumber(all, by);
            CHECK(all == lines(95 - by));
        }
        std::string none;
        LineRenderer::renumber(none, 5);
        CHECK(none.empty());
    }

    TEST_CASE("should write durations in whole nanoseconds") {
        Rendering r;
        TimingPayload timing{};
        timing.name = r.table.intern({"x"});
        std::mt19937_64 random(3);
        for (int i = 0; i < 1000; ++i) {
            timing.duration_ticks = random() >> (random() % 40 + 20);
            const Json line =
                parse(split_lines(r.line(RecordKind::timing, timing_payload(timing)))[0]);
            const double seconds = std::stod(line["duration_s"].text);
            const double ns = r.renderer.clock().duration_ns(timing.duration_ticks);
            REQUIRE(seconds == std::round(ns) / 1e9);
        }
    }

    TEST_CASE("should take values under way of a record without tickets for lost") {
        Rendering r;
        const Nobody nobody;
        const std::uint32_t id = r.table.intern({"x", "y"});
        const std::string payload =
            MetricsBuilder(1, id).pending({UINT32_MAX, 255}).integer(4).payload();
        const char* const members = R"("metrics":{"x":null,"y":4},"missing":{"x":"lost"}})";
        CHECK(r.line(RecordKind::metrics, payload).ends_with(members + std::string("\n")));
        CHECK(r.line(RecordKind::metrics, payload, &nobody) ==
              r.line(RecordKind::metrics, payload));
    }

    TEST_CASE(
        "should count the values of devices that are missing, and no masked one, of each line") {
        Rendering r;
        const std::uint32_t id = r.table.intern({"x", "y"});
        for (const MissingReason reason : {MissingReason::masked, MissingReason::timeout}) {
            r.line(RecordKind::metrics,
                   MetricsBuilder(1, id).missing(missing_bits(reason)).integer(4).payload());
            CHECK(r.renderer.missing_of_devices() == (reason == MissingReason::timeout));
        }
    }

    TEST_CASE("should write the same line when the caller has to render it") {
        // The way of records whose keys do not fit the key table.
        Rendering r;
        for (const bool epoch : {false, true}) {
            const std::vector<std::string_view> keys = {"a\"", epoch ? "epoch" : "x", "", "s"};
            MetricsBuilder builder(12, r.table.intern(keys));
            builder.real(std::numeric_limits<double>::quiet_NaN())
                .integer(4)
                .string("text\t")
                .null();
            const std::string payload = builder.payload();
            const std::string members =
                render_metrics_fragment(reinterpret_cast<const std::byte*>(payload.data()), keys);
            CHECK(r.line(RecordKind::fragment, members) == r.line(RecordKind::metrics, payload));
        }
        TimingPayload timing{};
        timing.step = 3;
        timing.duration_ticks = 123'456'789;
        timing.name = r.table.intern({"na\"me"});
        timing.parent = r.table.intern({"par\\ent"});
        timing.depth = 2;
        for (const unsigned flags : {0u, 1u, 2u, 3u}) {
            timing.flags = static_cast<std::uint16_t>(flags);
            for (const std::string_view error : {"", "Key\"Error"}) {
                const std::string members = render_timing_fragment(
                    "na\"me", "par\\ent", timing,
                    r.renderer.clock().duration_ns(1'000'000'000) / 1e9, 4711, error);
                CHECK(r.line(RecordKind::fragment, members) ==
                      r.line(RecordKind::timing, timing_payload(timing, error)));
            }
        }
    }
}
