// Driver state that a thread changes while it works for us, and restores afterwards.
#pragma once

#include "core/record.hpp"
#include "device/driver.hpp"

namespace fastlog {

/// Why a value is missing: the driver's error, or a capture, which is not a device error.
constexpr std::uint64_t driver_error(int code) noexcept {
    if (is_capture_error(code)) return missing_bits(MissingReason::capture);
    return missing_bits(MissingReason::driver_error, static_cast<std::uint32_t>(code));
}

/// The driver's answer; a stream being captured is reported as an error like the other capture errors.
inline int ask_capturing(const DriverApi& api, DriverHandle stream) noexcept {
    int status = DriverApi::kNotCapturing;
    const int code = api.stream_is_capturing(stream, &status);
    const bool capturing = code == DriverApi::kSuccess && status != DriverApi::kNotCapturing;
    return capturing ? DriverApi::kFirstCaptureError : code;
}

/// Makes a device's primary context, which the framework uses, current on this thread. It nearly always is
/// already.
class CurrentContext {
  public:
    static constexpr int kAnyDevice = -1;

    /// With a `device` (the driver's number), someone else's context on that device stays current: see
    /// foreign().
    CurrentContext(const DriverApi& api, DriverHandle wanted, int device) noexcept : api_(api) {
        error_ = api.context_get_current(&before_);
        if (error_ != DriverApi::kSuccess || before_ == wanted) return;
        if (before_ != nullptr && device != kAnyDevice) {
            int current = kAnyDevice;
            error_ = api.context_get_device(&current);
            foreign_ = error_ == DriverApi::kSuccess && current == device;
            if (error_ != DriverApi::kSuccess || foreign_) return;
        }
        error_ = api.context_set_current(wanted);
        changed_ = error_ == DriverApi::kSuccess;
    }
    ~CurrentContext() {
        if (changed_) api_.context_set_current(before_);
    }
    CurrentContext(const CurrentContext&) = delete;
    CurrentContext& operator=(const CurrentContext&) = delete;
    int error() const noexcept { return error_; }
    /// True in a green context or another library's context on the same device: its streams, above all the
    /// null stream, are not those of the primary context, and our events do not belong to it.
    bool foreign() const noexcept { return foreign_; }

  private:
    const DriverApi& api_;
    DriverHandle before_ = nullptr;
    int error_ = DriverApi::kSuccess;
    bool changed_ = false;
    bool foreign_ = false;
};

/// While in scope, no call of this thread ends a graph capture in another thread. For calls that allocate,
/// free or query events; copies into pinned memory and event records are allowed in any mode.
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

}  // namespace fastlog
