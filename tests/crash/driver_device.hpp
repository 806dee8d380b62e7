// Values of devices that exist only in this driver: each arrives a random time after it was recorded.
//
// Ownership as in core/device_values.hpp: a ticket is its producer's until the record is committed and
// the flush thread's from then on. `free_` is anybody's, under its mutex.
#pragma once

#include <cstdint>
#include <cstring>
#include <mutex>
#include <vector>

#include "core/clock.hpp"
#include "core/device_values.hpp"
#include "driver.hpp"

namespace crash {

class LateValues final : public fastlog::DeviceValues {
  public:
    static constexpr std::uint16_t kTickets = 4096;
    static constexpr std::uint16_t kNone = 0xFFFF;

    LateValues() : tickets_(kTickets) {
        for (std::uint16_t n = kTickets; n-- > 0;) free_.push_back(n);
    }

    /// A ticket whose value arrives in `delay_ns`; kNone when there is none.
    std::uint16_t send(double value, std::int64_t delay_ns) {
        const std::lock_guard lock(mutex_);
        if (free_.empty()) return kNone;
        const std::uint16_t number = free_.back();
        free_.pop_back();
        const std::int64_t now = fastlog::monotonic_ns();
        tickets_[number] = {value, now, now + delay_ns, fastlog::MissingReason::lost, false, true};
        return number;
    }
    void give_back(std::uint16_t number) {
        const std::lock_guard lock(mutex_);
        free_.push_back(number);
    }

    void begin_round() noexcept override {}
    State poll(std::uint16_t number) noexcept override {
        if (!tickets_[number].in_use) fail("asked about a ticket that was released");
        const bool there =
            tickets_[number].missing || fastlog::monotonic_ns() >= tickets_[number].arrives_ns;
        return there ? State::settled : State::waiting;
    }
    std::int64_t made_ns(std::uint16_t number) const noexcept override {
        return tickets_[number].made_ns;
    }
    void give_up(std::uint16_t number, fastlog::MissingReason reason) noexcept override {
        tickets_[number].missing = true;
        tickets_[number].reason = reason;
    }
    fastlog::SettledValue value(fastlog::PendingValue pending) const noexcept override {
        const Ticket& ticket = tickets_[pending.slot];
        if (!ticket.in_use) fail("the value of a ticket that was released");
        if (ticket.missing) {
            return {fastlog::ValueTag::missing, fastlog::missing_bits(ticket.reason)};
        }
        fastlog::SettledValue found{fastlog::ValueTag::real, 0};
        static_assert(sizeof ticket.value == sizeof found.bits);
        std::memcpy(&found.bits, &ticket.value, sizeof found.bits);
        return found;
    }
    fastlog::SettledValue duration(std::uint16_t) const noexcept override { return {}; }
    void release(std::uint16_t number) noexcept override {
        if (!tickets_[number].in_use) fail("a ticket was released twice");
        tickets_[number].in_use = false;
        give_back(number);
    }

  private:
    struct Ticket {
        double value = 0;
        std::int64_t made_ns = 0;
        std::int64_t arrives_ns = 0;
        fastlog::MissingReason reason = fastlog::MissingReason::lost;
        bool missing = false;
        bool in_use = false;
    };
    std::vector<Ticket> tickets_;
    std::mutex mutex_;
    std::vector<std::uint16_t> free_;  // guarded by mutex_
};

}  // namespace crash
