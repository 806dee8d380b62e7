// Values that turn NaN or infinite: one event each time a key turns, and never a flood.
#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "core/nonfinite_watch.hpp"
#include "test_support.hpp"

using namespace fastlog;
using namespace fastlog::test;

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

/// Delivers what it is told, by slot.
class Values final : public DeviceValues {
  public:
    void begin_round() noexcept override {}
    State poll(std::uint16_t) noexcept override { return State::settled; }
    std::int64_t made_ns(std::uint16_t) const noexcept override { return 0; }
    void give_up(std::uint16_t, MissingReason) noexcept override {}
    SettledValue value(PendingValue pending) const noexcept override {
        return values[pending.slot];
    }
    SettledValue duration(std::uint16_t) const noexcept override { return {}; }
    void release(std::uint16_t) noexcept override {}

    std::vector<SettledValue> values;
};

struct Watching {
    explicit Watching(WatchNonfinite which) : watch(which) {}

    void observe(const MetricsBuilder& builder) {
        const std::string payload = builder.payload();
        AlignedBytes bytes(record_size(payload.size()));
        RecordHeader header{};
        header.length = static_cast<std::uint32_t>(payload.size());
        header.kind = RecordKind::metrics;
        header.flags = 1;
        std::memcpy(bytes.get(), &header, sizeof header);
        std::memcpy(bytes.get() + sizeof header, payload.data(), payload.size());
        const auto& record = *reinterpret_cast<const RecordHeader*>(bytes.get());
        std::string line;
        renderer.render(record, 0, line, &values);
        watch.observe(record, renderer);
    }
    void device(std::int64_t step, const SettledValue& value) {
        values.values = {value};
        observe(MetricsBuilder(step, key).pending({0, 0}));
    }
    void device(std::int64_t step, double value) {
        device(step, {ValueTag::real, std::bit_cast<std::uint64_t>(value)});
    }
    void host(std::int64_t step, double value) { observe(MetricsBuilder(step, key).real(value)); }
    /// The steps of the events so far; takes them.
    std::vector<std::uint64_t> steps() {
        std::vector<std::uint64_t> all;
        for (; !watch.events().empty(); watch.pop_event()) {
            all.push_back(parse("{" + watch.events().front() + "}")["step"].count());
        }
        return all;
    }
    using Steps = std::vector<std::uint64_t>;

    AlignedBytes arena{1 << 20};
    KeyTable table{arena.get(), 1 << 20};
    LineRenderer renderer{arena.get(), 1 << 20};
    std::uint32_t key = table.intern({"lo\"ss"});
    Values values;
    NonfiniteWatch watch;
};

}  // namespace

TEST_SUITE("nonfinite watch") {
    TEST_CASE("should make a whole line's members of an event") {
        Watching w(WatchNonfinite::device);
        w.device(-12, -kInf);
        REQUIRE(w.watch.events().size() == 1);
        const Json event = parse("{" + w.watch.events().front() + "}");
        CHECK(event.keys() ==
              std::vector<std::string>{"level", "logger", "message", "event", "step", "context"});
        CHECK(event["level"].text == "WARNING");
        CHECK(event["message"].text == "lo\"ss became -inf at step -12");
        CHECK(event["context"]["key"].text == "lo\"ss");
        CHECK(event["context"]["value"].text == "-inf");
    }

    TEST_CASE("should tell of a key once, until it has been finite again") {
        Watching w(WatchNonfinite::device);
        w.device(0, 1.0);
        w.device(1, kNan);
        w.device(2, kInf);
        w.device(3, kNan);
        CHECK(w.steps() == Watching::Steps{1});
        w.device(4, 0.0);
        w.device(5, kInf);
        CHECK(w.steps() == Watching::Steps{5});
    }

    TEST_CASE("should not take a value that did not arrive for a finite one") {
        Watching w(WatchNonfinite::device);
        w.device(1, kNan);
        w.device(2, {ValueTag::missing, missing_bits(MissingReason::timeout)});
        w.device(3, kNan);
        CHECK(w.steps() == Watching::Steps{1});
    }

    TEST_CASE("should watch what it is told to watch") {
        Watching none(WatchNonfinite::none);
        none.device(1, kNan);
        none.host(1, kNan);
        CHECK(none.steps().empty());
        Watching device(WatchNonfinite::device);
        device.host(1, kNan);
        CHECK(device.steps().empty());
        device.device(2, kNan);
        CHECK(device.steps() == Watching::Steps{2});
        Watching all(WatchNonfinite::all);
        all.host(1, kNan);
        all.device(2, kNan);
        CHECK(all.steps() == Watching::Steps{1});
    }

    TEST_CASE("should take integers and texts for finite") {
        Watching w(WatchNonfinite::all);
        w.host(1, kNan);
        w.observe(MetricsBuilder(2, w.key).integer(3));
        w.host(3, kNan);
        CHECK(w.steps() == Watching::Steps{1, 3});
    }

    TEST_CASE("should keep no more events than it may, nor more keys") {
        Watching w(WatchNonfinite::all);
        constexpr std::size_t kKeys = NonfiniteWatch::kMostKeys + 100;
        std::vector<std::string> names;
        for (std::size_t i = 0; i < kKeys; ++i) names.push_back("k" + std::to_string(i));
        std::size_t told = 0;
        for (std::size_t at = 0; at < kKeys; at += 100) {
            const std::vector<std::string_view> keys(
                names.begin() + static_cast<std::ptrdiff_t>(at),
                names.begin() + static_cast<std::ptrdiff_t>(std::min(at + 100, kKeys)));
            MetricsBuilder builder(1, w.table.intern(keys));
            for (std::size_t i = 0; i < keys.size(); ++i) builder.real(kNan);
            w.observe(builder);
            told += w.steps().size();
        }
        CHECK(told == NonfiniteWatch::kMostKeys);
        Watching flooded(WatchNonfinite::all);
        const std::vector<std::string_view> keys(names.begin(), names.begin() + 1000);
        MetricsBuilder builder(1, flooded.table.intern(keys));
        for (int i = 0; i < 1000; ++i) builder.real(kNan);
        flooded.observe(builder);
        CHECK(flooded.watch.events().size() == NonfiniteWatch::kMostEvents);
    }
}
