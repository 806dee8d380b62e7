#include "core/thread_slots.hpp"

#include <unistd.h>

#include <algorithm>

#if defined(__linux__)
#include <sys/syscall.h>
#else
#include <pthread.h>
#endif

namespace fastlog {
namespace {

std::atomic<std::uint64_t> next_id{1};

// What this thread holds in all recorders; gives the slots back when the thread ends.
struct HeldSlots {
    struct Held {
        std::uint64_t owner;
        std::shared_ptr<ThreadSlot> slot;
    };
    std::vector<Held> held;

    ~HeldSlots() {
        for (auto& h : held) h.slot->in_use.store(false, std::memory_order_release);
    }
};
thread_local HeldSlots held_slots;

}  // namespace

thread_local std::uint64_t ThreadSlots::cached_owner = 0;
thread_local ThreadSlot* ThreadSlots::cached_slot = nullptr;

std::uint32_t current_thread_id() noexcept {
#if defined(__linux__)
    return static_cast<std::uint32_t>(::syscall(SYS_gettid));
#else
    std::uint64_t id = 0;
    ::pthread_threadid_np(nullptr, &id);
    return static_cast<std::uint32_t>(id);
#endif
}

double CallTotals::estimated_ticks() const noexcept {
    double ticks = static_cast<double>(blocked_ticks);
    for (std::size_t k = 0; k < kCallKinds; ++k) {
        if (samples[k] == 0) continue;
        ticks += static_cast<double>(sampled_ticks[k]) / static_cast<double>(samples[k]) *
                 static_cast<double>(calls[k]);
    }
    return ticks;
}

ThreadSlots::ThreadSlots() : id_(next_id.fetch_add(1, std::memory_order_relaxed)) {}

ThreadSlot& ThreadSlots::find_or_add() noexcept {
    auto& held = held_slots.held;
    auto found = std::find_if(held.begin(), held.end(), [&](auto& h) { return h.owner == id_; });
    if (found == held.end()) {
        // A slot that only this thread still knows belongs to a recorder that is gone.
        std::erase_if(held, [](const auto& h) { return h.slot.use_count() == 1; });
        std::shared_ptr<ThreadSlot> slot;
        {
            const std::lock_guard lock(mutex_);
            for (const auto& s : slots_) {
                bool free = false;
                if (s->in_use.compare_exchange_strong(free, true, std::memory_order_acquire)) {
                    slot = s;
                    break;
                }
            }
            if (!slot) {
                slot = std::make_shared<ThreadSlot>();
                slots_.push_back(slot);
            }
        }
        slot->thread_id = current_thread_id();
        held.push_back({id_, std::move(slot)});
        found = held.end() - 1;
    }
    cached_owner = id_;
    cached_slot = found->slot.get();
    return *cached_slot;
}

CallTotals ThreadSlots::totals() const {
    const std::lock_guard lock(mutex_);
    CallTotals sum;
    for (const auto& s : slots_) {
        for (std::size_t k = 0; k < kCallKinds; ++k) {
            sum.calls[k] += s->kinds[k].calls.load(std::memory_order_relaxed);
            sum.samples[k] += s->kinds[k].samples.load(std::memory_order_relaxed);
            sum.sampled_ticks[k] += s->kinds[k].sampled_ticks.load(std::memory_order_relaxed);
        }
        sum.accepted += s->accepted.load(std::memory_order_relaxed);
        sum.dropped += s->dropped.load(std::memory_order_relaxed);
        sum.blocked_ticks += s->blocked_ticks.load(std::memory_order_relaxed);
    }
    return sum;
}

}  // namespace fastlog
