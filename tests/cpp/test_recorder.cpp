// The facade and its life cycle: open -> closing -> closed, statistics, messages. Back-pressure is in
// test_recorder_pressure.cpp, fork in test_recorder_fork.cpp.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "test_recorder_support.hpp"

using namespace fastlog;
using namespace fastlog::test;

namespace {

constexpr std::int64_t kFar = 60'000'000'000;

}  // namespace

TEST_SUITE("recorder") {
    TEST_CASE("should write what it accepted, in order") {
        TempDir dir;
        Recorder recorder(options_for(dir / "run"));
        for (std::uint64_t i = 0; i < 100; ++i) {
            REQUIRE(record_number(recorder, i) == Recorded::accepted);
        }
        REQUIRE(recorder.flush(kFar));
        CHECK(numbers(lines_of_stream(dir / "run", "metrics")) == counting(100));
        REQUIRE(record_number(recorder, 100) == Recorded::accepted);
        REQUIRE(recorder.close(kFar));
        const auto lines = lines_of_stream(dir / "run", "metrics");
        CHECK(numbers(lines) == counting(101));
        CHECK(gapless(lines));
        check_balance(recorder);
    }

    TEST_CASE("should let a payload be written in place and render it with interned keys") {
        TempDir dir;
        Recorder recorder(options_for(dir.path()));
        const auto id = recorder.keys().intern({"loss", "epoch"});
        const std::string payload = MetricsBuilder(7, id).real(0.25).integer(3).payload();
        REQUIRE(recorder.submit(RecordKind::metrics, Stream::metrics, now_ticks(), 1,
                                payload.size(), [&](std::byte* at) {
                                    std::memcpy(at, payload.data(), payload.size());
                                }) == Recorder::Submit::accepted);
        REQUIRE(recorder.close(kFar));
        const std::string line = lines_of(dir / "metrics.jsonl").at(0);
        CHECK(line.ends_with(R"("seq":0,"step":7,"epoch":3,"metrics":{"loss":0.25}})"));
        CHECK(recorder.stats().key_sets == 1);
    }

    TEST_CASE("should close once, and say so again") {
        TempDir dir;
        Recorder recorder(options_for(dir.path()));
        CHECK(record_number(recorder, 0) == Recorded::accepted);
        CHECK((recorder.attention().bits() & AttentionBits::kClosed) == 0);
        CHECK(recorder.close(kFar));
        CHECK((recorder.attention().bits() & AttentionBits::kClosed) != 0);
        CHECK(recorder.close(0));
        CHECK(recorder.close(kFar));
        CHECK(recorder.submit(RecordKind::fragment, Stream::log, 0, 0, "x", 1) ==
              Recorder::Submit::closed);
        CHECK(recorder.flush(0));
        check_balance(recorder);
    }

    TEST_CASE("should open and close without a record") {
        TempDir dir;
        Recorder recorder(options_for(dir.path()));
        REQUIRE(recorder.close(kFar));
        CHECK(read_file(dir / "metrics.jsonl") == "");
        const RecorderStats stats = recorder.stats();
        CHECK(stats.wall_s == 0.0);
        CHECK(stats.overhead_fraction == 0.0);
        CHECK(stats.logging_s == 0.0);
        check_balance(recorder);
    }

    TEST_CASE("should give each recorder of a run its own files") {
        TempDir dir;
        Recorder first(options_for(dir.path()));
        Recorder second(options_for(dir.path()));
        CHECK(first.stats().flush.label == "");
        CHECK(second.stats().flush.label == "a1");
        REQUIRE(record_number(first, 1) == Recorded::accepted);
        REQUIRE(record_number(second, 2) == Recorded::accepted);
        REQUIRE(second.close(kFar));
        REQUIRE(first.close(kFar));
        CHECK(parse(lines_of(dir / "metrics.jsonl").at(0))["n"].count() == 1);
        CHECK(parse(lines_of(dir / "metrics.a1.jsonl").at(0))["n"].count() == 2);
    }

    TEST_CASE("should say the same to all who close it at once") {
        for (int round = 0; round < 10; ++round) {
            TempDir dir;
            Recorder recorder(options_for(dir.path()));
            for (std::uint64_t i = 0; i < 50; ++i) record_number(recorder, i);
            std::atomic<int> closed{0};
            std::vector<std::thread> threads;
            for (int t = 0; t < 4; ++t) {
                threads.emplace_back([&] {
                    if (recorder.close(kFar)) closed.fetch_add(1);
                });
            }
            for (auto& thread : threads) thread.join();
            CHECK(closed.load() == 4);
            CHECK(numbers(lines_of_stream(dir.path(), "metrics")) == counting(50));
        }
    }

    TEST_CASE("should have written exactly what it accepted when closed while 8 threads record") {
        for (const BackPressure policy : {BackPressure::block, BackPressure::drop}) {
            for (int round = 0; round < scaled(12, 4); ++round) {
                TempDir dir;
                RecorderOptions options = options_for(dir.path());
                options.back_pressure = policy;
                Recorder recorder(std::move(options));
                constexpr std::uint64_t kThreads = 8;
                constexpr std::uint64_t kMost = 1'000'000;
                std::vector<std::vector<std::uint64_t>> accepted(kThreads);
                std::uint64_t dropped[kThreads] = {};
                std::atomic<std::uint64_t> going{0};
                std::vector<std::thread> threads;
                for (std::uint64_t t = 0; t < kThreads; ++t) {
                    threads.emplace_back([&, t] {
                        for (std::uint64_t i = t * kMost; i < (t + 1) * kMost; ++i) {
                            const auto stream = static_cast<Stream>(i % 3);
                            const Recorded result = record_number(recorder, i, stream);
                            if (result == Recorded::closed) return;
                            if (result == Recorded::accepted) accepted[t].push_back(i);
                            if (result == Recorded::dropped) ++dropped[t];
                            going.fetch_add(1, std::memory_order_relaxed);
                        }
                    });
                }
                const std::uint64_t some = 500 * static_cast<std::uint64_t>(round * round);
                CHECK(eventually([&] { return going.load() >= some; }));
                CHECK(recorder.close(kFar));
                // All that was accepted is in the files by now, though the threads still run.
                for (auto& thread : threads) thread.join();

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
        std::vector<std::thread> threads;
        for (std::uint64_t t = 0; t < 2; ++t) {
            threads.emplace_back([&] {
                for (std::uint64_t i = 0; !over.load(); ++i) record_number(recorder, i);
            });
        }
        for (std::uint64_t t = 0; t < 2; ++t) {
            threads.emplace_back([&] {
                for (int i = 0; i < 30; ++i) {
                    if (!recorder.flush(kFar)) failures.fetch_add(1);
                }
            });
        }
        threads[2].join();
        threads[3].join();
        over.store(true);
        threads[0].join();
        threads[1].join();
        CHECK(failures.load() == 0);
        REQUIRE(recorder.close(kFar));
        check_balance(recorder);
    }

    TEST_CASE("should open on a dead disk, say so, and write all when the disk works") {
        TempDir dir;
        Obstacle obstacle(dir);
        Recorder recorder(options_for(obstacle.run()));
        CHECK(recorder.attention().clear(AttentionBits::kMessages));
        CHECK(recorder.take_messages().size() == 1);
        for (std::uint64_t i = 0; i < 10; ++i) {
            CHECK(record_number(recorder, i) == Recorded::accepted);
        }
        CHECK_FALSE(recorder.flush(1'000'000));
        CHECK_FALSE(recorder.close(1'000'000));
        CHECK(record_number(recorder, 10) == Recorded::closed);
        CHECK_FALSE(recorder.close(0));
        CHECK(written(recorder.stats()) == 0);
        obstacle.remove();
        CHECK(recorder.close(kFar));
        CHECK(numbers(lines_of_stream(obstacle.run(), "metrics")) == counting(10));
        check_balance(recorder);
        std::filesystem::remove_all(obstacle.run());
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
        slot.add_sample(CallKind::record, ticks_in(1e-3));
        slot.add_sample(CallKind::record, ticks_in(3e-3));
        ThreadSlot::add(slot.blocked_ticks, ticks_in(4));
        REQUIRE(recorder.close(kFar));
        const RecorderStats stats = recorder.stats();
        // The rate has been measured anew meanwhile.
        const auto about = [](double value, double expected) {
            return std::abs(value - expected) < 0.05 * expected;
        };
        CHECK(about(stats.mean_ns[0], 2e6));  // of 1 ms and 3 ms
        CHECK(about(stats.blocked_s, 4));
        CHECK(about(stats.logging_s, 1000 * 2e-3 + 4));
        CHECK(stats.wall_s >= 95);
        CHECK(about(stats.overhead_fraction, stats.logging_s / stats.wall_s));
        CHECK(stats.mean_ns[1] == 0.0);
        CHECK(stats.ring_bytes == 64 << 10);
        CHECK(recorder.stats().wall_s == stats.wall_s);  // stands still once closed
        CHECK(recorder.stats().logging_s == stats.logging_s);
    }

    TEST_CASE("should say once that it is over its budget") {
        TempDir dir;
        RecorderOptions options = options_for(dir.path());
        options.flush_interval_ns = 1'000'000;
        Recorder recorder(std::move(options));
        const auto second = static_cast<std::uint64_t>(1e9 / recorder.ns_per_tick());
        // The first record 100 s ago, 50 s of them blocked.
        ThreadSlot::add(recorder.slot().blocked_ticks, 50 * second);
        REQUIRE(record(recorder, "\"n\":0", Stream::metrics, now_ticks() - 100 * second) ==
                Recorded::accepted);
        REQUIRE(recorder.flush(kFar));
        REQUIRE(recorder.close(kFar));  // checks the budget again
        const auto messages = recorder.take_messages();
        REQUIRE(messages.size() == 1);
        const std::string begin = "foundry_fastlog took ";
        REQUIRE(messages[0].starts_with(begin));
        const double percent = std::stod(messages[0].substr(begin.size()));
        CHECK(percent > 40);  // 50 s of 100 s and what the test took
        CHECK(percent <= 50);
        CHECK(messages[0].find("over the budget of 1.00 %") != std::string::npos);
        CHECK(recorder.attention().clear(AttentionBits::kMessages));
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

    TEST_CASE("should count threads that came and went") {
        TempDir dir;
        Recorder recorder(options_for(dir.path()));
        for (std::uint64_t t = 0; t < 20; ++t) {
            std::thread([&] { record_number(recorder, t); }).join();
        }
        REQUIRE(recorder.close(kFar));
        CHECK(recorder.stats().calls.accepted == 20);
        CHECK(numbers(lines_of_stream(dir.path(), "metrics")) == counting(20));
        check_balance(recorder);
    }
}
