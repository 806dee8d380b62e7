// Checks which values of one recorder's records have arrived. Owned by its flush thread.
//
// Queries the oldest event of each stream: later ones on the same stream have not completed either. Once per
// thread, the driver is told that these queries must not end anyone's graph capture.
#pragma once

#include <cstdint>
#include <vector>

#include "device/device_pool.hpp"

namespace fastlog {

class DeviceReader final : public DeviceValues {
  public:
    explicit DeviceReader(DevicePool& pool) : pool_(pool) { busy_.reserve(64); }

    void begin_round() noexcept override;
    State poll(std::uint16_t ticket) noexcept override;
    std::int64_t made_ns(std::uint16_t ticket) const noexcept override;
    void give_up(std::uint16_t ticket, MissingReason reason) noexcept override;
    SettledValue value(PendingValue pending) const noexcept override;
    SettledValue duration(std::uint16_t ticket) const noexcept override;
    void release(std::uint16_t ticket) noexcept override;
    bool has_kept() const noexcept override;
    std::string take_notice() override { return pool_.take_notice(); }

  private:
    struct Stream {
        std::uint8_t device;
        DriverHandle handle;
    };
    bool is_busy(const Ticket& ticket) const noexcept;
    void note_busy(const Ticket& ticket) noexcept;
    void settle(Ticket& ticket) noexcept;
    int query(const Ticket& ticket) noexcept;
    void collect_late() noexcept;

    DevicePool& pool_;
    std::vector<Stream> busy_;  // in this round
    int current_ = -1;          // the device whose context is current in the flush thread
    bool relaxed_[2]{};         // by DeviceKind: its driver has been told
};

}  // namespace fastlog
