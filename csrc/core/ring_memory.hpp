// The memory span behind one ring: control words, key table, data.
//
//   [ control page 4 KiB | key table arena | ring data ]
//
// Owned by the Recorder; anonymous pages here, the same layout a mapped file can have. A forked
// child never sees it (MADV_DONTFORK): two processes must not share one ring.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/mpsc_ring.hpp"

namespace fastlog {

class RingMemory {
  public:
    static constexpr std::size_t kControlBytes = 4096;
    static constexpr std::size_t kKeyTableBytes = std::size_t{1} << 20;

    /// Maps room for a ring of `ring_bytes` (a power of two). Throws std::system_error when the
    /// system has no memory for it.
    explicit RingMemory(std::size_t ring_bytes);
    ~RingMemory();
    RingMemory(const RingMemory&) = delete;
    RingMemory& operator=(const RingMemory&) = delete;

    RingControl* control() const noexcept { return reinterpret_cast<RingControl*>(base_); }
    std::byte* key_table() const noexcept { return base_ + kControlBytes; }
    std::byte* data() const noexcept { return base_ + kControlBytes + kKeyTableBytes; }
    std::size_t ring_bytes() const noexcept { return ring_bytes_; }

  private:
    std::byte* base_;
    std::size_t size_;
    std::size_t ring_bytes_;
};

}  // namespace fastlog
