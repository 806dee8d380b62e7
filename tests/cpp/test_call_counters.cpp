// Counters per thread: exact sums, one sample in 16, slots that go from ended threads to new ones.
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <vector>

#include "core/call_counters.hpp"
#include "core/hot_page.hpp"
#include "test_support.hpp"

using namespace fastlog;
using namespace fastlog::test;

namespace {
constexpr auto kRecord = static_cast<std::size_t>(CallKind::record);
constexpr auto kEnter = static_cast<std::size_t>(CallKind::timer_enter);
constexpr auto kEvent = static_cast<std::size_t>(CallKind::event);
}  // namespace

TEST_SUITE("call counters") {
    TEST_CASE("should keep apart the slots of two recorders in one thread") {
        CallCounters first;
        CallCounters second;
        ThreadSlot& a = first.local();
        ThreadSlot& b = second.local();
        CHECK(&a != &b);
        for (int i = 0; i < 10; ++i) {
            CHECK(&first.local() == &a);
            CHECK(&second.local() == &b);
        }
        ThreadSlot::add(first.local().accepted, 3);
        ThreadSlot::add(second.local().accepted, 4);
        CHECK(first.totals().accepted == 3);
        CHECK(second.totals().accepted == 4);
    }

    TEST_CASE("should time one call in 16, and the calls of a training step in turn") {
        for (std::uint64_t in_step = 1; in_step <= 64; ++in_step) {
            CallCounters slots;
            ThreadSlot& slot = slots.local();
            std::vector<int> timed(in_step);
            constexpr std::uint64_t kSteps = 1000;
            for (std::uint64_t i = 0; i < kSteps * in_step; ++i) {
                if (slot.count_call(CallKind::record)) ++timed[i % in_step];
            }
            for (const int count : timed) {
                CHECK(count > 0.5 * kSteps / ThreadSlot::kSampleEvery);
                CHECK(count < 1.5 * kSteps / ThreadSlot::kSampleEvery);
            }
            CHECK(slots.totals().calls[kRecord] == kSteps * in_step);
            CHECK(slots.totals().calls[kEvent] == 0);
            slot.uncount_call(CallKind::record);
            CHECK(slots.totals().calls[kRecord] == kSteps * in_step - 1);
        }
    }

    TEST_CASE("should count the time of Python code once, and what it waits for elsewhere") {
        const std::uint64_t before = CallerTime::ticks();
        const auto wait = [](std::uint64_t ticks) {
            for (const std::uint64_t begin = span_ticks(); span_ticks() - begin < ticks;) {
            }
        };
        const std::uint64_t begin = CallerTime::begin();
        REQUIRE(begin != 0);
        const std::uint64_t within = CallerTime::begin();
        CHECK(within == 0);
        CallCounters slots;
        for (int i = 0; i < 100; ++i) CHECK_FALSE(slots.local().count_call(CallKind::record));
        CHECK(slots.totals().covered[kRecord] == 100);
        wait(1000);
        CallerTime::end(within);
        CHECK(CallerTime::ticks() == before);
        std::thread([] {
            const std::uint64_t other = CallerTime::begin();
            CHECK(other != 0);
            CallerTime::take_out(UINT64_MAX / 2);
            CallerTime::end(other);
        }).join();
        CHECK(CallerTime::ticks() == before);
        CallerTime::end(begin);
        CallerTime::end(begin);
        const std::uint64_t taken = CallerTime::ticks() - before;
        CHECK(taken >= 1000);
        CHECK(taken <= span_ticks() - begin);
    }

    TEST_CASE("should estimate the time in calls from the samples") {
        CallTotals totals;
        CHECK(totals.estimated_ticks() == 0.0);
        totals.calls[kRecord] = 640;
        totals.samples[kRecord] = 10;
        totals.sampled_ticks[kRecord] = 500;  // 50 ticks a call
        CHECK(totals.estimated_ticks() == 640 * 50.0);
        totals.calls[kEnter] = 7;  // no sample yet: nothing is known
        CHECK(totals.estimated_ticks() == 640 * 50.0);
        totals.samples[kEnter] = 2;
        totals.sampled_ticks[kEnter] = 3;
        totals.blocked_ticks = 1'000'000;
        CHECK(totals.estimated_ticks() == 640 * 50.0 + 7 * 1.5 + 1'000'000);
        totals.covered[kRecord] = 600;  // by CallerTime
        CHECK(totals.estimated_ticks() == 40 * 50.0 + 7 * 1.5 + 1'000'000);
    }

    TEST_CASE("should hand the slot of an ended thread to the next and go on counting") {
        CallCounters slots;
        std::set<ThreadSlot*> seen;
        std::set<std::uint32_t> ids;
        for (std::uint64_t i = 1; i <= 20; ++i) {
            std::thread([&] {
                ThreadSlot& slot = slots.local();
                seen.insert(&slot);
                ids.insert(slot.thread_id);
                if (slot.thread_id != current_thread_id()) FAIL_CHECK("the id of another thread");
                ThreadSlot::add(slot.accepted, 5);
            }).join();
            CHECK(slots.totals().accepted == 5 * i);
        }
        CHECK(seen.size() == 1);
        CHECK(ids.count(current_thread_id()) == 0);
    }

    TEST_CASE("should never share a slot between threads that live at once") {
        CallCounters slots;
        constexpr std::size_t kThreads = 8;
        std::atomic<std::size_t> arrived{0};
        ThreadSlot* seen[kThreads] = {};
        Threads(kThreads, [&](std::size_t t) {
            seen[t] = &slots.local();
            arrived.fetch_add(1);
            while (arrived.load() < kThreads) ::sched_yield();  // all live now
        }).join();
        CHECK(std::set<ThreadSlot*>(seen, seen + kThreads).size() == kThreads);
    }

    TEST_CASE("should keep the near slots for threads that outlive the counters") {
        std::weak_ptr<HotPage> first;
        std::atomic<int> stage{0};
        const auto recorder = [&](auto&& use) {
            auto page = std::make_shared<HotPage>();
            const auto near = std::shared_ptr<ThreadSlot>(page, page->slots);
            CallCounters slots(near, HotPage::kNearSlots);
            if (first.expired()) first = page;
            use(slots, *page);
        };
        std::thread other;
        recorder([&](CallCounters& slots, HotPage& page) {
            CHECK(&slots.local() == &page.slots[0]);
            other = std::thread([&] {
                CHECK(&slots.local() == &page.slots[1]);
                stage = 1;
                while (stage != 2) ::sched_yield();
                recorder([](CallCounters& next, HotPage&) { next.local(); });
                stage = 3;
                while (stage != 4) ::sched_yield();
            });
            while (stage != 1) ::sched_yield();
            constexpr std::size_t kMore = 2 * HotPage::kNearSlots;
            std::set<ThreadSlot*> seen;
            std::mutex mutex;
            std::atomic<std::size_t> arrived{0};
            Threads(kMore, [&](std::size_t) {
                ThreadSlot* const own = &slots.local();
                ThreadSlot::add(own->accepted, 1);
                {
                    const std::lock_guard lock(mutex);
                    seen.insert(own);
                }
                arrived.fetch_add(1);
                while (arrived.load() < kMore) ::sched_yield();
            }).join();
            CHECK(seen.size() == kMore);
            CHECK(slots.totals().accepted == kMore);
        });
        CHECK_FALSE(first.expired());  // both threads have a slot in it
        stage = 2;
        while (stage != 3) ::sched_yield();
        CHECK_FALSE(first.expired());
        recorder([](CallCounters& next, HotPage&) { next.local(); });
        CHECK(first.expired());  // no thread waits for another one's end
        stage = 4;
        other.join();
    }

    TEST_CASE("should sum up exactly over threads that come and go, and never go backwards") {
        CallCounters slots;
        constexpr std::uint64_t kThreads = 6;
        constexpr std::uint64_t kGenerations = 5;
        constexpr std::uint64_t kCalls = 2'000;
        std::atomic<bool> over{false};
        bool back = false;
        std::thread reader([&] {
            std::uint64_t last = 0;
            while (!over.load()) {
                const std::uint64_t now = slots.totals().accepted;
                back = back || now < last;
                last = now;
            }
        });
        for (std::uint64_t g = 0; g < kGenerations; ++g) {
            Threads(kThreads, [&](auto) {
                for (std::uint64_t i = 0; i < kCalls; ++i) {
                    ThreadSlot& slot = slots.local();
                    if (slot.count_call(CallKind::event)) slot.add_sample(CallKind::event, 10);
                    ThreadSlot::add(slot.accepted, 1);
                    ThreadSlot::add(slot.dropped, 2);
                    ThreadSlot::add(slot.blocked_ticks, 3);
                }
            }).join();
        }
        over.store(true);
        reader.join();
        CHECK_FALSE(back);
        const CallTotals totals = slots.totals();
        const std::uint64_t all = kThreads * kGenerations * kCalls;
        CHECK(totals.calls[kEvent] == all);
        CHECK(totals.accepted == all);
        CHECK(totals.dropped == 2 * all);
        CHECK(totals.blocked_ticks == 3 * all);
        // Slots go on counting where they stood, so the samples follow the calls.
        CHECK(totals.samples[kEvent] >= all / ThreadSlot::kSampleEvery - kThreads);
        CHECK(totals.samples[kEvent] <= all / ThreadSlot::kSampleEvery + kThreads);
        CHECK(totals.sampled_ticks[kEvent] == 10 * totals.samples[kEvent]);
    }

    TEST_CASE("should outlive a recorder that a thread still holds a slot of") {
        std::atomic<int> phase{0};
        auto slots = std::make_unique<CallCounters>();
        std::thread holder([&] {
            ThreadSlot::add(slots->local().accepted, 1);
            phase.store(1);
            while (phase.load() != 2) ::sched_yield();
            CallCounters next;  // drops what it held of the first one
            ThreadSlot::add(next.local().accepted, 1);
        });
        while (phase.load() != 1) ::sched_yield();
        CHECK(slots->totals().accepted == 1);
        slots.reset();
        phase.store(2);
        holder.join();
    }
}
