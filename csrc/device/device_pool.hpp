// Device values in flight: pinned memory, events, tickets. One pool per process.
//
// Producers send; each recorder's DeviceReader (device_reader.hpp) checks what has arrived. Nothing here
// waits for a value. But any driver call may wait, for room in its launch queue or for one of its locks, for
// as long as the device needs. So producers' functions are never called with the GIL held, and nothing done
// under `setup_mutex_` needs it. Nothing is ever freed: at exit the driver may be gone before us.
//
// A child of fork() whose parent had used the pool may use neither the driver nor the slots: its values are
// missing at once.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "core/device_values.hpp"
#include "device/driver.hpp"
#include "device/dtype.hpp"
#include "device/ticket.hpp"

namespace fastlog {

/// A device by its number in the driver.
struct DeviceId {
    DeviceKind kind = DeviceKind::cuda;
    int index = 0;
};

/// A scalar in device memory.
struct DeviceScalar {
    std::uint64_t address;
    DType dtype;
    /// A reference that keeps the memory alive. The pool takes it over with each copy that it starts, and
    /// returns it through take_kept() once that copy is complete. Null: someone else keeps the memory alive.
    void* keep = nullptr;
};

/// The tickets of one record.
struct TicketChain {
    std::uint16_t first = kNoTicket;
    std::uint16_t last = kNoTicket;
    /// The flags of the record's header.
    std::uint16_t flags() const noexcept { return static_cast<std::uint16_t>(first + 1); }
};

struct DeviceStats {
    std::uint64_t sent = 0;     // scalars and block timings ever sent
    std::uint64_t waiting = 0;  // tickets in use
};

class DevicePool {
  public:
    static constexpr std::uint32_t kTickets = 4096;
    static constexpr int kMostDevices = 32;
    static constexpr std::size_t kAhead = 32;  // tickets that prepare_ahead() creates events for

    DevicePool();
    DevicePool(const DevicePool&) = delete;
    DevicePool& operator=(const DevicePool&) = delete;
    /// The pool of this process; created on first use, and leaked.
    static DevicePool& instance();
    /// The same if it has been created, otherwise null.
    static DevicePool* existing() noexcept;
    /// From here on, children of fork() know that they are children. Called once, before there can be any.
    static void watch_forks() noexcept;
    /// True in a child of a process that had used the pool: neither the driver nor the slots may be touched.
    static bool in_forked_child() noexcept;

    // ---- producers: without the GIL --------------------------------------------------------------

    /// Whether we can use the driver for a kind of device; otherwise its framework has to copy.
    bool has_driver(DeviceKind kind) noexcept;
    /// The driver's error if the stream is being captured into a graph, or if no stream may be used now
    /// because another one is; 0 otherwise. Other errors appear when something is sent.
    int capture_error(DeviceId device, DriverHandle stream) noexcept;
    /// Sets this thread's capture mode; returns the previous one, or -1 if there is no driver to ask.
    int exchange_capture_mode(DeviceKind kind, int mode) noexcept;
    /// Allocates what the first values of a device need. The device is in use.
    void prepare_ahead(DeviceId device) noexcept;
    /// Queues copies of `count` scalars on the stream, with an event after every eight. `out` receives
    /// pending values, or missing ones with the reason. False if the current context or the stream does not
    /// belong to the framework's context: then nothing is done, and the framework has to copy.
    bool send(DeviceId device, DriverHandle stream, const DeviceScalar* scalars, std::size_t count,
              SettledValue* out, TicketChain& chain) noexcept;
    /// Takes tickets for `count` values that a framework copies itself.
    void expect(std::size_t count, SettledValue* out, TicketChain& chain) noexcept;
    /// Delivers one of them; then, for all slots of a ticket, that they have arrived.
    void deliver(std::uint32_t slot, const SettledValue& value) noexcept;
    void delivered(std::uint32_t slot) noexcept;

    /// Records the begin of a block on a stream: a ticket, or kNoTicket with the reason in `missing`.
    std::uint16_t begin_block(DeviceId device, DriverHandle stream,
                              std::uint64_t& missing) noexcept;
    /// Records its end; the ticket is the chain of the block's record.
    void end_block(std::uint16_t ticket, DriverHandle stream) noexcept;

    /// The record was not accepted: nobody waits for its copies.
    void abandon(const TicketChain& chain) noexcept;

    /// Whether take_kept() has references to return.
    bool has_kept() const noexcept { return kept_count_.load(std::memory_order_relaxed) != 0; }
    /// Takes the references of one ticket whose copies are complete, for the caller to drop; returns how
    /// many.
    std::size_t take_kept(void* (&references)[kSlotsPerTicket]) noexcept;

    /// True when most tickets are in use, so that the flush thread should check them now.
    bool crowded() const noexcept {
        return in_use_.load(std::memory_order_relaxed) > kTickets / 4 * 3;
    }
    DeviceStats stats() const noexcept;

    /// The last error that loses all values of a device, or makes our use of the driver impossible; "" if
    /// none.
    std::string fault() const;
    /// The same, for reporting: only once.
    std::string take_notice();

  private:
    friend class DeviceReader;

    struct DeviceState {
        std::atomic<DriverHandle> context{nullptr};  // once it is known; does not change after that
        int number = 0;                              // the driver's; written before the context
        std::atomic<int> broken{0};                  // the driver's error that does not go away
        TicketStack copies;  // free tickets whose event belongs to this context
        TicketStack timings;
    };
    struct Driver {
        std::atomic<int> state{0};  // 0: not searched yet, 1: ready, 2: absent
        DriverApi api{};
    };

    static std::uint8_t state_index(DeviceId device) noexcept {
        return static_cast<std::uint8_t>(static_cast<int>(device.kind) * kMostDevices +
                                         device.index);
    }
    const DriverApi& api_of(DeviceKind kind) const noexcept {
        return drivers_[static_cast<std::size_t>(kind)].api;
    }
    const DriverApi& api_of(const Ticket& ticket) const noexcept {
        return drivers_[ticket.device / kMostDevices].api;
    }
    std::byte* pinned(std::uint32_t slot) const noexcept {
        return pinned_.load(std::memory_order_acquire) + std::size_t{slot} * sizeof(std::uint64_t);
    }
    DeviceState* ready(DeviceId device, std::uint64_t& missing) noexcept;
    static void note_use() noexcept;
    std::uint64_t prepare(DeviceId device, DeviceState& state) noexcept;
    std::uint64_t allocate(const DriverApi& api, DriverHandle context, DeviceState& state) noexcept;
    std::uint16_t take_unused() noexcept;
    std::uint16_t take_new() noexcept;
    std::uint16_t take_for(DeviceId device, DeviceState& state, bool times,
                           std::uint64_t& missing) noexcept;
    void link(TicketChain& chain, std::uint16_t number) noexcept;
    void give_back(std::uint16_t number) noexcept;
    void push_free(std::uint16_t number) noexcept;
    void keep_late(std::uint16_t number) noexcept;
    void note_broken(std::uint8_t device, int code) noexcept;
    void note_fault(std::string text);

    std::unique_ptr<Ticket[]> tickets_;
    std::atomic<std::byte*> pinned_{nullptr};  // eight bytes per slot
    std::unique_ptr<void*[]> keeps_;  // the reference of each slot; created before `pinned_`
    std::unique_ptr<SettledValue[]>
        delivered_;  // the value of each slot from a framework; created with the first
    std::atomic<bool> has_delivered_{false};
    Driver drivers_[2];  // by DeviceKind: cuda, rocm
    DeviceState devices_[2 * kMostDevices];
    TicketStack blank_;      // free tickets without an event: the driver did not create one
    TicketStack framework_;  // free tickets of frameworks' copies
    TicketStack late_;       // abandoned, and their copies not known to be complete
    TicketStack kept_;       // free except for the references they keep
    std::atomic<std::uint32_t> kept_count_{0};
    std::atomic<std::uint32_t> late_count_{0};
    std::atomic<std::uint32_t> unused_{0};  // tickets from this number on were never used
    std::atomic<std::uint32_t> in_use_{0};
    std::atomic<std::uint64_t> sent_{0};
    std::mutex setup_mutex_;
    mutable std::mutex fault_mutex_;  // locked after `setup_mutex_`
    std::string fault_;
    std::string notice_;
    std::atomic<bool> has_notice_{false};
};

}  // namespace fastlog
