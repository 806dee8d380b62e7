// What a store to a mapped file can end in: SIGBUS, where the file system finds no block for a page that
// it copies on write, or has shut itself down. Training is not to die of that.
//
// A page that can still be read is replaced by memory of the same content, in the signal's handler, and the
// store is made again. From then on the ring lies in memory, in part: broken() says so. A page that cannot be
// read (somebody truncated the file) is nobody's to mend: whoever had the signal before gets it.
//
// Thread ownership: watch() and forget() by the ring's owner, broken() by any thread.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/fork_watch.hpp"

namespace fastlog {

class RingGuard final : ForkWatched {
  public:
    RingGuard() = default;
    ~RingGuard() { forget(); }
    RingGuard(const RingGuard&) = delete;
    RingGuard& operator=(const RingGuard&) = delete;

    /// Guards a mapping of whole pages until forget(). The first one installs the handler, which stays.
    /// Throws std::bad_alloc.
    void watch(std::byte* base, std::size_t size);
    /// Before the mapping goes.
    void forget() noexcept;
    /// Whether a page of it lies in memory by now.
    bool broken() const noexcept { return broken_.load(std::memory_order_relaxed); }

  private:
    friend struct BusHandler;
    void notice_fork() noexcept override;
    void unlink() noexcept;
    bool mend(std::uintptr_t address) noexcept;

    std::uintptr_t base_ = 0;  // this and what follows: guarded by the handler's lock
    std::size_t size_ = 0;
    std::unique_ptr<bool[]> moved_;  // per page
    RingGuard* next_ = nullptr;
    std::atomic<bool> broken_{false};
};

}  // namespace fastlog
