#include "device/device_reader.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "device/driver_scope.hpp"

namespace fastlog {

void DeviceReader::begin_round() noexcept {
    busy_.clear();
    if (DevicePool::in_forked_child()) return;  // late tickets are the parent's
    if (pool_.late_count_.load(std::memory_order_relaxed) != 0) collect_late();
}

bool DeviceReader::has_kept() const noexcept { return pool_.has_kept(); }

bool DeviceReader::is_busy(const Ticket& ticket) const noexcept {
    return std::any_of(busy_.begin(), busy_.end(), [&](const Stream& stream) {
        return stream.device == ticket.device && stream.handle == ticket.stream;
    });
}

void DeviceReader::note_busy(const Ticket& ticket) noexcept {
    if (busy_.size() < busy_.capacity() && !is_busy(ticket)) {
        busy_.push_back({ticket.device, ticket.stream});
    }
}

// The driver's answer for a ticket's event.
int DeviceReader::query(const Ticket& ticket) noexcept {
    const DriverApi& api = pool_.api_of(ticket);
    if (bool& relaxed = relaxed_[ticket.device / DevicePool::kMostDevices]; !relaxed) {
        int mode = DriverApi::kRelaxed;
        api.exchange_capture_mode(&mode);
        relaxed = true;
    }
    if (ticket.device != current_) {
        DriverHandle context =
            pool_.devices_[ticket.device].context.load(std::memory_order_relaxed);
        if (const int code = api.context_set_current(context); code != DriverApi::kSuccess) {
            return code;
        }
        current_ = ticket.device;
    }
    return api.event_query(ticket.event);
}

void DeviceReader::settle(Ticket& ticket) noexcept {
    if (DevicePool::in_forked_child()) {  // in a record that the parent had begun
        ticket.late = true;
        ticket.settle_missing(missing_bits(MissingReason::forked));
        return;
    }
    if (ticket.by_framework) {
        ticket.settled = ticket.arrived.load(std::memory_order_acquire);
        return;
    }
    const int broken = pool_.devices_[ticket.device].broken.load(std::memory_order_relaxed);
    if (broken != 0) {
        ticket.late = true;
        ticket.settle_missing(missing_bits(MissingReason::driver_error, broken));
        return;
    }
    if (is_busy(ticket)) return;
    int code = query(ticket);
    if (code == DriverApi::kSuccess && ticket.times && ticket.begin_stream != ticket.stream) {
        code = pool_.api_of(ticket).event_query(ticket.begin);
        if (code == DriverApi::kNotReady) return;  // the stream of its end is not busy
    }
    if (code == DriverApi::kSuccess) {
        ticket.settled = true;
    } else if (code == DriverApi::kNotReady || is_capture_error(code)) {
        note_busy(ticket);
    } else {
        pool_.note_broken(ticket.device, code);
        ticket.late = true;
        ticket.settle_missing(driver_error(code));
    }
}

DeviceValues::State DeviceReader::poll(std::uint16_t first) noexcept {
    State state = State::settled;
    for (std::uint16_t number = first; number != kNoTicket; number = pool_.tickets_[number].next) {
        Ticket& ticket = pool_.tickets_[number];
        if (!ticket.settled) settle(ticket);
        if (!ticket.settled) state = State::waiting;
    }
    return state;
}

std::int64_t DeviceReader::made_ns(std::uint16_t ticket) const noexcept {
    return pool_.tickets_[ticket].made_ns;
}

void DeviceReader::give_up(std::uint16_t first, MissingReason reason) noexcept {
    for (std::uint16_t number = first; number != kNoTicket; number = pool_.tickets_[number].next) {
        Ticket& ticket = pool_.tickets_[number];
        if (ticket.settled) continue;
        ticket.late = true;
        ticket.settle_missing(missing_bits(reason));
    }
}

SettledValue DeviceReader::value(PendingValue pending) const noexcept {
    const Ticket& ticket = pool_.tickets_[pending.slot / kSlotsPerTicket];
    SettledValue found;
    if (ticket.missing != 0) {
        found = {ValueTag::missing, ticket.missing - 1};
    } else if (ticket.by_framework) {
        found = pool_.delivered_[pending.slot];
    } else {
        return decode(static_cast<DType>(pending.dtype), pool_.pinned(pending.slot));
    }
    return found;
}

SettledValue DeviceReader::duration(std::uint16_t number) const noexcept {
    const Ticket& ticket = pool_.tickets_[number];
    if (ticket.missing != 0) return {ValueTag::missing, ticket.missing - 1};
    float ms = 0;
    const int code = pool_.api_of(ticket).event_elapsed_ms(&ms, ticket.begin, ticket.event);
    if (code != DriverApi::kSuccess) {
        return {ValueTag::missing, driver_error(code)};
    }
    if (ms < 0) return {ValueTag::missing, missing_bits(MissingReason::unordered)};
    // The driver's resolution is about half a microsecond: nanoseconds are precise enough.
    const double seconds = std::round(double{ms} * 1e6) / 1e9;
    SettledValue found{ValueTag::real, 0};
    static_assert(sizeof seconds == sizeof found.bits);
    std::memcpy(&found.bits, &seconds, sizeof seconds);
    return found;
}

void DeviceReader::release(std::uint16_t first) noexcept {
    for (std::uint16_t number = first; number != kNoTicket;) {
        const Ticket& ticket = pool_.tickets_[number];
        const std::uint16_t next = ticket.next;
        counts.settled.fetch_add(ticket.count, std::memory_order_relaxed);
        if (ticket.late && !ticket.times) {
            pool_.keep_late(number);
        } else {
            pool_.give_back(number);
        }
        number = next;
    }
}

// Collects abandoned tickets once their copies are complete. Tickets of a broken device stay: nothing says
// that it has stopped writing. The oldest, which is lowest in the stack, is checked first, so a stream of new
// ones cannot starve it. Records that are waited for are checked before: they may be older than an abandoned
// copy.
void DeviceReader::collect_late() noexcept {
    TicketStack oldest_first;
    for (;;) {
        const std::uint16_t number = pool_.late_.pop(pool_.tickets_.get());
        if (number == kNoTicket) break;
        oldest_first.push(pool_.tickets_.get(), number);
    }
    for (;;) {
        const std::uint16_t number = oldest_first.pop(pool_.tickets_.get());
        if (number == kNoTicket) break;
        Ticket& ticket = pool_.tickets_[number];
        bool ended;
        if (ticket.by_framework) {
            ended = ticket.arrived.load(std::memory_order_acquire);
        } else {
            ended = ticket.lost || (!is_busy(ticket) && query(ticket) == DriverApi::kSuccess);
            if (!ended) note_busy(ticket);
        }
        if (ended) {
            pool_.late_count_.fetch_sub(1, std::memory_order_relaxed);
            pool_.give_back(number);
        } else {
            pool_.late_.push(pool_.tickets_.get(), number);
        }
    }
    busy_.clear();
}

}  // namespace fastlog
