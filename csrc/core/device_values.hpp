// Values that a device delivers later: the flush thread asks, device/ answers.
//
// A record refers to them by tickets: its flags hold 1 + its first ticket. A ticket belongs to the producer
// until the record is committed, and then to the flush thread, which releases it once the line is made (the
// ring's stamp passes it over).
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "core/record.hpp"

namespace fastlog {

/// A value for the renderer: any tag except string and pending.
struct SettledValue {
    ValueTag tag = ValueTag::missing;
    std::uint64_t bits = missing_bits(MissingReason::lost);
};

class DeviceValues {
  public:
    enum class State : std::uint8_t { waiting, settled };

    /// For one recorder: its producers and its flush thread add to them; statistics, so relaxed.
    struct Counts {
        std::atomic<std::uint64_t> sent{0};     // values sent
        std::atomic<std::uint64_t> settled{0};  // of these: arrived or given up
    };
    Counts counts;

    virtual ~DeviceValues() = default;
    /// Begins a round of queries: a stream that was busy in the last round may have progressed.
    virtual void begin_round() noexcept = 0;
    /// Whether all values of a record have arrived, or are known not to arrive. Never waits.
    virtual State poll(std::uint16_t ticket) noexcept = 0;
    /// When the record was made (monotonic_ns()).
    virtual std::int64_t made_ns(std::uint16_t ticket) const noexcept = 0;
    /// Settles a record whose values are no longer waited for.
    virtual void give_up(std::uint16_t ticket, MissingReason reason) noexcept = 0;
    /// A value of a settled record.
    virtual SettledValue value(PendingValue pending) const noexcept = 0;
    /// A settled block timing: seconds on the device.
    virtual SettledValue duration(std::uint16_t ticket) const noexcept = 0;
    /// Returns a settled record's tickets.
    virtual void release(std::uint16_t ticket) noexcept = 0;
    /// Whether memory is kept that no value needs any more; a producer's next call releases it.
    virtual bool has_kept() const noexcept { return false; }
    /// A message about devices, once per process; usually empty.
    virtual std::string take_notice() { return {}; }
};

}  // namespace fastlog
