// Handles SIGBUS from a store to a mapped file, which occurs if the file system has no block for a page that
// it copies on write, or has shut itself down. Training must not die of that.
//
// The signal handler replaces a page that can still be read with memory of the same content, and the store is
// repeated. From then on a part of the ring is in memory only: broken() returns true. A page that cannot be
// read (somebody truncated the file) cannot be repaired: the previous owner of the signal gets it.
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

    /// Guards a mapping of whole pages until forget(). The first call installs the handler, which stays.
    /// Throws std::bad_alloc.
    void watch(std::byte* base, std::size_t size);
    /// Called before the mapping is removed.
    void forget() noexcept;
    /// Whether any of its pages is in memory only.
    bool broken() const noexcept { return broken_.load(std::memory_order_relaxed); }

  private:
    friend struct BusHandler;
    void notice_fork() noexcept override;
    void unlink() noexcept;
    bool repair(std::uintptr_t address) noexcept;

    std::uintptr_t base_ = 0;  // this and the following members: guarded by the handler's lock
    std::size_t size_ = 0;
    std::unique_ptr<bool[]> moved_;  // per page
    RingGuard* next_ = nullptr;
    std::atomic<bool> broken_{false};
};

}  // namespace fastlog
