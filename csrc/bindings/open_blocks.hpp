// Blocks that have begun on a device and not ended. Each has a ticket, of which there are few, and a block
// may never end: its timer is dropped, its recorder closed, its thread gone. So a block is taken from here
// by whoever comes first, its end or one of these, and only that one may use its ticket.
//
// Without locks or memory of its own, as a thread that ends has neither the GIL nor a chance to fail: a
// place for each ticket. What a place says of a block is written before its number is (release); who
// takes the number by a compare-exchange (acquire) has read what belongs to it, as no number comes twice.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "device/device_pool.hpp"

namespace fastlog::bindings {

class OpenBlocks {
  public:
    struct Block {
        const void* timer;
        const void* recorder;
        void* counted_by;
        std::uint64_t number;
        std::uint16_t ticket;
    };

    /// Notes a block that has begun: its number.
    std::uint64_t add(std::uint16_t ticket, const void* timer, const void* recorder,
                      void* counted_by) noexcept {
        Place& place = places_[ticket];
        place.timer.store(timer, std::memory_order_relaxed);
        place.recorder.store(recorder, std::memory_order_relaxed);
        place.counted_by.store(counted_by, std::memory_order_relaxed);
        const std::uint64_t number = 1 + last_.fetch_add(1, std::memory_order_relaxed);
        place.number.store(number, std::memory_order_release);
        std::uint32_t end = end_.load(std::memory_order_relaxed);
        while (end <= ticket && !end_.compare_exchange_weak(end, ticket + 1u)) {
        }
        return number;
    }

    /// True for the one caller that has the block's ticket from now on.
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
            use(Block{place.timer.load(std::memory_order_relaxed),
                      place.recorder.load(std::memory_order_relaxed),
                      place.counted_by.load(std::memory_order_relaxed), number,
                      static_cast<std::uint16_t>(ticket)});
        }
    }

  private:
    struct Place {
        std::atomic<std::uint64_t> number{0};  // 0: none
        std::atomic<const void*> timer{nullptr};
        std::atomic<const void*> recorder{nullptr};
        std::atomic<void*> counted_by{nullptr};
    };
    std::array<Place, DevicePool::kTickets> places_{};
    std::atomic<std::uint64_t> last_{0};
    std::atomic<std::uint32_t> end_{0};  // no block has ever had a ticket from here on
};

}  // namespace fastlog::bindings
