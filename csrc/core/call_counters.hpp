// Per-thread counters of one recorder: the hot path counts without a locked instruction.
//
// Ownership: a slot's counters are written by the thread that holds it and only read by others (relaxed: they
// are statistics, nothing is inferred from their order). When a thread ends, its slot is passed to the next
// new thread, which continues counting: sums never decrease. `in_use`: release by the ending thread, acquire
// by the next owner, so that the next owner's increments start from the last values. A thread that gets no
// memory for its own slot counts in one that all such threads share: it may lose a count, and tries again at
// the next call.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "core/clock.hpp"
#include "core/hot_line.hpp"

namespace fastlog {

enum class CallKind : std::uint8_t {
    record = 0,
    timer_enter = 1,
    timer_exit = 2,
    event = 3,  // comes from Python code, which is measured as a whole: see CallerTime
    timer_make = 4,
};
inline constexpr std::size_t kCallKinds = 5;

/// Time that Python code of this package takes on the threads that call it. One sum for the process: a message
/// may go to several recorders, and to files besides.
class CallerTime {
  public:
    /// Begins a span; 0 within another one of this thread.
    static std::uint64_t begin() noexcept {
        const std::uint64_t now = span_ticks();
        if (is_open() && now - this_thread().span_begin < kLongest) return 0;
        this_thread().span_begin = now;
        this_thread().span_elsewhere = 0;
        return now;
    }
    static void end(std::uint64_t begin) noexcept {
        if (begin == 0 || begin != this_thread().span_begin) return;
        const std::uint64_t taken = span_ticks() - std::exchange(this_thread().span_begin, 0);
        const std::uint64_t elsewhere = this_thread().span_elsewhere;
        if (taken > elsewhere) ticks_.fetch_add(taken - elsewhere, std::memory_order_relaxed);
    }
    /// Takes out of the span of this thread what is counted elsewhere.
    static void take_out(std::uint64_t ticks) noexcept { this_thread().span_elsewhere += ticks; }
    /// Whether this thread is within a span, which counts the native calls in it, too.
    static bool is_open() noexcept { return this_thread().span_begin != 0; }
    static std::uint64_t ticks() noexcept { return ticks_.load(std::memory_order_relaxed); }

  private:
    /// About ten seconds. Ctrl-C may have come before what ends a span was set up.
    static constexpr std::uint64_t kLongest = std::uint64_t{1} << 35;

    static std::atomic<std::uint64_t> ticks_;
};

struct alignas(64) ThreadSlot {
    // What every call touches comes first, on one cache line.
    std::atomic<std::uint64_t> calls[kCallKinds]{};
    std::atomic<std::uint64_t> accepted{0};
    std::atomic<std::uint32_t> thread_id{0};  // relaxed: id of the thread that holds the slot
    std::atomic<bool> in_use{true};
    std::atomic<bool> orphaned{false};  // its recorder is destroyed
    struct PerKind {
        std::atomic<std::uint64_t> covered{0};  // of the calls, by a span of CallerTime
        std::atomic<std::uint64_t> samples{0};
        std::atomic<std::uint64_t> sampled_ticks{0};
    };
    PerKind kinds[kCallKinds];
    std::atomic<std::uint64_t> dropped{0};
    std::atomic<std::uint64_t> blocked_ticks{0};

    /// One call in 16 is timed: often enough for a mean, rarely enough not to affect it.
    static constexpr std::uint64_t kSampleEvery = 16;
    /// By a multiplicative hash, so that a training step's calls are timed in turn, however many there are.
    static constexpr bool is_sampled(std::uint64_t n) noexcept {
        return (n * 0x9E3779B97F4A7C15) >> 60 == 8;
    }

    std::uint32_t thread() const noexcept { return thread_id.load(std::memory_order_relaxed); }
    /// Adds to a counter that only this thread writes.
    [[gnu::always_inline]] static void add(std::atomic<std::uint64_t>& counter,
                                           std::uint64_t n) noexcept {
        counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
    }
    /// Counts a call; true if this one should be timed.
    [[gnu::always_inline]] bool count_call(CallKind kind) noexcept {
        const auto k = static_cast<std::size_t>(kind);
        const std::uint64_t n = calls[k].load(std::memory_order_relaxed);
        calls[k].store(n + 1, std::memory_order_relaxed);
        if (CallerTime::is_open()) [[unlikely]] {
            add(kinds[k].covered, 1);
            return false;
        }
        return is_sampled(n);
    }
    void count_calls(CallKind kind, std::uint64_t n) noexcept {
        add(calls[static_cast<std::size_t>(kind)], n);
    }
    void uncount_call(CallKind kind) noexcept {
        auto& count = calls[static_cast<std::size_t>(kind)];
        count.store(count.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
    }
    /// Longer ones are left out: a third of a millisecond and more, in which the thread did not run.
    static constexpr std::uint64_t kLongestSample = std::uint64_t{1} << 20;
    void add_sample(CallKind kind, std::uint64_t ticks) noexcept {
        if (ticks > kLongestSample) return;
        auto& k = kinds[static_cast<std::size_t>(kind)];
        add(k.samples, 1);
        add(k.sampled_ticks, ticks);
    }
};

/// The sums over all threads.
struct CallTotals {
    std::uint64_t calls[kCallKinds]{};
    std::uint64_t covered[kCallKinds]{};
    std::uint64_t samples[kCallKinds]{};
    std::uint64_t sampled_ticks[kCallKinds]{};
    std::uint64_t accepted = 0;
    std::uint64_t dropped = 0;
    std::uint64_t blocked_ticks = 0;

    void add(const ThreadSlot& slot) noexcept;
    /// Ticks spent in native calls outside of spans: sampled means times counts, plus the blocked time, which is
    /// exact.
    double estimated_ticks() const noexcept;
};

class CallCounters {
  public:
    CallCounters() : CallCounters(nullptr, 0) {}
    /// The first threads get the `count` slots of `near`, which they keep alive.
    CallCounters(std::shared_ptr<ThreadSlot> near, std::size_t count);
    ~CallCounters();
    CallCounters(const CallCounters&) = delete;
    CallCounters& operator=(const CallCounters&) = delete;

    /// This thread's slot: one comparison with a thread-local on the hot path.
    [[gnu::always_inline]] ThreadSlot& local() noexcept {
        if (this_thread().slot_owner == id_) [[likely]]
            return *this_thread().slot;
        return find_or_add();
    }

    std::uint64_t id() const noexcept { return id_; }
    [[gnu::cold]] ThreadSlot& find_or_add() noexcept;
    CallTotals totals() const;

  private:
    ThreadSlot* own_slot();

    const std::uint64_t id_;  // never reused in this process, inherited by a forked child
    mutable std::mutex mutex_;
    std::vector<std::shared_ptr<ThreadSlot>> slots_;  // guarded by mutex_
    const std::shared_ptr<ThreadSlot> near_;
    const std::size_t near_count_;
    // For threads without memory for one; elsewhere, or its alignment would keep the id from a shared line.
    const std::unique_ptr<ThreadSlot> shared_;
};

/// The kernel's id of the calling thread.
std::uint32_t current_thread_id() noexcept;

}  // namespace fastlog
