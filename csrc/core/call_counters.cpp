#include "core/call_counters.hpp"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <new>

#if defined(__linux__)
#include <sys/syscall.h>
#endif

namespace fastlog {
namespace {

std::atomic<std::uint64_t> next_id{1};

// The slots of this thread in all recorders; released when the thread ends.
struct HeldSlots {
    struct Held {
        std::uint64_t owner;
        std::shared_ptr<ThreadSlot> slot;
    };
    std::vector<Held> held;

    ~HeldSlots() {
        for (auto& h : held) h.slot->in_use.store(false, std::memory_order_release);
    }

    static HeldSlots& local();
};

// A thread's slots are stored under a pthread key, not in a thread_local: if there is no memory to register a
// thread_local's destructor, the process is terminated.
struct SlotsKey {
    pthread_key_t key{};
    bool made =
        ::pthread_key_create(&key, [](void* held) { delete static_cast<HeldSlots*>(held); }) == 0;
};
const SlotsKey slots_key;

HeldSlots& HeldSlots::local() {
    if (!slots_key.made) throw std::bad_alloc();
    if (void* found = ::pthread_getspecific(slots_key.key)) return *static_cast<HeldSlots*>(found);
    auto made = std::make_unique<HeldSlots>();
    if (::pthread_setspecific(slots_key.key, made.get()) != 0) throw std::bad_alloc();
    return *made.release();
}

}  // namespace

std::atomic<std::uint64_t> CallerTime::ticks_{0};

std::uint32_t current_thread_id() noexcept {
#if defined(__linux__)
    return static_cast<std::uint32_t>(::syscall(SYS_gettid));
#else
    std::uint64_t id = 0;
    ::pthread_threadid_np(nullptr, &id);
    return static_cast<std::uint32_t>(id);
#endif
}

void CallTotals::add(const ThreadSlot& slot) noexcept {
    for (std::size_t k = 0; k < kCallKinds; ++k) {
        calls[k] += slot.calls[k].load(std::memory_order_relaxed);
        covered[k] += slot.kinds[k].covered.load(std::memory_order_relaxed);
        samples[k] += slot.kinds[k].samples.load(std::memory_order_relaxed);
        sampled_ticks[k] += slot.kinds[k].sampled_ticks.load(std::memory_order_relaxed);
    }
    accepted += slot.accepted.load(std::memory_order_relaxed);
    dropped += slot.dropped.load(std::memory_order_relaxed);
    blocked_ticks += slot.blocked_ticks.load(std::memory_order_relaxed);
}

double CallTotals::estimated_ticks() const noexcept {
    double ticks = static_cast<double>(blocked_ticks);
    for (std::size_t k = 0; k < kCallKinds; ++k) {
        if (samples[k] == 0) continue;
        ticks += static_cast<double>(sampled_ticks[k]) / static_cast<double>(samples[k]) *
                 static_cast<double>(calls[k] - std::min(calls[k], covered[k]));
    }
    return ticks;
}

CallCounters::CallCounters(std::shared_ptr<ThreadSlot> near, std::size_t count)
    : id_(next_id.fetch_add(1, std::memory_order_relaxed)),
      near_(std::move(near)),
      near_count_(count),
      shared_(std::make_unique<ThreadSlot>()) {}

CallCounters::~CallCounters() {
    for (const auto& slot : slots_) slot->orphaned.store(true);
}

ThreadSlot& CallCounters::find_or_add() noexcept {
    try {
        this_thread().slot = own_slot();
        this_thread().slot_owner = id_;
        return *this_thread().slot;
    } catch (const std::bad_alloc&) {
        shared_->thread_id.store(current_thread_id(), std::memory_order_relaxed);
        return *shared_;
    }
}

ThreadSlot* CallCounters::own_slot() {
    auto& held = HeldSlots::local().held;
    const auto found =
        std::find_if(held.begin(), held.end(), [&](auto& h) { return h.owner == id_; });
    if (found != held.end()) return found->slot.get();
    std::erase_if(held, [](const auto& h) { return h.slot->orphaned.load(); });
    held.reserve(held.size() + 1);  // nothing may fail once a slot is taken
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
            const std::size_t taken = slots_.size();
            slot = taken < near_count_ ? std::shared_ptr<ThreadSlot>(near_, near_.get() + taken)
                                       : std::make_shared<ThreadSlot>();
            slots_.push_back(slot);
        }
    }
    slot->thread_id.store(current_thread_id(), std::memory_order_relaxed);
    held.push_back({id_, slot});
    return slot.get();
}

CallTotals CallCounters::totals() const {
    const std::lock_guard lock(mutex_);
    CallTotals sum;
    sum.add(*shared_);
    for (const auto& s : slots_) sum.add(*s);
    return sum;
}

}  // namespace fastlog
