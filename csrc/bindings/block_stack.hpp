// The timed blocks that run: a stack for each thread.
//
// A block may end in another thread than it began in: a generator is handed on to a prefetching thread, or is
// closed by the garbage collector. That thread takes the frame off the stack of the first, which it finds in
// the list of all stacks. A stack outlives its thread as long as it has frames, because these may still end.
//
// Ownership: the list, and `ended_`, are guarded by a mutex. Frames are pushed by their own thread and taken by
// any, with the GIL; without one, under the stack's lock. Neither is held while Python code runs.
#pragma once

#include <Python.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "bindings/timed_block.hpp"
#include "bindings/timer.hpp"

namespace fastlog::bindings {

struct Frame {
    Timer* timer;      // owned; a copy if `original` is not null
    PyObject* parent;  // owned name of the enclosing block, or null
    std::uint64_t begin;
    std::int64_t step;
    std::uint16_t depth;
    bool has_step;
    std::uint32_t thread = 0;  // where it began, if that is known
    DeviceBlock block{};
    // The timer of a block that is timed on a device, only for comparison. It is not referenced, so a timer
    // whose block can no longer be exited is freed, together with its ticket.
    const Timer* original = nullptr;
    PyObject* task = nullptr;  // owned; the context that it began in, null outside of tasks
    PyObject* token =
        nullptr;  // owned; puts back what tasks that are started here have as their parent
    std::uint64_t number = 0;   // of a task's block: tasks that inherit it know it by this
    std::int64_t begin_ns = 0;  // by the monotonic clock, where no recorder times it; 0 otherwise

    bool is_of(const Timer* one) const noexcept { return timer == one || original == one; }
};

class BlockStack {
  public:
    /// The calling thread's; null without memory.
    static BlockStack* own() noexcept {
        if (this_thread().block_stack == nullptr) [[unlikely]]
            this_thread().block_stack = make();
        return static_cast<BlockStack*>(this_thread().block_stack);
    }
    /// Takes the innermost frame of a timer off whichever thread's stack; of several threads', the one that
    /// began first.
    static bool take_any(const Timer* timer, Frame& frame) noexcept;

    /// Without memory false.
    bool push(const Frame& frame) noexcept;
    /// Takes the last frame if `is` accepts it.
    template <class Is>
    bool take_last(Is&& is, Frame& frame) noexcept {
        const std::lock_guard<Lock> locked(lock_);
        if (frames_.empty() || !is(frames_.back())) return false;
        frame = frames_.back();
        frames_.pop_back();
        return true;
    }
    /// Takes the innermost frame that `is` accepts.
    template <class Is>
    bool take(Is&& is, Frame& frame) noexcept {
        const std::lock_guard<Lock> locked(lock_);
        const auto found = std::find_if(frames_.rbegin(), frames_.rend(), is);
        if (found == frames_.rend()) return false;
        frame = *found;
        frames_.erase(std::next(found).base());
        return true;
    }
    /// Calls `look(frames)`, which must not keep them.
    template <class Look>
    auto look(Look&& look) noexcept {
        const std::lock_guard<Lock> locked(lock_);
        return look(static_cast<const std::vector<Frame>&>(frames_));
    }
    bool empty() noexcept {
        const std::lock_guard<Lock> locked(lock_);
        return frames_.empty();
    }

  private:
    class Lock {
      public:
#ifdef Py_GIL_DISABLED
        void lock() noexcept {
            while (held_.test_and_set(std::memory_order_acquire)) {
            }
        }
        void unlock() noexcept { held_.clear(std::memory_order_release); }

      private:
        std::atomic_flag held_;
#else
        void lock() noexcept {}
        void unlock() noexcept {}
#endif
    };
    static BlockStack* make() noexcept;
    void end() noexcept;
    void remove() noexcept;  // from the list, which is locked

    friend struct StackOfThread;
    static BlockStack* first_;

    std::vector<Frame> frames_;
    Lock lock_;
    bool ended_ = false;
    BlockStack* next_ = nullptr;
    BlockStack* previous_ = nullptr;
};

}  // namespace fastlog::bindings
