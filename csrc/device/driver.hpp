// The driver API of CUDA, or of HIP for ROCm, found in this process at run time: one wheel for all, linked
// against neither.
//
// Both have the same functions under different names; the table in driver.cpp pairs them. The functions used
// here have the same parameters and results in both (cuda.h and hip_runtime_api.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "core/record.hpp"

namespace fastlog {

/// A context, stream or event. The null stream is the legacy default stream of the current context.
using DriverHandle = void*;

struct DriverApi {
    static constexpr int kSuccess = 0;
    static constexpr int kNotInitialized = 3;
    static constexpr int kInvalidContext = 201;
    static constexpr int kInvalidHandle = 400;
    static constexpr int kNotReady = 600;
    static constexpr int kFirstCaptureError = 900;  // "stream capture ...", up to the last one
    static constexpr int kLastCaptureError = 908;
    static constexpr unsigned kPortable = 1;       // host memory for all contexts
    static constexpr unsigned kDisableTiming = 2;  // an event that only signals completion
    static constexpr int kRelaxed = 2;             // a capture mode
    static constexpr int kNotCapturing = 0;

    int (*device_get)(int* device, int ordinal);
    int (*primary_context_state)(int device, unsigned* flags, int* active);
    int (*primary_context_retain)(DriverHandle* context, int device);
    int (*context_get_current)(DriverHandle* context);
    int (*context_set_current)(DriverHandle context);
    int (*context_get_device)(int* device);
    int (*host_alloc)(void** memory, std::size_t bytes, unsigned flags);
    int (*copy_to_host_async)(void* to, std::uint64_t from, std::size_t bytes, DriverHandle stream);
    int (*event_create)(DriverHandle* event, unsigned flags);
    int (*event_destroy)(DriverHandle event);
    int (*event_record)(DriverHandle event, DriverHandle stream);
    int (*event_query)(DriverHandle event);
    int (*event_elapsed_ms)(float* ms, DriverHandle begin, DriverHandle end);
    int (*stream_is_capturing)(DriverHandle stream, int* status);
    int (*exchange_capture_mode)(int* mode);

    /// Finds the functions in the library that the framework has loaded; loads nothing else, and initialises
    /// nothing. FASTLOG_CUDA_LIBRARY and FASTLOG_HIP_LIBRARY name another library, which is loaded. False
    /// with the reason if there is no library or it lacks a function.
    bool load(DeviceKind kind, std::string& reason);
};

/// True for the errors of a stream that is being captured into a graph.
constexpr bool is_capture_error(int code) noexcept {
    return code >= DriverApi::kFirstCaptureError && code <= DriverApi::kLastCaptureError;
}

}  // namespace fastlog
