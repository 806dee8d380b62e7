// The recorder between threads, on a disk that is dead for a while, across fork(), and its sums. What a program
// sees of its life is in tests/unit/test_recorder_lifecycle.py and tests/integration.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "test_recorder_support.hpp"

using namespace fastlog;
using namespace fastlog::test;

namespace {

constexpr std::int64_t kFar = 60'000'000'000;
constexpr std::int64_t kTimeout = 30'000'000;

/// A recorder whose disk is dead until `obstacle` is removed.
struct DeadDisk {
    explicit DeadDisk(BackPressure policy) : recorder(options(policy)) { recorder.take_messages(); }
    ~DeadDisk() {
        revive();
        if (!recorder.close(kFar)) std::abort();
        std::filesystem::remove_all(obstacle.run());
    }
    RecorderOptions options(BackPressure policy) {
        RecorderOptions o = options_for(obstacle.run(), 64 << 10, policy);
        o.block_timeout_ns = kTimeout;
        return o;
    }
    void revive() { obstacle.remove(); }
    /// Records until the ring is full; the number of records accepted.
    std::uint64_t fill() {
        std::uint64_t n = 0;
        while (recorder.submit(RecordKind::fragment, Stream::metrics, now_ticks(), 0, "\"n\":0",
                               5) == Recorder::Submit::accepted) {
            ThreadSlot& slot = recorder.slot();
            slot.count_call(CallKind::record);
            ThreadSlot::add(slot.accepted, 1);
            ++n;
        }
        return n;
    }

    TempDir dir;
    Obstacle obstacle{dir};
    Recorder recorder;
};

}  // namespace

TEST_SUITE("recorder") {
    TEST_CASE("should have written exactly what it accepted when closed while 8 threads record") {
        for (const BackPressure policy : {BackPressure::block, BackPressure::drop}) {
            for (int round = 0; round < scaled(12, 4); ++round) {
                TempDir dir;
                Recorder recorder(options_for(dir.path(), 64 << 10, policy));
                constexpr std::uint64_t kThreads = 8;
                constexpr std::uint64_t kMost = 1'000'000;
                std::vector<std::vector<std::uint64_t>> accepted(kThreads);
                std::uint64_t dropped[kThreads] = {};
                std::atomic<std::uint64_t> going{0};
                Threads threads(kThreads, [&](std::uint64_t t) {
                    for (std::uint64_t i = t * kMost; i < (t + 1) * kMost; ++i) {
                        const auto stream = static_cast<Stream>(i % 3);
                        const Recorded result = record_number(recorder, i, stream);
                        if (result == Recorded::closed) return;
                        if (result == Recorded::accepted) accepted[t].push_back(i);
                        if (result == Recorded::dropped) ++dropped[t];
                        going.fetch_add(1, std::memory_order_relaxed);
                    }
                });
                const std::uint64_t some = 500 * static_cast<std::uint64_t>(round * round);
                CHECK(eventually([&] { return going.load() >= some; }));
                CHECK(recorder.close(kFar));
                // All that was accepted is in the files by now, though the threads still run.
                threads.join();

                std::vector<std::uint64_t> expected;
                std::uint64_t all_dropped = 0;
                for (std::uint64_t t = 0; t < kThreads; ++t) {
                    expected.insert(expected.end(), accepted[t].begin(), accepted[t].end());
                    all_dropped += dropped[t];
                }
                std::vector<std::uint64_t> read;
                for (const char* stream : {"metrics", "performance", "errors"}) {
                    const auto lines = lines_of_stream(dir.path(), stream);
                    CHECK(gapless(lines));
                    const auto own = numbers(lines);
                    for (std::uint64_t t = 0; t < kThreads; ++t) {  // in order per thread
                        std::uint64_t last = 0;
                        for (const std::uint64_t n : own) {
                            if (n / kMost != t) continue;
                            if (n < last) FAIL_CHECK(n << " behind " << last);
                            last = n;
                        }
                    }
                    read.insert(read.end(), own.begin(), own.end());
                }
                std::sort(read.begin(), read.end());
                CHECK(read == expected);
                const RecorderStats stats = recorder.stats();
                CHECK(stats.calls.accepted == expected.size());
                CHECK(stats.calls.dropped == all_dropped);
                check_balance(recorder);
            }
        }
    }

    TEST_CASE("should honour flushes of many threads while others record") {
        TempDir dir;
        Recorder recorder(options_for(dir.path()));
        std::atomic<bool> over{false};
        std::atomic<int> failures{0};
        Threads recording(2, [&](auto) {
            for (std::uint64_t i = 0; !over.load(); ++i) record_number(recorder, i);
        });
        Threads(2, [&](auto) {
            for (int i = 0; i < 30; ++i) {
                if (!recorder.flush(kFar)) failures.fetch_add(1);
            }
        }).join();
        over.store(true);
        recording.join();
        CHECK(failures.load() == 0);
        REQUIRE(recorder.close(kFar));
        check_balance(recorder);
    }

    TEST_CASE("should do its sums right") {
        TempDir dir;
        Recorder recorder(options_for(dir.path()));
        const auto ticks_in = [&](double seconds) {
            return static_cast<std::uint64_t>(seconds * 1e9 / recorder.ns_per_tick());
        };
        const std::uint64_t now = now_ticks();
        REQUIRE(record(recorder, "\"n\":0", Stream::metrics, now - ticks_in(100)) ==
                Recorded::accepted);
        ThreadSlot& slot = recorder.slot();
        for (int i = 0; i < 999; ++i) slot.count_call(CallKind::record);
        slot.add_sample(CallKind::record, ticks_in(1e-5));
        slot.add_sample(CallKind::record, ticks_in(3e-5));
        slot.add_sample(CallKind::record, ticks_in(3e-3));  // the thread did not run
        ThreadSlot::add(slot.blocked_ticks, ticks_in(4));
        REQUIRE(recorder.close(kFar));
        const RecorderStats stats = recorder.stats();
        // The rate has been measured anew meanwhile.
        const auto about = [](double value, double expected) {
            return std::abs(value - expected) < 0.05 * expected;
        };
        CHECK(about(stats.mean_ns[0], 2e4));  // of 10 us and 30 us
        CHECK(about(stats.blocked_s, 4));
        CHECK(about(stats.logging_s, 1000 * 2e-5 + 4));
        CHECK(stats.wall_s >= 95);
        CHECK(about(stats.overhead_fraction, stats.logging_s / stats.wall_s));
        CHECK(stats.mean_ns[1] == 0.0);
        CHECK(stats.ring_bytes == 64 << 10);
        CHECK(recorder.stats().wall_s == stats.wall_s);  // stands still once closed
        CHECK(recorder.stats().logging_s == stats.logging_s);
    }

    TEST_CASE("should keep silent within its budget, and in the first seconds") {
        const std::uint64_t second = [] {
            const TickConverter clock;
            return static_cast<std::uint64_t>(1e18 / clock.duration_ns(1'000'000'000));
        }();
        for (const std::uint64_t age : {100 * second, 2 * second}) {
            TempDir dir;
            Recorder recorder(options_for(dir.path()));
            // 0.9 % of 100 s, and all of the first two seconds.
            ThreadSlot::add(recorder.slot().blocked_ticks,
                            age > 10 * second ? age / 1000 * 9 : age);
            REQUIRE(record(recorder, "\"n\":0", Stream::metrics, now_ticks() - age) ==
                    Recorded::accepted);
            REQUIRE(recorder.close(kFar));
            CHECK(recorder.take_messages().empty());
        }
    }
}

TEST_SUITE("recorder back-pressure") {
    TEST_CASE("should wait for its time by the policy block, and not again in vain") {
        DeadDisk d(BackPressure::block);
        d.fill();
        CHECK(d.recorder.may_block());
        const std::int64_t begin = monotonic_ns();
        REQUIRE(record_number(d.recorder, 1) == Recorded::dropped);
        CHECK(monotonic_ns() - begin >= kTimeout);
        CHECK_FALSE(d.recorder.may_block());
        const std::uint64_t blocked = d.recorder.stats().calls.blocked_ticks;
        CHECK(blocked > 0);
        CHECK(d.recorder.stats().blocked_s >= 0.9 * static_cast<double>(kTimeout) / 1e9);
        for (int i = 0; i < 1000; ++i) REQUIRE(record_number(d.recorder, 1) == Recorded::dropped);
        CHECK(d.recorder.stats().calls.blocked_ticks == blocked);  // nobody waited again
        // After something was written waiting makes sense again.
        d.revive();
        REQUIRE(d.recorder.flush(kFar));
        CHECK(d.recorder.may_block());
        REQUIRE(record_number(d.recorder, 2) == Recorded::accepted);
        REQUIRE(d.recorder.close(kFar));
        CHECK(marked_drops(lines_of_stream(d.obstacle.run(), "metrics")) == 1001);
        check_balance(d.recorder);
    }

    TEST_CASE("should let a waiting thread go on when the disk comes back") {
        DeadDisk d(BackPressure::block);
        d.fill();
        bool room = false;
        std::thread waiter([&] { room = d.recorder.wait_for_room(5); });
        // Either before it waits, or while it does, or after it gave up: then it says so.
        d.revive();
        waiter.join();
        if (!room) CHECK(d.recorder.stats().calls.blocked_ticks > 0);
        REQUIRE(d.recorder.flush(kFar));
        CHECK(d.recorder.wait_for_room(5));
    }

    TEST_CASE("should drop nothing by the policy block while the disk keeps up") {
        TempDir dir;
        RecorderOptions options = options_for(dir.path());
        options.block_timeout_ns = kFar;
        Recorder recorder(std::move(options));
        constexpr std::uint64_t kThreads = 4;
        const std::uint64_t each = scaled(50'000u, 5'000u);
        std::atomic<std::uint64_t> not_accepted{0};
        Threads(kThreads, [&](std::uint64_t t) {
            for (std::uint64_t i = t * each; i < (t + 1) * each; ++i) {
                if (record_number(recorder, i) != Recorded::accepted) not_accepted.fetch_add(1);
            }
        }).join();
        CHECK(not_accepted.load() == 0);
        REQUIRE(recorder.close(kFar));
        auto read = numbers(lines_of_stream(dir.path(), "metrics"));
        std::sort(read.begin(), read.end());
        CHECK(read == counting(kThreads * each));
        check_balance(recorder);
    }

    TEST_CASE("should account for each of many records that many threads drop") {
        TempDir dir;
        Recorder recorder(options_for(dir.path(), 64 << 10, BackPressure::drop));
        constexpr std::uint64_t kThreads = 4;
        const std::uint64_t each = scaled(50'000u, 10'000u);
        std::atomic<std::uint64_t> accepted{0};
        Threads(kThreads, [&](auto) {
            for (std::uint64_t i = 0; i < each; ++i) {
                const auto stream = static_cast<Stream>(i % 4);
                if (record_number(recorder, i, stream) == Recorded::accepted) accepted.fetch_add(1);
            }
        }).join();
        REQUIRE(recorder.close(kFar));
        const RecorderStats stats = recorder.stats();
        CHECK(stats.calls.accepted == accepted.load());
        CHECK(stats.calls.accepted + stats.calls.dropped == kThreads * each);
        std::uint64_t read = 0;
        for (std::size_t s = 0; s < kStreamCount; ++s) {
            const auto lines = lines_of_stream(dir.path(), kStreamNames[s]);
            CHECK(gapless(lines));
            CHECK(marked_drops(lines) == stats.flush.streams[s].dropped);
            CHECK(numbers(lines).size() == stats.flush.streams[s].written);
            read += numbers(lines).size();
        }
        CHECK(read == accepted.load());
        check_balance(recorder);
    }

    TEST_CASE("should mark the drops of threads that record while it closes") {
        for (int round = 0; round < 5; ++round) {
            TempDir dir;
            Recorder recorder(options_for(dir.path(), 64 << 10, BackPressure::drop));
            constexpr std::uint64_t kThreads = 4;
            Threads threads(kThreads, [&](auto) {
                while (record_number(recorder, 1) != Recorded::closed) {
                }
            });
            CHECK(eventually([&] { return recorder.stats().calls.dropped >= 1000; }));
            REQUIRE(recorder.close(kFar));
            threads.join();
            const std::uint64_t dropped = recorder.stats().calls.dropped;
            const std::uint64_t marked = marked_drops(lines_of_stream(dir.path(), "metrics"));
            // A thread that was refused just before the close may count its record after it.
            CHECK(dropped - marked <= kThreads);
        }
    }

    TEST_CASE("should keep a marker for later while there is no room for it") {
        DeadDisk d(BackPressure::drop);
        const std::uint64_t accepted = d.fill();
        for (int i = 0; i < 10; ++i) {
            REQUIRE(record_number(d.recorder, 1) == Recorded::dropped);
            d.recorder.submit_drop_markers();
            CHECK((d.recorder.attention().bits() & AttentionBits::kDrops) != 0);
        }
        d.revive();
        REQUIRE(d.recorder.close(kFar));
        const auto lines = lines_of_stream(d.obstacle.run(), "metrics");
        REQUIRE(lines.size() == accepted + 1);
        CHECK(lines[accepted]["dropped"].count() == 10);
    }
}

TEST_SUITE("recorder fork") {
    TEST_CASE("should mark every open recorder in the child, and none in the parent") {
        TempDir dir;
        Recorder first(options_for(dir.path()));
        Recorder second(options_for(dir.path()));
        REQUIRE(record_number(first, 0) == Recorded::accepted);
        CHECK(in_forked_child([&] {
                  if (first.attention().bits() != AttentionBits::kForked) return 1;
                  if (second.attention().bits() != AttentionBits::kForked) return 2;
                  first.abandon_in_child();
                  return first.attention().bits() ==
                                 (AttentionBits::kForked | AttentionBits::kClosed)
                             ? 0
                             : 3;
              }) == 0);
        CHECK(first.attention().bits() == 0);
        CHECK(second.attention().bits() == 0);
        REQUIRE(record_number(first, 1) == Recorded::accepted);
        REQUIRE(first.close(kFar));
        REQUIRE(second.close(kFar));
        CHECK(numbers(lines_of_stream(dir.path(), "metrics")) == counting(2));
    }

    TEST_CASE("should know nothing of recorders that are gone") {
        TempDir dir;
        auto recorder = std::make_unique<Recorder>(options_for(dir.path()));
        REQUIRE(recorder->close(kFar));
        recorder.reset();
        CHECK(in_forked_child([] { return 0; }) == 0);  // the handler would write to freed memory
    }

    TEST_CASE("should lose nothing of the parent when it forks while its threads record") {
        TempDir dir;
        Recorder recorder(options_for(dir.path()));
        constexpr std::uint64_t kThreads = 3;
        std::atomic<bool> over{false};
        std::vector<std::uint64_t> accepted(kThreads, 0);
        Threads threads(kThreads, [&](std::uint64_t t) {
            while (!over.load()) {
                if (record_number(recorder, accepted[t]) == Recorded::accepted) ++accepted[t];
            }
        });
        int wrong = 0;
        for (int i = 0; i < scaled(20, 8); ++i) {
            wrong += in_forked_child(
                [&] { return recorder.attention().bits() & AttentionBits::kForked ? 0 : 1; });
        }
        over.store(true);
        threads.join();
        CHECK(wrong == 0);
        REQUIRE(recorder.close(kFar));
        const auto sum = std::accumulate(accepted.begin(), accepted.end(), std::uint64_t{0});
        const auto lines = lines_of_stream(dir.path(), "metrics");
        CHECK(numbers(lines).size() == sum);
        CHECK(gapless(lines));
        check_balance(recorder);
    }
}
