#include "device/driver.hpp"

#include <dlfcn.h>

#include <cstdlib>
#include <cstring>

namespace fastlog {
namespace {

struct Function {
    std::size_t offset;
    const char* cuda;
    const char* hip;
};
constexpr Function kFunctions[] = {
    {offsetof(DriverApi, device_get), "cuDeviceGet", "hipDeviceGet"},
    {offsetof(DriverApi, primary_context_state), "cuDevicePrimaryCtxGetState",
     "hipDevicePrimaryCtxGetState"},
    {offsetof(DriverApi, primary_context_retain), "cuDevicePrimaryCtxRetain",
     "hipDevicePrimaryCtxRetain"},
    {offsetof(DriverApi, context_get_current), "cuCtxGetCurrent", "hipCtxGetCurrent"},
    {offsetof(DriverApi, context_set_current), "cuCtxSetCurrent", "hipCtxSetCurrent"},
    {offsetof(DriverApi, context_get_device), "cuCtxGetDevice", "hipCtxGetDevice"},
    {offsetof(DriverApi, host_alloc), "cuMemHostAlloc", "hipHostMalloc"},
    {offsetof(DriverApi, copy_to_host_async), "cuMemcpyDtoHAsync_v2", "hipMemcpyDtoHAsync"},
    {offsetof(DriverApi, event_create), "cuEventCreate", "hipEventCreateWithFlags"},
    {offsetof(DriverApi, event_destroy), "cuEventDestroy_v2", "hipEventDestroy"},
    {offsetof(DriverApi, event_record), "cuEventRecord", "hipEventRecord"},
    {offsetof(DriverApi, event_query), "cuEventQuery", "hipEventQuery"},
    {offsetof(DriverApi, event_elapsed_ms), "cuEventElapsedTime", "hipEventElapsedTime"},
    {offsetof(DriverApi, stream_is_capturing), "cuStreamIsCapturing", "hipStreamIsCapturing"},
    {offsetof(DriverApi, exchange_capture_mode), "cuThreadExchangeStreamCaptureMode",
     "hipThreadExchangeStreamCaptureMode"},
};
static_assert(sizeof kFunctions / sizeof *kFunctions * sizeof(void*) == sizeof(DriverApi));

struct Library {
    const char* variable;  // environment variable
    const char* known_as;
    const char* names[4];
};
constexpr Library kCuda = {"FASTLOG_CUDA_LIBRARY", "libcuda.so.1", {"libcuda.so.1", nullptr}};
// The framework ships its own copy, whose name contains its major version.
constexpr Library kHip = {
    "FASTLOG_HIP_LIBRARY",
    "libamdhip64",
    {"libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5", "libamdhip64.so"}};

void* open(const Library& library, std::string& reason) {
    if (const char* path = std::getenv(library.variable); path != nullptr && *path != '\0') {
        void* handle = ::dlopen(path, RTLD_NOW | RTLD_LOCAL);
        const char* why = handle == nullptr ? ::dlerror() : nullptr;
        reason = std::string("the library that ") + library.variable + " names, " + path + ",";
        if (handle == nullptr) reason.append(" cannot be loaded: ").append(why ? why : "?");
        return handle;
    }
    reason = library.known_as;
    for (const char* name : library.names) {
        if (name == nullptr) break;
        if (void* handle = ::dlopen(name, RTLD_NOW | RTLD_NOLOAD | RTLD_LOCAL)) return handle;
    }
    reason += " is not loaded";
    return nullptr;
}

}  // namespace

bool DriverApi::load(DeviceKind kind, std::string& reason) {
    if (kind != DeviceKind::cuda && kind != DeviceKind::rocm) {
        reason = "its driver API is not known here";
        return false;
    }
    const bool hip = kind == DeviceKind::rocm;
    void* handle = open(hip ? kHip : kCuda, reason);  // never closed
    if (handle == nullptr) return false;
    for (const Function& function : kFunctions) {
        const char* name = hip ? function.hip : function.cuda;
        void* found = ::dlsym(handle, name);
        if (found == nullptr) {
            reason.append(" lacks ").append(name);
            return false;
        }
        std::memcpy(reinterpret_cast<char*>(this) + function.offset, &found, sizeof found);
    }
    reason.clear();
    return true;
}

}  // namespace fastlog
