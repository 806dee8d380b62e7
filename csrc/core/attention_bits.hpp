// One word that record() checks: zero in the normal case, bits if something needs attention.
#pragma once

#include <atomic>
#include <cstdint>

namespace fastlog {

/// Set from any thread (fetch_or, release) and read on the hot path (relaxed: seeing a bit one call later
/// does no harm; whatever a bit stands for has its own synchronisation).
class AttentionBits {
  public:
    static constexpr std::uint32_t kMessages = 1;  // messages for the user
    static constexpr std::uint32_t kDrops =
        2;  // records were dropped, and no marker is written yet
    static constexpr std::uint32_t kForked = 4;  // this process is a fork of the one that opened it
    static constexpr std::uint32_t kClosed = 8;
    static constexpr std::uint32_t kKept = 16;  // memory is kept that copies no longer need

    std::uint32_t bits() const noexcept { return bits_.load(std::memory_order_relaxed); }
    void set(std::uint32_t bit) noexcept { bits_.fetch_or(bit, std::memory_order_release); }
    /// Clears a bit; true when it was set.
    bool clear(std::uint32_t bit) noexcept {
        return (bits_.fetch_and(~bit, std::memory_order_acq_rel) & bit) != 0;
    }

  private:
    std::atomic<std::uint32_t> bits_{0};
};

}  // namespace fastlog
