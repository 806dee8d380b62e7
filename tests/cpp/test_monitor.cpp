// The two small primitives: Monitor (mutex and condition) and AttentionBits (one word of bits).
#include <mutex>
#include <thread>

#include "core/attention_bits.hpp"
#include "core/monitor.hpp"
#include "test_support.hpp"

using namespace fastlog;
using namespace fastlog::test;

TEST_SUITE("monitor") {
    TEST_CASE("should let one thread at a time through") {
        Monitor monitor;
        std::uint64_t count = 0;  // plain: only the lock makes this right
        Threads(4, [&](auto) {
            for (int i = 0; i < 10'000; ++i) {
                const std::lock_guard lock(monitor);
                ++count;
            }
        }).join();
        CHECK(count == 40'000);
    }

    TEST_CASE("should wake all waiters when notified") {
        Monitor monitor;
        bool go = false;
        int waiting = 0;
        int woken = 0;
        Threads threads(4, [&](auto) {
            const std::lock_guard lock(monitor);
            ++waiting;
            const std::int64_t deadline = far_deadline();
            while (!go && monotonic_ns() < deadline) monitor.wait_until(deadline);
            if (go) ++woken;
        });
        const bool all_wait = eventually([&] {
            const std::lock_guard lock(monitor);
            return waiting == 4;
        });
        {
            const std::lock_guard lock(monitor);
            go = true;
            monitor.notify_all();
        }
        threads.join();
        CHECK(all_wait);
        CHECK(woken == 4);
    }

    TEST_CASE("should return at the deadline when nobody notifies, with the lock held") {
        Monitor monitor;
        monitor.lock();
        const std::int64_t deadline = monotonic_ns() + 2'000'000;
        while (monotonic_ns() < deadline) monitor.wait_until(deadline);  // it may wake early
        // Held: another thread has to wait for it.
        std::atomic<bool> entered{false};
        std::thread other([&] {
            const std::lock_guard lock(monitor);
            entered.store(true);
        });
        CHECK_FALSE(entered.load());
        monitor.unlock();
        other.join();
        CHECK(entered.load());
    }

    TEST_CASE("should return at once for deadlines that are past, negative or now") {
        Monitor monitor;
        const std::lock_guard lock(monitor);
        for (const std::int64_t deadline :
             {std::int64_t{0}, std::int64_t{-1}, INT64_MIN, monotonic_ns() - 1, monotonic_ns()}) {
            monitor.wait_until(deadline);  // a hang here is the failure
            CHECK(monotonic_ns() >= deadline);
        }
    }

    TEST_CASE("should take the latest deadline there is for one that never comes") {
        Monitor monitor;
        bool go = false;
        bool waiting = false;
        std::thread waiter([&] {
            const std::lock_guard lock(monitor);
            waiting = true;
            while (!go) monitor.wait_until(INT64_MAX);
        });
        const bool waits = eventually([&] {
            const std::lock_guard lock(monitor);
            return waiting;
        });
        {
            const std::lock_guard lock(monitor);
            go = true;
            monitor.notify_all();
        }
        waiter.join();
        CHECK(waits);
    }
}

TEST_SUITE("attention bits") {
    TEST_CASE("should hold each bit by itself") {
        AttentionBits attention;
        CHECK(attention.bits() == 0);
        attention.set(AttentionBits::kMessages);
        attention.set(AttentionBits::kClosed);
        attention.set(AttentionBits::kClosed);
        CHECK(attention.bits() == (AttentionBits::kMessages | AttentionBits::kClosed));
        CHECK(attention.clear(AttentionBits::kMessages));
        CHECK_FALSE(attention.clear(AttentionBits::kMessages));
        CHECK_FALSE(attention.clear(AttentionBits::kDrops));
        CHECK(attention.bits() == AttentionBits::kClosed);
    }

    TEST_CASE("should let exactly one of many threads clear a bit, and publish what is behind it") {
        constexpr std::uint64_t kRounds = 2'000;
        AttentionBits attention;
        std::uint64_t behind = 0;  // plain: set() releases it, clear() acquires it
        std::atomic<std::uint64_t> cleared{0};
        std::atomic<int> wrong{0};
        Threads threads(3, [&](auto) {
            for (;;) {
                const std::uint64_t round = cleared.load(std::memory_order_relaxed);
                if (round == kRounds) return;
                if (!attention.clear(AttentionBits::kMessages)) {
                    ::sched_yield();
                    continue;
                }
                // Alone here until the bit is set again, which waits for `cleared`.
                if (behind != cleared.load() + 1) wrong.fetch_add(1);
                cleared.fetch_add(1);
            }
        });
        for (std::uint64_t round = 0; round < kRounds; ++round) {
            ++behind;
            attention.set(AttentionBits::kMessages);
            attention.set(AttentionBits::kDrops);
            while (cleared.load() == round) ::sched_yield();
        }
        threads.join();
        CHECK(cleared.load() == kRounds);
        CHECK(wrong.load() == 0);
        CHECK(attention.bits() == AttentionBits::kDrops);
    }
}
