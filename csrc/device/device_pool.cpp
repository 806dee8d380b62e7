#include "device/device_pool.hpp"

#include <pthread.h>

#include <algorithm>
#include <new>

#include "core/clock.hpp"

namespace fastlog {
namespace {

std::atomic<bool> forked{false};

void watch_forks() {
    static std::once_flag once;
    std::call_once(once, [] {
        ::pthread_atfork(nullptr, nullptr, [] { forked.store(true, std::memory_order_relaxed); });
    });
}

constexpr std::uint64_t driver_error(int code) noexcept {
    return missing_bits(MissingReason::driver_error, static_cast<std::uint32_t>(code));
}

// Makes a context current on this thread for its life time. The framework's own is nearly always so.
class CurrentContext {
  public:
    CurrentContext(const DriverApi& api, DriverHandle wanted) noexcept : api_(api) {
        error_ = api.context_get_current(&before_);
        if (error_ != DriverApi::kSuccess || before_ == wanted) return;
        error_ = api.context_set_current(wanted);
        changed_ = error_ == DriverApi::kSuccess;
    }
    ~CurrentContext() {
        if (changed_) api_.context_set_current(before_);
    }
    CurrentContext(const CurrentContext&) = delete;
    CurrentContext& operator=(const CurrentContext&) = delete;
    int error() const noexcept { return error_; }

  private:
    const DriverApi& api_;
    DriverHandle before_ = nullptr;
    int error_ = DriverApi::kSuccess;
    bool changed_ = false;
};

// The driver's answer, with a stream that is being captured as an error like the others of captures.
int ask_capturing(const DriverApi& api, DriverHandle stream) noexcept {
    int status = DriverApi::kNotCapturing;
    const int code = api.stream_is_capturing(stream, &status);
    const bool capturing = code == DriverApi::kSuccess && status != DriverApi::kNotCapturing;
    return capturing ? DriverApi::kFirstCaptureError : code;
}

// Calls that allocate must not end a capture that goes on in another thread.
class RelaxedCapture {
  public:
    explicit RelaxedCapture(const DriverApi& api) noexcept : api_(api) {
        api_.exchange_capture_mode(&mode_);
    }
    ~RelaxedCapture() { api_.exchange_capture_mode(&mode_); }
    RelaxedCapture(const RelaxedCapture&) = delete;
    RelaxedCapture& operator=(const RelaxedCapture&) = delete;

  private:
    const DriverApi& api_;
    int mode_ = DriverApi::kRelaxed;
};

}  // namespace

DevicePool::DevicePool() : tickets_(new Ticket[kTickets]) { watch_forks(); }

DevicePool& DevicePool::instance() {
    static auto* pool = new DevicePool;
    return *pool;
}

bool DevicePool::in_forked_child() noexcept { return forked.load(std::memory_order_relaxed); }

bool DevicePool::has_driver(DeviceKind kind) noexcept {
    if (kind != DeviceKind::cuda && kind != DeviceKind::rocm) return false;
    Driver& driver = drivers_[static_cast<std::size_t>(kind)];
    const int known = driver.state.load(std::memory_order_acquire);
    if (known != 0) [[likely]]
        return known == 1;
    if (in_forked_child()) return true;  // send() says what is wrong
    const std::lock_guard lock(setup_mutex_);
    if (driver.state.load(std::memory_order_relaxed) == 0) {
        bool found = false;
        try {
            std::string reason;
            found = driver.api.load(kind, reason);
        } catch (const std::bad_alloc&) {
            return false;  // looked for again next time
        }
        driver.state.store(found ? 1 : 2, std::memory_order_release);
    }
    return driver.state.load(std::memory_order_relaxed) == 1;
}

// What a device can be used with, or null with the reason.
DevicePool::DeviceState* DevicePool::ready(DeviceId device, std::uint64_t& missing) noexcept {
    if (in_forked_child()) {
        missing = missing_bits(MissingReason::forked);
        return nullptr;
    }
    if (device.index < 0 || device.index >= kMostDevices || !has_driver(device.kind)) {
        missing = missing_bits(MissingReason::backend_error);
        return nullptr;
    }
    DeviceState& state = devices_[state_index(device)];
    if (const int code = state.broken.load(std::memory_order_relaxed); code != 0) {
        missing = driver_error(code);
        return nullptr;
    }
    if (state.context.load(std::memory_order_acquire) == nullptr) [[unlikely]] {
        missing = prepare(device, state);
        if (missing != 0) return nullptr;
    }
    return &state;
}

// The context that the framework works in is the device's primary one. It is there: the value's memory
// is part of it. One that is not there yet is not made.
std::uint64_t DevicePool::prepare(DeviceId device, DeviceState& state) noexcept {
    const std::lock_guard lock(setup_mutex_);
    if (state.context.load(std::memory_order_relaxed) != nullptr) return 0;
    const DriverApi& api = api_of(device.kind);
    int handle = 0;
    unsigned flags = 0;
    int active = 0;
    DriverHandle context = nullptr;
    int code = api.device_get(&handle, device.index);
    if (code == DriverApi::kSuccess) code = api.primary_context_state(handle, &flags, &active);
    if (code == DriverApi::kSuccess && active == 0) code = DriverApi::kInvalidContext;
    if (code == DriverApi::kSuccess) code = api.primary_context_retain(&context, handle);
    if (code != DriverApi::kSuccess) return driver_error(code);
    if (pinned_.load(std::memory_order_relaxed) == nullptr) {
        const CurrentContext current(api, context);
        const RelaxedCapture relaxed(api);
        void* memory = nullptr;
        code = current.error();
        if (code == DriverApi::kSuccess) {
            code = api.host_alloc(&memory, kTickets * kSlotsPerTicket * sizeof(std::uint64_t),
                                  DriverApi::kPortable);
        }
        if (code != DriverApi::kSuccess) return driver_error(code);
        pinned_.store(static_cast<std::byte*>(memory), std::memory_order_release);
    }
    state.context.store(context, std::memory_order_release);
    return 0;
}

int DevicePool::capture_error(DeviceId device, DriverHandle stream) noexcept {
    std::uint64_t missing = 0;
    DeviceState* state = ready(device, missing);
    if (state == nullptr) return 0;
    const DriverApi& api = api_of(device.kind);
    const CurrentContext current(api, state->context.load(std::memory_order_relaxed));
    if (current.error() != DriverApi::kSuccess) return 0;
    const int code = ask_capturing(api, stream);
    return is_capture_error(code) ? code : 0;
}

std::uint16_t DevicePool::take_unused() noexcept {
    std::uint32_t number = unused_.load(std::memory_order_relaxed);
    do {
        if (number == kTickets) return kNoTicket;
    } while (!unused_.compare_exchange_weak(number, number + 1, std::memory_order_relaxed));
    return static_cast<std::uint16_t>(number);
}

// One that was never used, or a free one of another device or use, whose events end here: whoever had
// all tickets on their way once does not keep the others from theirs for ever.
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
        if (*event != nullptr) api_of(ticket).event_destroy(*event);
        *event = nullptr;
    }
    ticket.by_framework = ticket.times = false;
    return number;
}

// A free ticket of this device. Its events are made with its first use and stay with it.
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

void DevicePool::send(DeviceId device, DriverHandle stream, const DeviceScalar* scalars,
                      std::size_t count, SettledValue* out, TicketChain& chain) noexcept {
    std::uint64_t missing = 0;
    const auto give_up = [&](std::size_t from, std::size_t to) {
        std::fill(out + from, out + to, SettledValue{ValueTag::missing, missing});
        missing_.fetch_add(to - from, std::memory_order_relaxed);
    };
    DeviceState* state = ready(device, missing);
    if (state == nullptr) return give_up(0, count);
    const DriverApi& api = api_of(device.kind);
    const CurrentContext current(api, state->context.load(std::memory_order_relaxed));
    if (current.error() != DriverApi::kSuccess) {
        missing = driver_error(current.error());
        return give_up(0, count);
    }
    for (std::size_t at = 0; at < count; at += kSlotsPerTicket) {
        const std::size_t n = std::min<std::size_t>(kSlotsPerTicket, count - at);
        const std::uint16_t number = take_for(device, *state, false, missing);
        if (number == kNoTicket) return give_up(at, count);
        Ticket& ticket = tickets_[number];
        ticket.stream = stream;
        ticket.count = 0;
        for (std::size_t i = at; i < at + n; ++i) {
            const DeviceScalar& scalar = scalars[i];
            const auto slot = static_cast<std::uint32_t>(number * kSlotsPerTicket + (i - at));
            const int code =
                api.copy_to_host_async(pinned(slot), scalar.address, size_of(scalar.dtype), stream);
            if (code == DriverApi::kSuccess) {
                ++ticket.count;
                out[i] = {ValueTag::pending,
                          PendingValue{slot, static_cast<std::uint8_t>(scalar.dtype)}.bits()};
            } else {
                missing = driver_error(code);
                give_up(i, i + 1);
            }
        }
        sent_.fetch_add(n, std::memory_order_relaxed);
        if (ticket.count == 0) {  // as of a device that is broken
            give_back(number);
            continue;
        }
        link(chain, number);
        const int code = api.event_record(ticket.event, stream);
        if (code != DriverApi::kSuccess) {
            // Nothing will tell when the copies have ended: the ticket is not used again.
            ticket.settle_missing(driver_error(code));
            ticket.lost = true;
        }
    }
}

void DevicePool::expect(std::size_t count, SettledValue* out, TicketChain& chain) noexcept {
    const auto give_up = [&](std::size_t from, MissingReason reason) {
        std::fill(out + from, out + count, SettledValue{ValueTag::missing, missing_bits(reason)});
        missing_.fetch_add(count - from, std::memory_order_relaxed);
    };
    if (in_forked_child()) return give_up(0, MissingReason::forked);
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

std::uint16_t DevicePool::begin_block(DeviceId device, DriverHandle stream,
                                      std::uint64_t& missing) noexcept {
    DeviceState* state = ready(device, missing);
    if (state == nullptr) return kNoTicket;
    const DriverApi& api = api_of(device.kind);
    const CurrentContext current(api, state->context.load(std::memory_order_relaxed));
    if (current.error() != DriverApi::kSuccess) {
        missing = driver_error(current.error());
        return kNoTicket;
    }
    const std::uint16_t number = take_for(device, *state, true, missing);
    if (number == kNoTicket) return kNoTicket;
    Ticket& ticket = tickets_[number];
    ticket.stream = stream;
    ticket.count = 1;
    const int code = api.event_record(ticket.begin, stream);
    if (code != DriverApi::kSuccess) {
        missing = driver_error(code);
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
    const CurrentContext current(api, state.context.load(std::memory_order_relaxed));
    int code = current.error();
    if (code == DriverApi::kSuccess) code = ask_capturing(api, stream);
    if (code == DriverApi::kSuccess) code = api.event_record(ticket.event, stream);
    if (code != DriverApi::kSuccess) ticket.settle_missing(driver_error(code));
}

void DevicePool::abandon(const TicketChain& chain) noexcept {
    for (std::uint16_t number = chain.first; number != kNoTicket;) {
        const std::uint16_t next = tickets_[number].next;
        if (tickets_[number].times) {
            give_back(number);  // no copy is under way
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
    if (ticket.by_framework) {
        framework_.push(tickets_.get(), number);
        return;
    }
    DeviceState& state = devices_[ticket.device];
    (ticket.times ? state.timings : state.copies).push(tickets_.get(), number);
}

void DevicePool::keep_late(std::uint16_t number) noexcept {
    late_count_.fetch_add(1, std::memory_order_relaxed);
    late_.push(tickets_.get(), number);
}

DeviceStats DevicePool::stats() const noexcept {
    return {sent_.load(std::memory_order_relaxed), in_use_.load(std::memory_order_relaxed),
            missing_.load(std::memory_order_relaxed)};
}

}  // namespace fastlog
