// Blocks timed on a device: one event at the begin and one at the end.
#include "core/clock.hpp"
#include "device/device_pool.hpp"
#include "device/driver_scope.hpp"

namespace fastlog {
namespace {

// A stream of someone else's context does not accept our events.
std::uint64_t record_error(int code) noexcept {
    return code == DriverApi::kInvalidHandle ? missing_bits(MissingReason::other_context)
                                             : driver_error(code);
}

}  // namespace

std::uint16_t DevicePool::begin_block(DeviceId device, DriverHandle stream,
                                      std::uint64_t& missing) noexcept {
    DeviceState* state = ready(device, missing);
    if (state == nullptr) return kNoTicket;
    const DriverApi& api = api_of(device.kind);
    const CurrentContext current(api, state->context.load(std::memory_order_relaxed),
                                 state->number);
    if (current.error() != DriverApi::kSuccess || current.foreign()) {
        missing = current.foreign() ? missing_bits(MissingReason::other_context)
                                    : driver_error(current.error());
        return kNoTicket;
    }
    const std::uint16_t number = take_for(device, *state, true, missing);
    if (number == kNoTicket) return kNoTicket;
    Ticket& ticket = tickets_[number];
    ticket.begin_stream = stream;
    ticket.count = 1;
    const int code = api.event_record(ticket.begin, stream);
    if (code != DriverApi::kSuccess) {
        missing = record_error(code);
        give_back(number);
        return kNoTicket;
    }
    sent_.fetch_add(1, std::memory_order_relaxed);
    return number;
}

void DevicePool::end_block(std::uint16_t number, DriverHandle stream) noexcept {
    Ticket& ticket = tickets_[number];
    if (in_forked_child()) return ticket.settle_missing(missing_bits(MissingReason::forked));
    ticket.stream = stream;
    ticket.made_ns = monotonic_ns();
    const DeviceState& state = devices_[ticket.device];
    const DriverApi& api = api_of(ticket);
    const CurrentContext current(api, state.context.load(std::memory_order_relaxed), state.number);
    if (current.foreign()) {
        return ticket.settle_missing(missing_bits(MissingReason::other_context));
    }
    int code = current.error();
    if (code == DriverApi::kSuccess) code = ask_capturing(api, stream);
    if (code == DriverApi::kSuccess) code = api.event_record(ticket.event, stream);
    if (code != DriverApi::kSuccess) ticket.settle_missing(record_error(code));
}

}  // namespace fastlog
