// Placeholders for values in flight: a ticket has eight slots and the event after their copies.
//
// A record with device values has a chain of tickets: one per stream and eight values. Ownership of a
// ticket's fields rotates:
//   free      in a TicketStack; owned by nobody
//   producer  from pop() until its record is committed: fills everything
//   reader    the flush thread of that record's ring, until it pushes the ticket back; a ticket that keeps
//             memory alive passes through the next call of a recorder, which releases the memory
// pop() and push() pair (acquire, release), and the ring's stamp passes a ticket from producer to reader.
// Only `arrived` is written by another thread in between: the one that delivers values copied by a framework
// (release, acquire in the reader).
#pragma once

#include <atomic>
#include <cstdint>

#include "core/device_values.hpp"
#include "device/driver.hpp"

namespace fastlog {

inline constexpr std::uint16_t kNoTicket = 0xFFFF;
inline constexpr std::uint32_t kSlotsPerTicket = 8;

struct alignas(64) Ticket {
    std::atomic<std::uint16_t> below{kNoTicket};  // in a stack
    std::atomic<bool> arrived{false};             // through a framework's own copy
    std::uint16_t next = kNoTicket;               // in the chain
    std::uint8_t device = 0;    // index of its DeviceState; fixed while it has events
    bool by_framework = false;  // likewise: no driver, no event
    bool times = false;         // likewise: `begin` and `event` measure a block
    bool settled = false;
    bool late = false;          // abandoned: the copy may still arrive
    bool lost = false;          // nothing will report the end of its copies: not used again
    bool keeps = false;         // keeps memory of some of its values alive (DevicePool::take_kept)
    std::uint8_t count = 0;     // values
    std::uint64_t missing = 0;  // missing_bits() + 1, if all of its values are missing
    DriverHandle event = nullptr;
    DriverHandle begin = nullptr;
    DriverHandle stream = nullptr;        // of `event`
    DriverHandle begin_stream = nullptr;  // of `begin`
    std::int64_t made_ns = 0;

    /// Prepares it for another use.
    void open(std::int64_t now_ns) noexcept {
        arrived.store(false, std::memory_order_relaxed);
        next = kNoTicket;
        settled = late = false;
        missing = 0;
        made_ns = now_ns;
    }
    void settle_missing(std::uint64_t bits) noexcept {
        settled = true;
        missing = bits + 1;
    }
};

static_assert(sizeof(Ticket) == 64);  // a cache line each

/// A lock-free stack of tickets for any number of threads. The number in the upper half of its head changes
/// with each push, so that a ticket that was popped and pushed again is not mistaken for unchanged.
/// `Atomic` is std::atomic; tests may substitute one that lets other threads run at a bad moment.
template <template <class> class Atomic = std::atomic>
class BasicTicketStack {
  public:
    void push(Ticket* tickets, std::uint16_t number) noexcept {
        std::uint64_t head = head_.load(std::memory_order_relaxed);
        std::uint64_t mine;
        do {
            tickets[number].below.store(static_cast<std::uint16_t>(head),
                                        std::memory_order_relaxed);
            mine = ((head & ~kNumber) + kOnePush) | number;
        } while (!head_.compare_exchange_weak(head, mine, std::memory_order_release,
                                              std::memory_order_relaxed));
    }

    /// The number of a ticket, or kNoTicket.
    std::uint16_t pop(Ticket* tickets) noexcept {
        std::uint64_t head = head_.load(std::memory_order_acquire);
        for (;;) {
            const auto number = static_cast<std::uint16_t>(head);
            if (number == kNoTicket) return kNoTicket;
            const std::uint64_t below =
                (head & ~kNumber) | tickets[number].below.load(std::memory_order_relaxed);
            if (head_.compare_exchange_weak(head, below, std::memory_order_acquire,
                                            std::memory_order_acquire)) {
                return number;
            }
        }
    }

  private:
    static constexpr std::uint64_t kNumber = 0xFFFF;
    static constexpr std::uint64_t kOnePush = 0x10000;
    Atomic<std::uint64_t> head_{kNoTicket};
};
using TicketStack = BasicTicketStack<>;

}  // namespace fastlog
