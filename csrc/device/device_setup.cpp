// What the pool needs before the first value: driver, context and pinned memory; and what fork() invalidates.
#include <pthread.h>

#include <new>
#include <utility>

#include "device/device_pool.hpp"
#include "device/driver_scope.hpp"

namespace fastlog {
namespace {

// For the process. A child may use the driver if none of its ancestors did: fork() copies no context.
std::atomic<bool> used{false};   // a driver has been searched for, or a slot taken
std::atomic<bool> child{false};  // of some fork
std::atomic<bool> forked{false};

void note_fork() noexcept {
    child.store(true, std::memory_order_relaxed);
    if (used.load(std::memory_order_relaxed)) forked.store(true, std::memory_order_relaxed);
}

std::atomic<DevicePool*> process_pool{nullptr};

std::string no_driver(DeviceKind kind, const std::string& reason) {
    return std::string("foundry_fastlog cannot use the driver of ") +
           (kind == DeviceKind::rocm ? "ROCm" : "CUDA") + ": " + reason +
           ". Values on GPUs are copied by their framework, and blocks have no device time "
           "(backend_error).";
}

}  // namespace

void DevicePool::watch_forks() noexcept {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    ::pthread_once(&once, [] { ::pthread_atfork(nullptr, nullptr, note_fork); });
}

bool DevicePool::in_forked_child() noexcept { return forked.load(std::memory_order_relaxed); }

DevicePool::DevicePool() : tickets_(new Ticket[kTickets]) { watch_forks(); }

// Without a lock, which another thread might hold during a fork.
DevicePool& DevicePool::instance() {
    DevicePool* pool = process_pool.load(std::memory_order_acquire);
    if (pool != nullptr) [[likely]]
        return *pool;
    auto made = std::make_unique<DevicePool>();
    if (process_pool.compare_exchange_strong(pool, made.get(), std::memory_order_acq_rel,
                                             std::memory_order_acquire)) {
        pool = made.release();
    }
    return *pool;
}

DevicePool* DevicePool::existing() noexcept { return process_pool.load(std::memory_order_acquire); }

void DevicePool::note_use() noexcept { used.store(true, std::memory_order_relaxed); }

bool DevicePool::has_driver(DeviceKind kind) noexcept {
    if (kind != DeviceKind::cuda && kind != DeviceKind::rocm) return false;
    Driver& driver = drivers_[static_cast<std::size_t>(kind)];
    const int known = driver.state.load(std::memory_order_acquire);
    if (known != 0) [[likely]]
        return known == 1;
    if (in_forked_child()) return true;  // send() reports what is wrong
    note_use();
    const std::lock_guard lock(setup_mutex_);
    if (driver.state.load(std::memory_order_relaxed) == 0) {
        bool found = false;
        try {
            std::string reason;
            found = driver.api.load(kind, reason);
            if (!found) note_fault(no_driver(kind, reason));
        } catch (const std::bad_alloc&) {
            return false;  // searched again next time
        }
        driver.state.store(found ? 1 : 2, std::memory_order_release);
    }
    return driver.state.load(std::memory_order_relaxed) == 1;
}

void DevicePool::note_fault(std::string text) {
    const std::lock_guard lock(fault_mutex_);
    notice_ += notice_.empty() ? text : " " + text;
    fault_ = std::move(text);
    has_notice_.store(true, std::memory_order_release);
}

std::string DevicePool::fault() const {
    if (in_forked_child()) return {};  // its lock may be held forever
    const std::lock_guard lock(fault_mutex_);
    return fault_;
}

std::string DevicePool::take_notice() {
    if (!has_notice_.load(std::memory_order_acquire) || in_forked_child()) return {};
    const std::lock_guard lock(fault_mutex_);
    has_notice_.store(false, std::memory_order_relaxed);
    return std::exchange(notice_, {});
}

// A context's error is permanent: no further value of this device will arrive.
void DevicePool::note_broken(std::uint8_t device, int code) noexcept {
    int none = 0;
    if (!devices_[device].broken.compare_exchange_strong(none, code, std::memory_order_relaxed)) {
        return;  // another recorder's thread was first
    }
    try {
        const std::string number = std::to_string(code);
        note_fault("foundry_fastlog lost cuda:" + std::to_string(device % kMostDevices) +
                   ": its driver reports error " + number +
                   ". Until the process ends, values and blocks on it are missing " +
                   "(driver_error_" + number + "); CPU values are recorded as before.");
    } catch (const std::bad_alloc&) {
        // The lines also say so.
    }
}

// What is needed to use a device, or null with the reason.
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

// The framework works in the device's primary context. It exists, because the value's memory belongs to it. A
// context that does not exist is not created.
std::uint64_t DevicePool::prepare(DeviceId device, DeviceState& state) noexcept {
    const std::lock_guard lock(setup_mutex_);
    if (state.context.load(std::memory_order_relaxed) != nullptr) return 0;
    const DriverApi& api = api_of(device.kind);
    const RelaxedCapture relaxed(api);
    unsigned flags = 0;
    int active = 0;
    DriverHandle context = nullptr;
    int code = api.device_get(&state.number, device.index);
    if (code == DriverApi::kNotInitialized && child.load(std::memory_order_relaxed)) {
        // The parent had begun to use the driver, for the values that this child inherited.
        forked.store(true, std::memory_order_relaxed);
        return missing_bits(MissingReason::forked);
    }
    if (code == DriverApi::kSuccess) {
        code = api.primary_context_state(state.number, &flags, &active);
    }
    if (code == DriverApi::kSuccess && active == 0) code = DriverApi::kInvalidContext;
    if (code == DriverApi::kSuccess) code = api.primary_context_retain(&context, state.number);
    if (code == DriverApi::kSuccess && pinned_.load(std::memory_order_relaxed) == nullptr) {
        return allocate(api, context, state);
    }
    if (code != DriverApi::kSuccess) return driver_error(code);
    state.context.store(context, std::memory_order_release);
    return 0;
}

// The slots, in the primary context: someone else's context would take them along when it is destroyed.
std::uint64_t DevicePool::allocate(const DriverApi& api, DriverHandle context,
                                   DeviceState& state) noexcept {
    constexpr std::size_t kSlots = std::size_t{kTickets} * kSlotsPerTicket;
    if (keeps_ == nullptr) keeps_.reset(new (std::nothrow) void*[kSlots]());
    if (keeps_ == nullptr) return missing_bits(MissingReason::no_slot);
    const CurrentContext current(api, context, CurrentContext::kAnyDevice);
    void* memory = nullptr;
    int code = current.error();
    if (code == DriverApi::kSuccess) {
        code = api.host_alloc(&memory, kSlots * sizeof(std::uint64_t), DriverApi::kPortable);
    }
    if (code != DriverApi::kSuccess) return driver_error(code);
    pinned_.store(static_cast<std::byte*>(memory), std::memory_order_release);
    state.context.store(context, std::memory_order_release);
    return 0;
}

void DevicePool::prepare_ahead(DeviceId device) noexcept {
    std::uint64_t missing = 0;
    DeviceState* state = ready(device, missing);
    if (state == nullptr) return;
    const DriverApi& api = api_of(device.kind);
    const CurrentContext current(api, state->context.load(std::memory_order_relaxed),
                                 CurrentContext::kAnyDevice);
    if (current.error() != DriverApi::kSuccess) return;
    std::uint16_t made[kAhead];
    std::size_t count = 0;
    while (count < kAhead) {
        made[count] = take_for(device, *state, false, missing);
        if (made[count] == kNoTicket) break;
        ++count;
    }
    while (count != 0) give_back(made[--count]);
}

int DevicePool::exchange_capture_mode(DeviceKind kind, int mode) noexcept {
    if (!has_driver(kind) || in_forked_child()) return -1;
    return api_of(kind).exchange_capture_mode(&mode) == DriverApi::kSuccess ? mode : -1;
}

int DevicePool::capture_error(DeviceId device, DriverHandle stream) noexcept {
    std::uint64_t missing = 0;
    DeviceState* state = ready(device, missing);
    if (state == nullptr) return 0;
    const DriverApi& api = api_of(device.kind);
    const CurrentContext current(api, state->context.load(std::memory_order_relaxed),
                                 state->number);
    if (current.error() != DriverApi::kSuccess) return 0;
    const int code = ask_capturing(api, stream);
    return is_capture_error(code) ? code : 0;
}

}  // namespace fastlog
