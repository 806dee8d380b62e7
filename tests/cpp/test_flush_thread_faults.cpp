// The flush thread on a disk that fails: nothing is lost, doubled or torn once it works again. What a program sees
// of it is in tests/integration/test_recorder_faults.py.
#include <filesystem>
#include <string>

#include "test_flush_thread_support.hpp"

using namespace fastlog;
using namespace fastlog::test;

namespace {

/// Waits for `count` failed attempts.
bool failed(const TestFlushThread& f, std::uint64_t count) {
    return eventually([&] { return f.flush_thread.stats().errors >= count; });
}

}  // namespace

TEST_SUITE("flush thread faults") {
    TEST_CASE("should try again, less and less often, until the directory can be made") {
        TempDir dir;
        Obstacle obstacle(dir);
        TestFlushThread f(obstacle.run(), 1'000'000);
        CHECK_FALSE(f.flush_thread.stats().label_known);
        CHECK(f.flush_thread.stats().errors == 1);  // the claim when it was opened
        f.start();
        const std::int64_t begin = monotonic_ns();
        for (std::uint64_t i = 0; i < 10; ++i) REQUIRE(f.put(i) == ClaimStatus::claimed);
        REQUIRE(failed(f, 4));  // at about 0, 100 and 300 ms
        CHECK(monotonic_ns() - begin >= 3 * FlushThread::kFirstBackoffNs);
        CHECK(f.r.ring.head() == 0);  // the records wait in the ring
        CHECK(f.flush_thread.stats().streams[0].written == 0);
        obstacle.remove();
        REQUIRE(eventually([&] { return f.r.ring.head() == f.r.ring.tail(); }));
        REQUIRE(f.close(far_deadline()));
        const auto lines = lines_of_stream(obstacle.run(), "metrics");
        CHECK(numbers(lines) == counting(10));
        CHECK(gapless(lines));
        CHECK(f.flush_thread.stats().label_known);
        CHECK(f.flush_thread.stats().streams[0].written == 10);
        std::filesystem::remove_all(obstacle.run());
    }

    TEST_CASE("should tell the first error once and keep the last") {
        TempDir dir;
        Obstacle obstacle(dir);
        TestFlushThread f(obstacle.run());
        CHECK((f.attention.bits() & AttentionBits::kMessages) != 0);
        const auto messages = f.flush_thread.take_messages();
        REQUIRE(messages.size() == 1);
        CHECK(messages[0].find("foundry_fastlog could not create directory " + obstacle.run() +
                               ": Not a directory (errno 20)") == 0);
        f.start();
        for (int i = 0; i < 3; ++i) {
            REQUIRE(f.put(0) == ClaimStatus::claimed);
            CHECK_FALSE(f.flush(monotonic_ns() + 1'000'000));
        }
        REQUIRE(failed(f, 3));
        CHECK(f.flush_thread.take_messages().empty());
        const FlushThreadStats stats = f.flush_thread.stats();
        CHECK(stats.first_error ==
              "create directory " + obstacle.run() + ": Not a directory (errno 20)");
        CHECK(stats.last_error == stats.first_error);
        obstacle.remove();
        std::filesystem::create_symlink("obstacle", dir / "obstacle");  // a circle: another error
        REQUIRE(f.put(0) == ClaimStatus::claimed);
        REQUIRE(eventually([&] { return f.flush_thread.stats().last_error != stats.last_error; }));
        CHECK(f.flush_thread.stats().first_error == stats.first_error);
        obstacle.remove();
        REQUIRE(f.close(far_deadline()));
        CHECK(f.flush_thread.stats().first_error == stats.first_error);  // stays to be seen
        std::filesystem::remove_all(obstacle.run());
    }

    TEST_CASE("should not end on a dead disk, and end when it is asked again later") {
        TempDir dir;
        Obstacle obstacle(dir);
        TestFlushThread f(obstacle.run());
        f.start();
        for (std::uint64_t i = 0; i < 3; ++i) REQUIRE(f.put(i) == ClaimStatus::claimed);
        f.drops[0].store(9);
        CHECK_FALSE(f.close(monotonic_ns() + 5'000'000));
        CHECK_FALSE(f.close(monotonic_ns()));
        obstacle.remove();
        CHECK(f.close(far_deadline()));
        const auto lines = lines_of_stream(obstacle.run(), "metrics");
        CHECK(numbers(lines) == counting(3));
        REQUIRE(lines.size() == 4);
        CHECK(lines[3]["dropped"].count() == 9);
        CHECK(gapless(lines));
        std::filesystem::remove_all(obstacle.run());
    }

    TEST_CASE("should write the last drop marker once although its first try failed") {
        TempDir dir;
        TestFlushThread f(dir.path());
        f.start();
        REQUIRE(f.put(0) == ClaimStatus::claimed);
        REQUIRE(f.flush(far_deadline()));
        FileSizeLimit limit(1);  // the marker's stream has no file yet
        f.drops[2].store(4);
        const bool closed = f.close(monotonic_ns() + 5'000'000);
        const bool tried = failed(f, 1);
        limit.lift();
        CHECK_FALSE(closed);
        REQUIRE(tried);
        REQUIRE(f.close(far_deadline()));
        const auto lines = lines_of_stream(dir.path(), "errors");
        REQUIRE(lines.size() == 1);
        CHECK(lines[0]["dropped"].count() == 4);
        CHECK(numbers(lines_of_stream(dir.path(), "metrics")) == counting(1));
    }

    TEST_CASE("should not double what one stream has written when another fails") {
        TempDir dir;
        TestFlushThread f(dir.path());
        f.start();
        for (std::uint64_t i = 0; i < 5; ++i) REQUIRE(f.put(i) == ClaimStatus::claimed);
        for (std::uint64_t i = 0; i < 20; ++i) {
            REQUIRE(f.put(i, Stream::log) == ClaimStatus::claimed);
        }
        FileSizeLimit limit(700);  // room for the metrics, not for the log
        const bool flushed = f.flush(monotonic_ns() + 5'000'000);
        const bool tried = failed(f, 2);
        limit.lift();
        CHECK_FALSE(flushed);
        REQUIRE(tried);
        REQUIRE(f.close(far_deadline()));
        CHECK(numbers(lines_of_stream(dir.path(), "metrics")) == counting(5));
        CHECK(numbers(lines_of_stream(dir.path(), "log")) == counting(20));
        CHECK(gapless(lines_of_stream(dir.path(), "metrics")));
        CHECK(gapless(lines_of_stream(dir.path(), "log")));
        CHECK(f.flush_thread.stats().streams[0].written == 5);
        CHECK(f.flush_thread.stats().streams[3].written == 20);
    }

    TEST_CASE("should restore exactly what was cut off a batch that is half written") {
        for (const std::uintmax_t left : {std::uintmax_t{0}, std::uintmax_t{1}, std::uintmax_t{100},
                                          std::uintmax_t{299}, std::uintmax_t{300}}) {
            CAPTURE(left);
            TempDir dir;
            TestFlushThread f(dir.path());
            f.start();
            for (std::uint64_t i = 0; i < 20; ++i) REQUIRE(f.put(i) == ClaimStatus::claimed);
            FileSizeLimit limit(300);
            const bool flushed = f.flush(monotonic_ns() + 5'000'000);
            const bool tried = failed(f, 1);
            // The thread is backing off: somebody cuts the file to make room.
            std::filesystem::resize_file(dir / "metrics.jsonl", left);
            limit.lift();
            CHECK_FALSE(flushed);
            REQUIRE(tried);
            REQUIRE(f.close(far_deadline()));
            const auto lines = lines_of_stream(dir.path(), "metrics");
            CHECK(numbers(lines) == counting(20));
            CHECK(gapless(lines));
        }
    }

    TEST_CASE("should not hurry through its back-off because the ring fills up") {
        TempDir dir;
        Obstacle obstacle(dir);
        TestFlushThread f(obstacle.run());
        f.start();
        const std::int64_t begin = monotonic_ns();
        while (f.put(0) == ClaimStatus::claimed) {
        }
        while (f.flush_thread.stats().errors < 4) f.flush_thread.wake_if_half_full(f.r.ring.tail());
        CHECK(monotonic_ns() - begin >= 3 * FlushThread::kFirstBackoffNs);  // as without the wakes
        obstacle.remove();
        REQUIRE(f.close(far_deadline()));
        std::filesystem::remove_all(obstacle.run());
    }
}
