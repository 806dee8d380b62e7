// Values that a device delivers later: the flush thread asks, device/ answers.
//
// A record names them by tickets: the record's flags hold 1 + its first ticket. A ticket belongs to the
// producer until the record is committed and to the flush thread from then on, which releases it once
// the line is made (the ring's stamp hands it over).
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "core/record.hpp"

namespace fastlog {

/// A value as the renderer takes it: any tag but string and pending.
struct SettledValue {
    ValueTag tag = ValueTag::missing;
    std::uint64_t bits = missing_bits(MissingReason::lost);
};

class DeviceValues {
  public:
    enum class State : std::uint8_t { waiting, settled };

    /// Of one recorder: producers and its flush thread add to them; statistics, so relaxed.
    struct Counts {
        std::atomic<std::uint64_t> sent{0};     // put under way
        std::atomic<std::uint64_t> settled{0};  // of these: arrived, or given up
    };
    Counts counts;

    virtual ~DeviceValues() = default;
    /// Begins a round of questions: a stream that was busy in the last round may have moved on.
    virtual void begin_round() noexcept = 0;
    /// Whether all values of a record are there, or known not to come. Never waits.
    virtual State poll(std::uint16_t ticket) noexcept = 0;
    /// When the record was made (monotonic_ns()).
    virtual std::int64_t made_ns(std::uint16_t ticket) const noexcept = 0;
    /// Settles a record whose values are not waited for any more.
    virtual void give_up(std::uint16_t ticket, MissingReason reason) noexcept = 0;
    /// A value of a settled record.
    virtual SettledValue value(PendingValue pending) const noexcept = 0;
    /// A settled block timing: seconds on the device.
    virtual SettledValue duration(std::uint16_t ticket) const noexcept = 0;
    /// Gives a settled record's tickets back.
    virtual void release(std::uint16_t ticket) noexcept = 0;
    /// Whether memory is kept that no value needs any more; a producer's next call lets it go.
    virtual bool has_kept() const noexcept { return false; }
    /// What is to be told of devices, once in a process; mostly nothing.
    virtual std::string take_notice() { return {}; }
};

}  // namespace fastlog
