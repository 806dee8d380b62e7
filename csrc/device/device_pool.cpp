#include "device/device_pool.hpp"

#include <algorithm>
#include <new>

#include "core/clock.hpp"
#include "device/driver_scope.hpp"

namespace fastlog {

std::uint16_t DevicePool::take_unused() noexcept {
    std::uint32_t number = unused_.load(std::memory_order_relaxed);
    do {
        if (number == kTickets) return kNoTicket;
    } while (!unused_.compare_exchange_weak(number, number + 1, std::memory_order_relaxed));
    return static_cast<std::uint16_t>(number);
}

// A ticket that was never used, or a free one of another device or use, whose events are destroyed here: a
// device that once had all tickets in flight does not deprive the others forever.
std::uint16_t DevicePool::take_new() noexcept {
    std::uint16_t number = blank_.pop(tickets_.get());
    if (number == kNoTicket) number = take_unused();
    if (number == kNoTicket) number = framework_.pop(tickets_.get());
    for (DeviceState& state : devices_) {
        if (number != kNoTicket) break;
        number = state.copies.pop(tickets_.get());
        if (number == kNoTicket) number = state.timings.pop(tickets_.get());
    }
    if (number == kNoTicket) return kNoTicket;
    Ticket& ticket = tickets_[number];
    for (DriverHandle* event : {&ticket.event, &ticket.begin}) {
        if (*event == nullptr) continue;
        const RelaxedCapture relaxed(api_of(ticket));
        api_of(ticket).event_destroy(*event);
        *event = nullptr;
    }
    ticket.stream = nullptr;
    ticket.by_framework = ticket.times = false;
    return number;
}

// A free ticket of this device, whose context is current. Its events are created at its first use and stay
// with it.
std::uint16_t DevicePool::take_for(DeviceId device, DeviceState& state, bool times,
                                   std::uint64_t& missing) noexcept {
    TicketStack& free = times ? state.timings : state.copies;
    std::uint16_t number = free.pop(tickets_.get());
    if (number == kNoTicket) {
        number = take_new();
        if (number == kNoTicket) {
            missing = missing_bits(MissingReason::no_slot);
            return kNoTicket;
        }
        Ticket& ticket = tickets_[number];
        ticket.device = state_index(device);
        ticket.times = times;
        const DriverApi& api = api_of(device.kind);
        const RelaxedCapture relaxed(api);
        int code = api.event_create(&ticket.event, times ? 0 : DriverApi::kDisableTiming);
        if (code == DriverApi::kSuccess && times) code = api.event_create(&ticket.begin, 0);
        if (code != DriverApi::kSuccess) {
            blank_.push(tickets_.get(), number);
            missing = driver_error(code);
            return kNoTicket;
        }
    }
    tickets_[number].open(monotonic_ns());
    in_use_.fetch_add(1, std::memory_order_relaxed);
    return number;
}

void DevicePool::link(TicketChain& chain, std::uint16_t number) noexcept {
    if (chain.last == kNoTicket) {
        chain.first = number;
    } else {
        tickets_[chain.last].next = number;
    }
    chain.last = number;
}

bool DevicePool::send(DeviceId device, DriverHandle stream, const DeviceScalar* scalars,
                      std::size_t count, SettledValue* out, TicketChain& chain) noexcept {
    std::uint64_t missing = 0;
    const auto give_up = [&](std::size_t from, std::size_t to) {
        std::fill(out + from, out + to, SettledValue{ValueTag::missing, missing});
        return true;
    };
    DeviceState* state = ready(device, missing);
    if (state == nullptr) return give_up(0, count);
    const DriverApi& api = api_of(device.kind);
    const CurrentContext current(api, state->context.load(std::memory_order_relaxed),
                                 state->number);
    if (current.foreign()) return false;
    if (current.error() != DriverApi::kSuccess) {
        missing = driver_error(current.error());
        return give_up(0, count);
    }
    for (std::size_t at = 0; at < count; at += kSlotsPerTicket) {
        const std::size_t n = std::min<std::size_t>(kSlotsPerTicket, count - at);
        const std::uint16_t number = take_for(device, *state, false, missing);
        if (number == kNoTicket) return give_up(at, count);
        Ticket& ticket = tickets_[number];
        // Check that the stream accepts our events before anything is copied: the end of a copy without an
        // event after it would never be known. The null stream belongs to the context, and a stream that
        // accepted this ticket's event before does so again. Streams are compared by handle, so a reused
        // handle counts as known.
        if (at == 0 && stream != nullptr && stream != ticket.stream) {
            const int code = api.event_record(ticket.event, stream);
            if (code != DriverApi::kSuccess) {
                give_back(number);
                if (code == DriverApi::kInvalidHandle) return false;
                missing = driver_error(code);
                return give_up(0, count);
            }
        }
        ticket.stream = stream;
        ticket.count = 0;
        for (std::size_t i = at; i < at + n; ++i) {
            const DeviceScalar& scalar = scalars[i];
            const auto slot = static_cast<std::uint32_t>(number * kSlotsPerTicket + (i - at));
            const int code =
                api.copy_to_host_async(pinned(slot), scalar.address, size_of(scalar.dtype), stream);
            if (code == DriverApi::kSuccess) {
                ++ticket.count;
                keeps_[slot] = scalar.keep;
                ticket.keeps |= scalar.keep != nullptr;
                out[i] = {ValueTag::pending,
                          PendingValue{slot, static_cast<std::uint8_t>(scalar.dtype)}.bits()};
            } else {
                missing = driver_error(code);
                give_up(i, i + 1);
            }
        }
        sent_.fetch_add(n, std::memory_order_relaxed);
        if (ticket.count == 0) {  // such as on a broken device
            give_back(number);
            continue;
        }
        link(chain, number);
        const int code = api.event_record(ticket.event, stream);
        if (code != DriverApi::kSuccess) {
            // Nothing will report the end of the copies: the ticket is not used again.
            ticket.settle_missing(driver_error(code));
            ticket.lost = true;
        }
    }
    return true;
}

void DevicePool::expect(std::size_t count, SettledValue* out, TicketChain& chain) noexcept {
    const auto give_up = [&](std::size_t from, MissingReason reason) {
        std::fill(out + from, out + count, SettledValue{ValueTag::missing, missing_bits(reason)});
    };
    if (in_forked_child()) return give_up(0, MissingReason::forked);
    note_use();
    if (!has_delivered_.load(std::memory_order_acquire)) {
        const std::lock_guard lock(setup_mutex_);
        if (!has_delivered_.load(std::memory_order_relaxed)) {
            delivered_.reset(new (std::nothrow) SettledValue[kTickets * kSlotsPerTicket]);
            if (delivered_ == nullptr) return give_up(0, MissingReason::no_slot);
            has_delivered_.store(true, std::memory_order_release);
        }
    }
    for (std::size_t at = 0; at < count; at += kSlotsPerTicket) {
        std::uint16_t number = framework_.pop(tickets_.get());
        if (number == kNoTicket) number = take_new();
        if (number == kNoTicket) return give_up(at, MissingReason::no_slot);
        Ticket& ticket = tickets_[number];
        ticket.by_framework = true;
        ticket.open(monotonic_ns());
        in_use_.fetch_add(1, std::memory_order_relaxed);
        link(chain, number);
        const std::size_t n = std::min<std::size_t>(kSlotsPerTicket, count - at);
        ticket.count = static_cast<std::uint8_t>(n);
        for (std::size_t i = 0; i < n; ++i) {
            const auto slot = static_cast<std::uint32_t>(number * kSlotsPerTicket + i);
            delivered_[slot] = {ValueTag::missing, missing_bits(MissingReason::backend_error)};
            out[at + i] = {ValueTag::pending,
                           PendingValue{slot, static_cast<std::uint8_t>(DType::none)}.bits()};
        }
        sent_.fetch_add(n, std::memory_order_relaxed);
    }
}

void DevicePool::deliver(std::uint32_t slot, const SettledValue& value) noexcept {
    delivered_[slot] = value;
}

void DevicePool::delivered(std::uint32_t slot) noexcept {
    tickets_[slot / kSlotsPerTicket].arrived.store(true, std::memory_order_release);
}

void DevicePool::abandon(const TicketChain& chain) noexcept {
    for (std::uint16_t number = chain.first; number != kNoTicket;) {
        const std::uint16_t next = tickets_[number].next;
        if (tickets_[number].times) {
            give_back(number);  // no copy is in flight
        } else {
            keep_late(number);
        }
        number = next;
    }
}

void DevicePool::give_back(std::uint16_t number) noexcept {
    Ticket& ticket = tickets_[number];
    in_use_.fetch_sub(1, std::memory_order_relaxed);
    if (ticket.lost) return;
    if (ticket.keeps) {
        kept_count_.fetch_add(1, std::memory_order_relaxed);
        kept_.push(tickets_.get(), number);
        return;
    }
    push_free(number);
}

void DevicePool::push_free(std::uint16_t number) noexcept {
    Ticket& ticket = tickets_[number];
    if (ticket.by_framework) {
        framework_.push(tickets_.get(), number);
        return;
    }
    DeviceState& state = devices_[ticket.device];
    (ticket.times ? state.timings : state.copies).push(tickets_.get(), number);
}

std::size_t DevicePool::take_kept(void* (&references)[kSlotsPerTicket]) noexcept {
    if (in_forked_child()) return 0;  // they are the parent's
    const std::uint16_t number = kept_.pop(tickets_.get());
    if (number == kNoTicket) return 0;
    kept_count_.fetch_sub(1, std::memory_order_relaxed);
    std::size_t count = 0;
    for (std::uint32_t i = 0; i < kSlotsPerTicket; ++i) {
        void*& keep = keeps_[number * kSlotsPerTicket + i];
        if (keep != nullptr) references[count++] = keep;
        keep = nullptr;
    }
    tickets_[number].keeps = false;
    push_free(number);
    return count;
}

void DevicePool::keep_late(std::uint16_t number) noexcept {
    late_count_.fetch_add(1, std::memory_order_relaxed);
    late_.push(tickets_.get(), number);
}

DeviceStats DevicePool::stats() const noexcept {
    return {sent_.load(std::memory_order_relaxed), in_use_.load(std::memory_order_relaxed)};
}

}  // namespace fastlog
