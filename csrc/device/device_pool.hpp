// Values of devices under way: pinned memory, events, tickets. One for the process.
//
// Producers send; each recorder's DeviceReader (device_reader.hpp) finds out what has arrived. Nothing
// here waits for a value. But any call of the driver may wait, for room in its launch queue or for a
// lock of its own, for as long as the device needs: so nobody calls a producer's function with the GIL,
// and what is done under `setup_mutex_` never needs it. What was made is never freed: at exit the driver
// may be gone before us.
//
// A child of fork() whose parent had used the pool may use neither driver nor slots: what it sends is
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

/// A device as the driver numbers it.
struct DeviceId {
    DeviceKind kind = DeviceKind::cuda;
    int index = 0;
};

/// A scalar in a device's memory.
struct DeviceScalar {
    std::uint64_t address;
    DType dtype;
    /// What keeps the memory: a reference that the pool takes over with each copy that it puts under way,
    /// and gives back by take_kept() once that copy has ended. Null: somebody else does.
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
    std::uint64_t sent = 0;     // scalars and block timings ever put under way
    std::uint64_t waiting = 0;  // tickets in use
};

class DevicePool {
  public:
    static constexpr std::uint32_t kTickets = 4096;
    static constexpr int kMostDevices = 32;
    static constexpr std::size_t kAhead = 32;  // tickets that prepare_ahead() makes events for

    DevicePool();
    DevicePool(const DevicePool&) = delete;
    DevicePool& operator=(const DevicePool&) = delete;
    /// The process's own; made when it is first asked for, and leaked.
    static DevicePool& instance();
    /// The same where it has been made, else null.
    static DevicePool* existing() noexcept;
    /// From here on children of fork() know what they are; once, before any can be.
    static void watch_forks() noexcept;
    /// True in a child of a process that had used the pool: neither driver nor slots may be touched.
    static bool in_forked_child() noexcept;

    // ---- producers: without the GIL --------------------------------------------------------------

    /// Whether the driver's own way works for a kind of device; else its framework has to copy.
    bool has_driver(DeviceKind kind) noexcept;
    /// The driver's error when the stream is being captured into a graph, or none may be used now
    /// because another is; 0 otherwise. Other faults show when something is sent.
    int capture_error(DeviceId device, DriverHandle stream) noexcept;
    /// Sets this thread's capture mode; the one before, or -1 where no driver can be asked.
    int exchange_capture_mode(DeviceKind kind, int mode) noexcept;
    /// Makes what the first values of a device need. The device is in use.
    void prepare_ahead(DeviceId device) noexcept;
    /// Puts copies of `count` scalars under way, behind what is on the stream, with an event behind
    /// each eight. `out` receives pending values, or missing ones with the reason. False when the
    /// current context or the stream is not of the framework's context: nothing is done then, and
    /// the framework has to copy.
    bool send(DeviceId device, DriverHandle stream, const DeviceScalar* scalars, std::size_t count,
              SettledValue* out, TicketChain& chain) noexcept;
    /// Takes tickets for `count` values that a framework copies itself.
    void expect(std::size_t count, SettledValue* out, TicketChain& chain) noexcept;
    /// Delivers one of them; then, for all slots of a ticket, that they are there.
    void deliver(std::uint32_t slot, const SettledValue& value) noexcept;
    void delivered(std::uint32_t slot) noexcept;

    /// Records the begin of a block on a stream: a ticket, or kNoTicket with the reason in `missing`.
    std::uint16_t begin_block(DeviceId device, DriverHandle stream,
                              std::uint64_t& missing) noexcept;
    /// Records its end; the ticket is the chain of the block's record.
    void end_block(std::uint16_t ticket, DriverHandle stream) noexcept;

    /// The record was not accepted: its copies arrive for nobody.
    void abandon(const TicketChain& chain) noexcept;

    /// Whether take_kept() has something to give.
    bool has_kept() const noexcept { return kept_count_.load(std::memory_order_relaxed) != 0; }
    /// Takes the references of one ticket whose copies have ended, for the caller to drop; how many.
    std::size_t take_kept(void* (&references)[kSlotsPerTicket]) noexcept;

    /// True when most tickets are in use, so that the flush thread should look now.
    bool crowded() const noexcept {
        return in_use_.load(std::memory_order_relaxed) > kTickets / 4 * 3;
    }
    DeviceStats stats() const noexcept;

    /// The last fault that costs all values of a device, or the driver's own way to them; "" without.
    std::string fault() const;
    /// The same for whoever tells it: once.
    std::string take_notice();

  private:
    friend class DeviceReader;

    struct DeviceState {
        std::atomic<DriverHandle> context{nullptr};  // once it is known; never changes then
        int number = 0;                              // the driver's; written before the context
        std::atomic<int> broken{0};                  // the driver's error that does not go away
        TicketStack copies;                          // free tickets whose event is of this context
        TicketStack timings;
    };
    struct Driver {
        std::atomic<int> state{0};  // 0: not looked for, 1: ready, 2: absent
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
    std::atomic<std::byte*> pinned_{nullptr};  // eight bytes a slot
    std::unique_ptr<void*[]> keeps_;           // a slot's reference; made before `pinned_`
    std::unique_ptr<SettledValue[]>
        delivered_;  // a slot's value by a framework; made with the first
    std::atomic<bool> has_delivered_{false};
    Driver drivers_[2];  // by DeviceKind: cuda, rocm
    DeviceState devices_[2 * kMostDevices];
    TicketStack blank_;      // free tickets that lack an event: the driver made none
    TicketStack framework_;  // free tickets of frameworks' copies
    TicketStack late_;       // given up, and their copies not known to have ended
    TicketStack kept_;       // free but for what they keep
    std::atomic<std::uint32_t> kept_count_{0};
    std::atomic<std::uint32_t> late_count_{0};
    std::atomic<std::uint32_t> unused_{0};  // tickets from this number on were never taken
    std::atomic<std::uint32_t> in_use_{0};
    std::atomic<std::uint64_t> sent_{0};
    std::mutex setup_mutex_;
    mutable std::mutex fault_mutex_;  // behind `setup_mutex_`
    std::string fault_;
    std::string notice_;
    std::atomic<bool> has_notice_{false};
};

}  // namespace fastlog
