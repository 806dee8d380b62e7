// Ticks and what they are turned into. Nothing here depends on how fast the machine is: each reading
// is bracketed by two readings of the clock that it is compared with.
#include <cmath>
#include <vector>

#include "core/clock.hpp"
#include "test_support.hpp"

using namespace fastlog;
using namespace fastlog::test;

namespace {

// How far the converter may be off: its anchors are taken within microseconds, its rate is good to
// 1 in 1000 from the first refresh on; a wall clock that NTP slews is off by 1 in 2000.
constexpr std::int64_t kToleranceNs = 20'000'000;

void busy_for(std::int64_t ns) {
    const std::int64_t end = monotonic_ns() + ns;
    while (monotonic_ns() < end) {
    }
}

void check_now(const TickConverter& clock) {
    const std::int64_t before = clock_ns(CLOCK_REALTIME);
    const std::uint64_t ticks = now_ticks();
    const std::int64_t after = clock_ns(CLOCK_REALTIME);
    const std::int64_t wall = clock.wall_ns(ticks);
    CHECK(wall > before - kToleranceNs);
    CHECK(wall < after + kToleranceNs);
}

}  // namespace

TEST_SUITE("clock") {
    TEST_CASE("should decide once and for all whether the counter can be trusted") {
        CHECK(detail::tsc_is_reliable() == hot_line.use_tsc);
        CHECK(detail::tsc_is_reliable() == detail::tsc_is_reliable());
    }

    TEST_CASE("should never measure a span that runs backwards") {
        std::uint64_t last = span_ticks();
        for (int i = 0; i < 100'000; ++i) {
            const std::uint64_t now = span_ticks();
            if (now < last) FAIL_CHECK("went back by " << last - now);
            last = now;
        }
    }

    TEST_CASE("should turn the ticks of now into the wall time of now") {
        TickConverter clock;
        check_now(clock);
        for (int i = 0; i < 50; ++i) {
            busy_for(100'000);
            clock.refresh();
            check_now(clock);
        }
    }

    TEST_CASE("should turn ticks from before the anchors into wall time too") {
        const std::int64_t before = clock_ns(CLOCK_REALTIME);
        const std::uint64_t ticks = now_ticks();
        const std::int64_t after = clock_ns(CLOCK_REALTIME);
        busy_for(2'000'000);
        TickConverter clock;
        for (int i = 0; i < 20; ++i) {
            CHECK(clock.wall_ns(ticks) > before - kToleranceNs);
            CHECK(clock.wall_ns(ticks) < after + kToleranceNs);
            busy_for(200'000);
            clock.refresh();
        }
    }

    TEST_CASE("should keep the order of ticks between two refreshes") {
        TickConverter clock;
        std::vector<std::uint64_t> ticks;
        for (int i = 0; i < 1000; ++i) {
            ticks.push_back(now_ticks());
            busy_for(2'000);
        }
        clock.refresh();
        int back = 0;
        for (std::size_t i = 1; i < ticks.size(); ++i) {
            // The change from one anchor's line to the other's may cost microseconds, once.
            if (clock.wall_ns(ticks[i]) < clock.wall_ns(ticks[i - 1])) ++back;
        }
        CHECK(back <= 1);
    }

    TEST_CASE("should measure spans as the monotonic clock does") {
        TickConverter clock;
        for (int i = 0; i < 20; ++i) {
            const std::int64_t a = monotonic_ns();
            const std::uint64_t begin = span_ticks();
            const std::int64_t b = monotonic_ns();
            busy_for(1'000'000);
            const std::int64_t c = monotonic_ns();
            const std::uint64_t end = span_ticks();
            const std::int64_t d = monotonic_ns();
            clock.refresh();
            const double ns = clock.duration_ns(end - begin);
            CHECK(ns > static_cast<double>(c - b) * 0.95 - 1'000);
            CHECK(ns < static_cast<double>(d - a) * 1.05 + 1'000);
        }
        CHECK(clock.duration_ns(0) == 0.0);
    }

    TEST_CASE("should stay sane when refreshed as often as possible") {
        TickConverter clock;
        const double first = clock.duration_ns(1'000'000);
        for (int i = 0; i < 10'000; ++i) clock.refresh();
        const double last = clock.duration_ns(1'000'000);
        CHECK(std::isfinite(last));
        CHECK(last > first * 0.9);
        CHECK(last < first * 1.1);
        check_now(clock);
    }
}
