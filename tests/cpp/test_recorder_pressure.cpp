// What happens when the ring is full: waiting for a bounded time, dropping, marking, telling.
#include <algorithm>
#include <filesystem>
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
        RecorderOptions o = options_for(obstacle.run());
        o.back_pressure = policy;
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

TEST_SUITE("recorder back-pressure") {
    TEST_CASE("should drop at once by the policy drop, count, tell once and mark the gap") {
        DeadDisk d(BackPressure::drop);
        const std::uint64_t accepted = d.fill();
        CHECK(accepted == (64 << 10) / 64);
        CHECK_FALSE(d.recorder.may_block());
        for (int i = 0; i < 100; ++i) {
            REQUIRE(record_number(d.recorder, 1) == Recorded::dropped);
            REQUIRE(record_number(d.recorder, 1, Stream::log) == Recorded::dropped);
        }
        CHECK((d.recorder.attention().bits() & AttentionBits::kDrops) != 0);
        const auto messages = d.recorder.take_messages();
        REQUIRE(messages.size() == 1);
        CHECK(messages[0].find("foundry_fastlog's ring of 65536 bytes is full") == 0);
        RecorderStats stats = d.recorder.stats();
        CHECK(stats.calls.dropped == 200);
        CHECK(stats.calls.blocked_ticks == 0);
        CHECK(stats.flush.streams[0].dropped == 100);
        CHECK(stats.flush.streams[3].dropped == 100);

        d.revive();
        REQUIRE(d.recorder.flush(kFar));
        REQUIRE(record_number(d.recorder, 2) == Recorded::accepted);
        CHECK((d.recorder.attention().bits() & AttentionBits::kDrops) == 0);
        REQUIRE(d.recorder.close(kFar));
        const auto lines = lines_of_stream(d.obstacle.run(), "metrics");
        REQUIRE(lines.size() == accepted + 2);
        CHECK(gapless(lines));
        CHECK(lines[accepted]["dropped"].count() == 100);  // right before the next record
        CHECK(lines[accepted + 1]["n"].count() == 2);
        const auto log = lines_of_stream(d.obstacle.run(), "log");
        REQUIRE(log.size() == 1);
        CHECK(log[0]["dropped"].count() == 100);
        CHECK(d.recorder.take_messages().empty());
        check_balance(d.recorder);
    }

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
        std::vector<std::thread> threads;
        for (std::uint64_t t = 0; t < kThreads; ++t) {
            threads.emplace_back([&, t] {
                for (std::uint64_t i = t * each; i < (t + 1) * each; ++i) {
                    if (record_number(recorder, i) != Recorded::accepted) not_accepted.fetch_add(1);
                }
            });
        }
        for (auto& thread : threads) thread.join();
        CHECK(not_accepted.load() == 0);
        REQUIRE(recorder.close(kFar));
        auto read = numbers(lines_of_stream(dir.path(), "metrics"));
        std::sort(read.begin(), read.end());
        CHECK(read == counting(kThreads * each));
        check_balance(recorder);
    }

    TEST_CASE("should account for each of many records that many threads drop") {
        TempDir dir;
        RecorderOptions options = options_for(dir.path());
        options.back_pressure = BackPressure::drop;
        Recorder recorder(std::move(options));
        constexpr std::uint64_t kThreads = 4;
        const std::uint64_t each = scaled(50'000u, 10'000u);
        std::atomic<std::uint64_t> accepted{0};
        std::vector<std::thread> threads;
        for (std::uint64_t t = 0; t < kThreads; ++t) {
            threads.emplace_back([&] {
                for (std::uint64_t i = 0; i < each; ++i) {
                    const auto stream = static_cast<Stream>(i % 4);
                    if (record_number(recorder, i, stream) == Recorded::accepted) {
                        accepted.fetch_add(1);
                    }
                }
            });
        }
        for (auto& thread : threads) thread.join();
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

    TEST_CASE("should drop what is too large, say so once, and mark it") {
        TempDir dir;
        Recorder recorder(options_for(dir.path()));
        CHECK(recorder.max_payload() == (64 << 10) / 8 - 32);
        const std::string fits = "\"x\":\"" + std::string(recorder.max_payload() - 6, 'x') + "\"";
        const std::string large = fits + ",\"y\":0";
        REQUIRE(record(recorder, fits) == Recorded::accepted);
        REQUIRE(record(recorder, large) == Recorded::dropped);
        REQUIRE(record(recorder, large) == Recorded::dropped);
        CHECK(recorder.stats().calls.blocked_ticks == 0);  // waiting would be in vain
        const auto messages = recorder.take_messages();
        REQUIRE(messages.size() == 1);
        CHECK(messages[0].find("foundry_fastlog dropped a record larger than 8160 bytes") == 0);
        REQUIRE(record_number(recorder, 0) == Recorded::accepted);
        REQUIRE(record(recorder, large) == Recorded::dropped);
        REQUIRE(recorder.close(kFar));
        const auto lines = lines_of_stream(dir.path(), "metrics");
        REQUIRE(lines.size() == 5);
        CHECK(lines[1]["dropped"].count() == 1);  // by the next call, although it dropped too
        CHECK(lines[2]["dropped"].count() == 1);
        CHECK(lines[3]["n"].count() == 0);
        CHECK(lines[4]["dropped"].count() == 1);  // by the flush thread, at the end
        CHECK(gapless(lines));
        CHECK(recorder.take_messages().empty());
        check_balance(recorder);
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
