// Blocks that have begun on a device and not ended. Each holds a ticket, of which there are few, and a block
// may never end: its timer is freed, its recorder closed, or its thread gone. So whichever of these or the
// normal end comes first takes the block from here, and only the taker may use its ticket.
//
// Has no locks and allocates nothing, because a thread that exits has no GIL and no way to report failure:
// there is one slot per ticket. A slot's data is written before its number (release); whoever takes the
// number with a compare-exchange (acquire) has read the data that belongs to it, since numbers are never
// reused.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "device/device_pool.hpp"

namespace fastlog::bindings {

class OpenBlocks {
  public:
    struct Block {
        const void* recorder;
        void* counted_by;
        std::uint64_t number;
        std::uint16_t ticket;
    };

    /// Adds a block that has begun; returns its number.
    std::uint64_t add(std::uint16_t ticket, const void* recorder, void* counted_by) noexcept {
        Place& place = places_[ticket];
        place.recorder.store(recorder, std::memory_order_relaxed);
        place.counted_by.store(counted_by, std::memory_order_relaxed);
        const std::uint64_t number = 1 + last_.fetch_add(1, std::memory_order_relaxed);
        place.number.store(number, std::memory_order_release);
        std::uint32_t end = end_.load(std::memory_order_relaxed);
        while (end <= ticket && !end_.compare_exchange_weak(end, ticket + 1u)) {
        }
        return number;
    }

    /// True for the one caller that owns the block's ticket from now on.
    bool take(std::uint16_t ticket, std::uint64_t number) noexcept {
        return places_[ticket].number.compare_exchange_strong(number, 0, std::memory_order_acq_rel,
                                                              std::memory_order_relaxed);
    }

    /// Calls `use(block)` for each open block.
    template <class Use>
    void each(Use&& use) const noexcept {
        const std::uint32_t end = end_.load();
        for (std::uint32_t ticket = 0; ticket < end; ++ticket) {
            const Place& place = places_[ticket];
            const std::uint64_t number = place.number.load(std::memory_order_acquire);
            if (number == 0) continue;
            use(Block{place.recorder.load(std::memory_order_relaxed),
                      place.counted_by.load(std::memory_order_relaxed), number,
                      static_cast<std::uint16_t>(ticket)});
        }
    }

  private:
    struct Place {
        std::atomic<std::uint64_t> number{0};  // 0: none
        std::atomic<const void*> recorder{nullptr};
        std::atomic<void*> counted_by{nullptr};
    };
    std::array<Place, DevicePool::kTickets> places_{};
    std::atomic<std::uint64_t> last_{0};
    std::atomic<std::uint32_t> end_{0};  // no block has ever had a ticket from here on
};

}  // namespace fastlog::bindings
