// The flush thread on a healthy disk: waking, tickets, closing. Faults are in test_flush_thread_faults.cpp,
// streams and segments in tests/unit/test_recorder_lifecycle.py. The interval is an hour wherever a test is not about the timer, so that
// nothing passes just because the timer came to its help.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "test_flush_thread_support.hpp"

using namespace fastlog;
using namespace fastlog::test;

TEST_SUITE("flush thread") {
    TEST_CASE("should have written everything when a flush ticket is honoured") {
        TempDir dir;
        TestFlushThread f(dir.path());
        f.start();
        CHECK(f.flush(far_deadline()));  // nothing to do
        for (std::uint64_t round = 1; round <= 20; ++round) {
            for (std::uint64_t i = 0; i < round; ++i) REQUIRE(f.put(i) == ClaimStatus::claimed);
            REQUIRE(f.flush(far_deadline()));
            CHECK(lines_of(dir / "metrics.jsonl").size() == round * (round + 1) / 2);
            CHECK(f.r.ring.head() == f.r.ring.tail());
        }
        CHECK(gapless(lines_of_stream(dir.path(), "metrics")));
    }

    TEST_CASE("should honour the tickets of many threads at once") {
        TempDir dir;
        TestFlushThread f(dir.path());
        f.start();
        constexpr std::uint64_t kThreads = 4;
        constexpr std::uint64_t kRounds = 50;
        std::atomic<int> failures{0};
        Threads(kThreads, [&](std::uint64_t t) {
            for (std::uint64_t i = 0; i < kRounds; ++i) {
                const bool put = f.put(t * kRounds + i) == ClaimStatus::claimed;
                if (!put || !f.flush(far_deadline())) failures.fetch_add(1);
            }
        }).join();
        CHECK(failures.load() == 0);
        auto read = numbers(lines_of_stream(dir.path(), "metrics"));
        std::sort(read.begin(), read.end());
        CHECK(read == counting(kThreads * kRounds));
    }

    TEST_CASE("should write by its timer, without being asked") {
        TempDir dir;
        TestFlushThread f(dir.path(), 1'000'000);
        f.start();
        REQUIRE(f.put(0) == ClaimStatus::claimed);
        CHECK(eventually([&] { return f.r.ring.head() == f.r.ring.tail(); }));
        CHECK(numbers(lines_of_stream(dir.path(), "metrics")) == counting(1));
    }

    TEST_CASE("should be woken by a ring that has become half full, again and again") {
        TempDir dir;
        TestFlushThread f(dir.path());
        f.start();
        std::uint64_t n = 0;
        for (int round = 0; round < 10; ++round) {
            const std::uint64_t target = f.r.ring.tail() + f.r.ring.capacity() / 2 + 64;
            while (f.r.ring.tail() < target) {
                if (f.put(n) == ClaimStatus::claimed) ++n;
            }
            // More than half of it was written without a timer or a ticket.
            REQUIRE(eventually(
                [&] { return f.r.ring.tail() - f.r.ring.head() <= f.r.ring.capacity() / 2; }));
            REQUIRE(f.flush(far_deadline()));
        }
        CHECK(numbers(lines_of_stream(dir.path(), "metrics")) == counting(n));
    }

    TEST_CASE("should let a waiter go on when there is room again") {
        TempDir dir;
        TestFlushThread f(dir.path());
        while (f.put(0) == ClaimStatus::claimed) {
        }
        CHECK_FALSE(f.flush_thread.wait_room(8, monotonic_ns()));  // the thread does not run yet
        f.start();
        CHECK(f.flush_thread.wait_room(8, far_deadline()));
        CHECK(f.put(1) == ClaimStatus::claimed);
    }

    TEST_CASE("should keep many producers going through a ring that is always full") {
        TempDir dir;
        TestFlushThread f(dir.path(), kHourNs, 1 << 20, 1024);
        f.start();
        constexpr std::uint64_t kThreads = 4;
        const std::uint64_t each = scaled(2000u, 300u);
        std::atomic<int> failures{0};
        Threads(kThreads, [&](std::uint64_t t) {
            for (std::uint64_t i = 0; i < each; ++i) {
                while (f.put(t * each + i) != ClaimStatus::claimed) {
                    if (!f.flush_thread.wait_room(20, far_deadline())) failures.fetch_add(1);
                }
            }
        }).join();
        CHECK(failures.load() == 0);
        REQUIRE(f.close(far_deadline()));
        const auto lines = lines_of_stream(dir.path(), "metrics");
        auto read = numbers(lines);
        for (std::uint64_t t = 0; t < kThreads; ++t) {  // in order per producer
            std::vector<std::uint64_t> own;
            std::copy_if(read.begin(), read.end(), std::back_inserter(own),
                         [&](auto n) { return n / each == t; });
            CHECK(std::is_sorted(own.begin(), own.end()));
        }
        std::sort(read.begin(), read.end());
        CHECK(read == counting(kThreads * each));
        CHECK(gapless(lines));
        CHECK(f.flush_thread.stats().streams[0].written == kThreads * each);
    }

    TEST_CASE("should write a batch larger than its buffer in pieces") {
        TempDir dir;
        TestFlushThread f(dir.path(), kHourNs, 1 << 30, 2 << 20);
        const std::string text(3000, 'x');
        std::uint64_t count = 0;
        for (; count < 2 * BatchWriter::kBatchBytes / text.size(); ++count) {
            REQUIRE(f.r.put("\"x\":\"" + text + "\"") == ClaimStatus::claimed);
        }
        f.start();
        REQUIRE(f.flush(far_deadline()));
        CHECK(lines_of_stream(dir.path(), "metrics").size() == count);
    }

    TEST_CASE("should write all that was accepted before it ends") {
        TempDir dir;
        TestFlushThread f(dir.path());
        for (std::uint64_t i = 0; i < 500; ++i) REQUIRE(f.put(i) == ClaimStatus::claimed);
        f.start();
        REQUIRE(f.close(far_deadline()));
        CHECK(f.put(500) == ClaimStatus::closed);
        CHECK(numbers(lines_of_stream(dir.path(), "metrics")) == counting(500));
        CHECK(f.flush_thread.wait_done(monotonic_ns()));
        CHECK(f.flush(monotonic_ns()));  // all is in the files
    }

    TEST_CASE("should not wait for its timer when a record is committed late while it closes") {
        TempDir dir;
        TestFlushThread f(dir.path());
        f.start();
        MpscRing::Claim late{};
        REQUIRE(f.r.ring.try_claim(5, late) == ClaimStatus::claimed);
        f.flush_thread.request_close(f.r.ring.close());
        CHECK_FALSE(f.flush_thread.wait_done(monotonic_ns() + 50'000'000));  // it is not there yet
        f.r.fill(late, "\"n\":0");
        f.r.ring.commit(late);
        CHECK(f.flush_thread.wait_done(far_deadline()));
        REQUIRE(f.close(far_deadline()));
        CHECK(numbers(lines_of_stream(dir.path(), "metrics")) == counting(1));
    }

    TEST_CASE("should not keep waiters for room waiting for its timer behind a late commit") {
        TempDir dir;
        TestFlushThread f(dir.path(), kHourNs, 1 << 20, 1024);
        f.start();
        MpscRing::Claim late{};
        REQUIRE(f.r.ring.try_claim(5, late) == ClaimStatus::claimed);
        while (f.put(1) == ClaimStatus::claimed) {
        }
        bool room = false;
        std::thread waiter([&] { room = f.flush_thread.wait_room(8, far_deadline()); });
        CHECK_FALSE(f.flush_thread.wait_room(8, monotonic_ns() + 50'000'000));
        f.r.fill(late, "\"n\":0");
        f.r.ring.commit(late);
        waiter.join();
        CHECK(room);
    }

    TEST_CASE("should not leave a full ring to its timer because of a late commit") {
        // Nobody waits and nothing more can be committed: with the policy `drop`, every record
        // would be lost until the timer comes.
        TempDir dir;
        TestFlushThread f(dir.path(), kHourNs, 1 << 20, 1024);
        f.start();
        MpscRing::Claim late{};
        REQUIRE(f.r.ring.try_claim(5, late) == ClaimStatus::claimed);
        while (f.put(1) == ClaimStatus::claimed) {
        }
        CHECK_FALSE(f.flush_thread.wait_room(8, monotonic_ns() + 50'000'000));
        f.r.fill(late, "\"n\":0");
        f.r.ring.commit(late);
        f.flush_thread.wake_if_half_full(late.position + record_size(5));
        CHECK(eventually([&] { return f.put(2) == ClaimStatus::claimed; }));
    }

    TEST_CASE("should not wait for its timer when a record is committed late during a flush") {
        TempDir dir;
        TestFlushThread f(dir.path());
        f.start();
        MpscRing::Claim late{};
        REQUIRE(f.r.ring.try_claim(5, late) == ClaimStatus::claimed);
        bool written = false;
        std::thread waiter([&] { written = f.flush(far_deadline()); });
        CHECK_FALSE(f.flush(monotonic_ns() + 50'000'000));
        f.r.fill(late, "\"n\":0");
        f.r.ring.commit(late);
        waiter.join();
        CHECK(written);
    }

    TEST_CASE("should number drop markers with the records and not count them as written") {
        TempDir dir;
        TestFlushThread f(dir.path());
        const auto put_drops = [&](std::uint64_t count, Stream stream) {
            return f.r.put({reinterpret_cast<const char*>(&count), sizeof count}, RecordKind::drops,
                           stream);
        };
        f.start();
        REQUIRE(f.put(0) == ClaimStatus::claimed);
        REQUIRE(put_drops(17, Stream::metrics) == ClaimStatus::claimed);
        REQUIRE(f.put(1) == ClaimStatus::claimed);
        REQUIRE(put_drops(1, Stream::log) == ClaimStatus::claimed);
        REQUIRE(f.close(far_deadline()));
        const auto lines = lines_of_stream(dir.path(), "metrics");
        REQUIRE(lines.size() == 3);
        CHECK(gapless(lines));
        CHECK(lines[1].keys() == std::vector<std::string>{"timestamp", "seq", "dropped"});
        CHECK(lines[1]["dropped"].count() == 17);
        CHECK(lines_of_stream(dir.path(), "log")[0]["dropped"].count() == 1);
        CHECK(f.flush_thread.stats().streams[0].written == 2);
        CHECK(f.flush_thread.stats().streams[3].written == 0);
    }

    TEST_CASE("should show its figures: high water, first record, processor time, rate") {
        TempDir dir;
        TestFlushThread f(dir.path());
        for (std::uint64_t i = 0; i < 10; ++i) {
            REQUIRE(f.r.put("\"n\":1", RecordKind::fragment, Stream::metrics, 1000 + i) ==
                    ClaimStatus::claimed);
        }
        f.start();
        REQUIRE(f.flush(far_deadline()));
        REQUIRE(f.put(0) == ClaimStatus::claimed);
        REQUIRE(f.close(far_deadline()));
        const FlushThreadStats stats = f.flush_thread.stats();
        CHECK(stats.high_water_bytes == 10 * 64);
        CHECK(stats.first_record_ticks == 1000);
        CHECK(stats.cpu_ns > 0);
        CHECK(stats.ns_per_tick > 0);
        CHECK(f.flush_thread.ns_per_tick() == stats.ns_per_tick);
        CHECK(f.ticks.load() >= 1);
    }

#if defined(__linux__)  // /proc shows the masks of other threads
    TEST_CASE("should hand each message out once and set the bit for it") {
        TempDir dir;
        TestFlushThread f(dir.path());
        CHECK(f.attention.bits() == 0);
        CHECK(f.flush_thread.take_messages().empty());
        f.flush_thread.tell("one");
        f.flush_thread.tell("two");
        CHECK(f.attention.clear(AttentionBits::kMessages));
        CHECK(f.flush_thread.take_messages() == std::vector<std::string>{"one", "two"});
        CHECK(f.flush_thread.take_messages().empty());
    }

    TEST_CASE("should leave signals to the program's own threads") {
        TempDir dir;
        TestFlushThread f(dir.path());
        f.start();
        REQUIRE(f.put(0) == ClaimStatus::claimed);
        REQUIRE(f.flush(far_deadline()));  // so it has got its name
        int found = 0;
        for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
            std::ifstream status(task.path() / "status");
            std::string name;
            std::string line;
            while (std::getline(status, line)) {
                if (line.starts_with("Name:")) name = line;
                if (!line.starts_with("SigBlk:") || !name.ends_with("fastlog-flush")) continue;
                const auto blocked = std::stoull(line.substr(7), nullptr, 16);
                for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGCHLD, SIGUSR1, SIGXFSZ}) {
                    CHECK((blocked >> (signal - 1) & 1) == 1);
                }
                ++found;
            }
        }
        CHECK(found == 1);
        sigset_t own;
        REQUIRE(::pthread_sigmask(SIG_SETMASK, nullptr, &own) == 0);
        CHECK(::sigismember(&own, SIGINT) == 0);  // ours is as it was
    }
#endif
}
