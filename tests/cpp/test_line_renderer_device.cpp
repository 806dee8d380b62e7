// Lines with values of devices: delivered, missing, and what a found ring may claim of them.
#include <bit>
#include <limits>
#include <string>
#include <vector>

#include "core/line_renderer.hpp"
#include "test_support.hpp"

using namespace fastlog;
using namespace fastlog::test;

namespace {

/// Delivers what it is told: values by slot, and one time of a block.
class Values final : public DeviceValues {
  public:
    void begin_round() noexcept override {}
    State poll(std::uint16_t) noexcept override { return State::settled; }
    std::int64_t made_ns(std::uint16_t) const noexcept override { return 0; }
    void give_up(std::uint16_t, MissingReason) noexcept override {}
    SettledValue value(PendingValue pending) const noexcept override {
        return values[pending.slot];
    }
    SettledValue duration(std::uint16_t ticket) const noexcept override {
        CHECK(ticket == 8);
        return time;
    }
    void release(std::uint16_t) noexcept override {}

    std::vector<SettledValue> values;
    SettledValue time;
};

struct Rendering {
    AlignedBytes arena{1 << 20};
    KeyTable table{arena.get(), 1 << 20};
    LineRenderer renderer{arena.get(), 1 << 20};
    Values device;

    template <class Use>
    auto with(RecordKind kind, const std::string& payload, Use&& use, std::uint16_t flags = 9) {
        AlignedBytes bytes(record_size(payload.size()));
        RecordHeader header{};
        header.length = static_cast<std::uint32_t>(payload.size());
        header.kind = kind;
        header.flags = flags;
        std::memcpy(bytes.get(), &header, sizeof header);
        if (!payload.empty()) {
            std::memcpy(bytes.get() + sizeof header, payload.data(), payload.size());
        }
        return use(*reinterpret_cast<const RecordHeader*>(bytes.get()));
    }
    /// The line behind its `seq`.
    std::string line(RecordKind kind, const std::string& payload, const DeviceValues* from,
                     std::uint16_t flags = 9) {
        return with(
            kind, payload,
            [&](const RecordHeader& record) {
                std::string out;
                renderer.render(record, 0, out, from);
                parse(split_lines(out).at(0));
                const std::size_t begin = out.find("\"seq\":0,") + 8;
                return out.substr(begin, out.size() - begin - 2);
            },
            flags);
    }
    bool passes(RecordKind kind, const std::string& payload, std::uint16_t flags = 9) {
        return with(
            kind, payload,
            [&](const RecordHeader& record) {
                const bool passed = renderer.check(record);
                if (passed) {
                    std::string out;
                    renderer.render(record, 0, out);
                    parse(split_lines(out).at(0));
                }
                return passed;
            },
            flags);
    }
};

std::string timing_payload(const TimingPayload& timing, std::string_view error = {}) {
    TimingPayload head = timing;
    head.error_length = static_cast<std::uint32_t>(error.size());
    std::string out(sizeof head, '\0');
    std::memcpy(out.data(), &head, sizeof head);
    return out.append(error);
}

std::string with_reason(std::string payload, std::uint64_t bits) {
    return payload.append(reinterpret_cast<const char*>(&bits), sizeof bits);
}

TimingPayload device_timing(Rendering& r, DeviceKind kind, unsigned index, bool missing = false) {
    TimingPayload timing{};
    timing.name = r.table.intern({"fwd"});
    timing.flags = static_cast<std::uint16_t>(
        TimingPayload::kHasDevice | (missing ? TimingPayload::kDeviceMissing : 0) |
        static_cast<unsigned>(kind) << TimingPayload::kDeviceKindShift |
        index << TimingPayload::kDeviceIndexShift);
    return timing;
}

}  // namespace

TEST_SUITE("line_renderer device") {
    TEST_CASE("should write values that a device delivered as if the host had given them") {
        Rendering r;
        const auto id = r.table.intern({"a", "b", "c", "d", "e"});
        r.device.values = {{ValueTag::real, std::bit_cast<std::uint64_t>(0.5)},
                           {ValueTag::integer, static_cast<std::uint64_t>(-3)},
                           {ValueTag::boolean, 1},
                           {ValueTag::real, std::bit_cast<std::uint64_t>(
                                                std::numeric_limits<double>::quiet_NaN())}};
        MetricsBuilder builder(3, id);
        builder.pending({0, 0}).pending({1, 0}).integer(7).pending({2, 0}).pending({3, 0});
        CHECK(r.line(RecordKind::metrics, builder.payload(), &r.device) ==
              R"("step":3,"metrics":{"a":0.5,"b":-3,"c":7,"d":true,"e":null},)"
              R"("nonfinite":{"e":"nan"})");
    }

    TEST_CASE("should write null and the reason for a value that did not come") {
        Rendering r;
        const char* const texts[] = {"lost",   "timeout",       "no_slot",      "driver_error_719",
                                     "forked", "no_room",       "no_key_space", "backend_error",
                                     "masked", "other_context", "unordered",    "capture"};
        const auto id = r.table.intern({"x"});
        const TimingPayload timing = device_timing(r, DeviceKind::cuda, 0, true);
        for (unsigned reason = 0; reason <= static_cast<unsigned>(kLastMissingReason); ++reason) {
            const std::uint64_t bits = missing_bits(static_cast<MissingReason>(reason), 719);
            const std::string expected = std::string(R"("step":1,"metrics":{"x":null},)") +
                                         R"("missing":{"x":")" + texts[reason] + "\"}";
            r.device.values = {{ValueTag::missing, bits}};
            CHECK(r.line(RecordKind::metrics, MetricsBuilder(1, id).pending({0, 0}).payload(),
                         &r.device) == expected);
            CHECK(r.line(RecordKind::metrics, MetricsBuilder(1, id).missing(bits).payload(),
                         nullptr, 0) == expected);
            // Counted once for each line, but for what is of no device.
            const bool counts = static_cast<MissingReason>(reason) != MissingReason::masked;
            CHECK(r.renderer.missing_of_devices() == counts);
            r.line(RecordKind::timing, with_reason(timing_payload(timing), bits), nullptr, 0);
            CHECK(r.renderer.missing_of_devices() == 1);
            r.line(RecordKind::metrics, MetricsBuilder(1, id).integer(1).payload(), nullptr, 0);
            CHECK(r.renderer.missing_of_devices() == 0);
        }
        CHECK(r.line(RecordKind::metrics,
                     MetricsBuilder(1, id)
                         .missing(missing_bits(MissingReason::driver_error, UINT32_MAX))
                         .payload(),
                     nullptr)
                  .find("driver_error_4294967295") != std::string::npos);
    }

    TEST_CASE("should write an epoch's summary with its epoch in place of the step") {
        Rendering r;
        const std::vector<std::string_view> keys = {"loss", "epoch"};
        const auto id = r.table.intern(keys);
        r.device.values = {{ValueTag::real, std::bit_cast<std::uint64_t>(0.5)},
                           {ValueTag::missing, missing_bits(MissingReason::timeout)}};
        const auto real = [](double epoch) { return std::bit_cast<std::int64_t>(epoch); };
        constexpr double kInfinite = std::numeric_limits<double>::infinity();
        struct Case {
            std::int64_t epoch;
            std::uint16_t flags;
            std::string begin;
            std::string end;
        };
        for (const auto& [epoch, flags, begin, end] : std::vector<Case>{
                 {7, 1, R"("epoch":7)", ""},
                 {real(2.5), 3, R"("epoch":2.5)", ""},
                 {real(-kInfinite), 3, R"("epoch":null)", R"("nonfinite":{"epoch":"-inf"},)"}}) {
            MetricsBuilder builder(epoch, id);
            const std::string payload =
                builder.flags(flags).pending({0, 0}).pending({1, 0}).payload();
            CHECK(r.passes(RecordKind::metrics, payload));
            CHECK(r.line(RecordKind::metrics, payload, &r.device) ==
                  begin + R"(,"summary":{"loss":0.5,"epoch":null},)" + end +
                      R"("missing":{"epoch":"timeout"})");
            CHECK(
                r.line(RecordKind::metrics, payload, nullptr) ==
                render_metrics_fragment(reinterpret_cast<const std::byte*>(payload.data()), keys));
        }
    }

    TEST_CASE("should take values under way for lost where nobody delivers them") {
        Rendering r;
        const auto id = r.table.intern({"x", "y"});
        const std::string payload =
            MetricsBuilder(1, id).pending({UINT32_MAX, 255}).integer(4).payload();
        const std::string expected =
            R"("step":1,"metrics":{"x":null,"y":4},"missing":{"x":"lost"})";
        CHECK(r.line(RecordKind::metrics, payload, nullptr) == expected);       // of a dead process
        CHECK(r.line(RecordKind::metrics, payload, &r.device, 0) == expected);  // without tickets
    }

    TEST_CASE("should write a block's time on its device behind all else") {
        Rendering r;
        r.device.time = {ValueTag::real, std::bit_cast<std::uint64_t>(0.25)};
        const char* const names[] = {"cuda", "cuda", "xpu", "mps", "device"};
        for (unsigned kind = 0; kind <= static_cast<unsigned>(kLastDeviceKind); ++kind) {
            const TimingPayload timing = device_timing(r, static_cast<DeviceKind>(kind), 255);
            CHECK(r.line(RecordKind::timing, timing_payload(timing, "E"), &r.device) ==
                  R"("name":"fwd","duration_s":0.0,"depth":0,"thread":0,"error":"E","device":")" +
                      std::string(names[kind]) + R"(:255","device_duration_s":0.25)");
        }
        const std::string lost =
            R"("device":"cuda:3","device_duration_s":null,"missing":{"device_duration_s":"lost"})";
        const TimingPayload timing = device_timing(r, DeviceKind::cuda, 3);
        CHECK(r.line(RecordKind::timing, timing_payload(timing), nullptr).ends_with(lost));
        CHECK(r.line(RecordKind::timing, timing_payload(timing), &r.device, 0).ends_with(lost));
    }

    TEST_CASE("should write why there is no time of the device, from the record itself") {
        Rendering r;
        const TimingPayload timing = device_timing(r, DeviceKind::cuda, 0, true);
        for (const std::string_view error : {"", "ValueError"}) {
            CHECK(r.line(RecordKind::timing,
                         with_reason(timing_payload(timing, error),
                                     missing_bits(MissingReason::driver_error, 900)),
                         nullptr, 0)
                      .ends_with(R"("missing":{"device_duration_s":"driver_error_900"})"));
        }
    }

    TEST_CASE("should write the same line when the caller has to render it") {
        Rendering r;
        const std::vector<std::string_view> keys = {"a\"", "epoch", "b"};
        MetricsBuilder builder(12, r.table.intern(keys));
        builder.missing(missing_bits(MissingReason::no_key_space)).integer(1).null();
        const std::string payload = builder.payload();
        CHECK(r.line(RecordKind::metrics, payload, nullptr) ==
              render_metrics_fragment(reinterpret_cast<const std::byte*>(payload.data()), keys));
        const TimingPayload timing = device_timing(r, DeviceKind::xpu, 2, true);
        const std::uint64_t bits = missing_bits(MissingReason::no_key_space);
        CHECK(r.line(RecordKind::timing, with_reason(timing_payload(timing, "E"), bits), nullptr) ==
              render_timing_fragment("fwd", "", timing, 1.0, 0, "E", bits));
    }

    TEST_CASE("should pass what a recorder may have left of values of devices") {
        Rendering r;
        const auto id = r.table.intern({"x", "epoch"});
        CHECK(r.passes(RecordKind::metrics,
                       MetricsBuilder(1, id).pending({UINT32_MAX, 255}).null().payload()));
        CHECK(r.passes(RecordKind::metrics,
                       MetricsBuilder(1, id).raw(ValueTag::pending, UINT64_MAX).null().payload()));
        CHECK(r.passes(
            RecordKind::metrics,
            MetricsBuilder(1, id).missing(missing_bits(kLastMissingReason)).null().payload()));
        const TimingPayload plain = device_timing(r, DeviceKind::other, 255);
        CHECK(r.passes(RecordKind::timing, timing_payload(plain)));
        const TimingPayload timing = device_timing(r, DeviceKind::mps, 0, true);
        CHECK(r.passes(RecordKind::timing, with_reason(timing_payload(timing, "E"), 0)));
    }

    TEST_CASE("should refuse what no recorder leaves of values of devices") {
        Rendering r;
        const auto id = r.table.intern({"x", "epoch"});
        const auto metrics = [&](const MetricsBuilder& builder) {
            return r.passes(RecordKind::metrics, builder.payload());
        };
        const auto last = static_cast<std::uint64_t>(kLastMissingReason);
        for (const std::uint64_t reason : {last + 1, std::uint64_t{0xFF}, UINT64_MAX}) {
            CHECK_FALSE(metrics(MetricsBuilder(1, id).missing(reason).null()));
        }
        for (unsigned tag = static_cast<unsigned>(kLastValueTag) + 1; tag < 256; ++tag) {
            CHECK_FALSE(metrics(MetricsBuilder(1, id).raw(static_cast<ValueTag>(tag), 0).null()));
        }
        // "epoch" stands before the metrics: what is missing there could not be named.
        CHECK_FALSE(metrics(MetricsBuilder(1, id).integer(1).pending({0, 0})));
        CHECK_FALSE(metrics(MetricsBuilder(1, id).integer(1).missing(0)));

        const auto timing = [&](const std::string& payload) {
            return r.passes(RecordKind::timing, payload);
        };
        for (unsigned kind = static_cast<unsigned>(kLastDeviceKind) + 1; kind < 16; ++kind) {
            const TimingPayload unknown = device_timing(r, static_cast<DeviceKind>(kind), 0);
            CHECK_FALSE(timing(timing_payload(unknown)));
        }
        const TimingPayload missing = device_timing(r, DeviceKind::cuda, 0, true);
        CHECK_FALSE(timing(timing_payload(missing)));                             // no reason
        CHECK_FALSE(timing(with_reason(timing_payload(missing), last + 1)));      // no such one
        CHECK_FALSE(timing(timing_payload(missing, "1234567")));                  // seven bytes
        CHECK_FALSE(timing(with_reason(timing_payload(missing, "E"), 0) + "x"));  // one too many
        TimingPayload of_none = missing;
        of_none.flags &= static_cast<std::uint16_t>(~unsigned{TimingPayload::kHasDevice});
        CHECK_FALSE(timing(with_reason(timing_payload(of_none), 0)));  // missing of no device
        const TimingPayload whole = device_timing(r, DeviceKind::cuda, 0);
        CHECK_FALSE(timing(with_reason(timing_payload(whole), 0)));  // a reason that is no error
    }
}
