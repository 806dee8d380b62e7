// The driver's functions, found at run time: by the names of CUDA and of HIP, or a reason why not.
#include <dlfcn.h>

#include <cstring>
#include <string>
#include <vector>

#include "device/driver.hpp"
#include "test_device_support.hpp"

using namespace fastlog;
using namespace fastlog::test;

namespace {

const std::vector<std::string> kCudaNames = {"cuDeviceGet",
                                             "cuDevicePrimaryCtxGetState",
                                             "cuDevicePrimaryCtxRetain",
                                             "cuCtxGetCurrent",
                                             "cuCtxSetCurrent",
                                             "cuCtxGetDevice",
                                             "cuMemHostAlloc",
                                             "cuMemcpyDtoHAsync_v2",
                                             "cuEventCreate",
                                             "cuEventDestroy_v2",
                                             "cuEventRecord",
                                             "cuEventQuery",
                                             "cuEventElapsedTime",
                                             "cuStreamIsCapturing",
                                             "cuThreadExchangeStreamCaptureMode"};
const std::vector<std::string> kHipNames = {"hipDeviceGet",
                                            "hipDevicePrimaryCtxGetState",
                                            "hipDevicePrimaryCtxRetain",
                                            "hipCtxGetCurrent",
                                            "hipCtxSetCurrent",
                                            "hipCtxGetDevice",
                                            "hipHostMalloc",
                                            "hipMemcpyDtoHAsync",
                                            "hipEventCreateWithFlags",
                                            "hipEventDestroy",
                                            "hipEventRecord",
                                            "hipEventQuery",
                                            "hipEventElapsedTime",
                                            "hipStreamIsCapturing",
                                            "hipThreadExchangeStreamCaptureMode"};

// The table's entries are the library's functions of these names, in this order.
void check_table(const DriverApi& api, const std::string& library,
                 const std::vector<std::string>& names) {
    void* handle = ::dlopen(library.c_str(), RTLD_NOW | RTLD_NOLOAD);
    REQUIRE(handle != nullptr);
    REQUIRE(sizeof api == names.size() * sizeof(void*));
    for (std::size_t i = 0; i < names.size(); ++i) {
        void* found;
        std::memcpy(&found, reinterpret_cast<const char*>(&api) + i * sizeof found, sizeof found);
        CAPTURE(names[i]);
        CHECK(found != nullptr);
        CHECK(found == ::dlsym(handle, names[i].c_str()));
    }
    ::dlclose(handle);
}

}  // namespace

TEST_SUITE("device driver") {
    TEST_CASE("should find each function of CUDA under its own name") {
        const std::string library = beside_runner("libfake_cuda.so");
        const Environment named("FASTLOG_CUDA_LIBRARY", library);
        DriverApi api{};
        std::string reason;
        REQUIRE(api.load(DeviceKind::cuda, reason));
        CHECK(reason == "");
        check_table(api, library, kCudaNames);
    }

    TEST_CASE("should find each function of HIP under its own name") {
        const std::string library = beside_runner("libfake_hip.so");
        const Environment named("FASTLOG_HIP_LIBRARY", library);
        DriverApi api{};
        std::string reason;
        REQUIRE(api.load(DeviceKind::rocm, reason));
        check_table(api, library, kHipNames);
        int device = -1;
        CHECK(api.device_get(&device, 1) == DriverApi::kSuccess);
        CHECK(device == 1);
    }

    TEST_CASE("should share the instance whose controls a test calls") {
        const FakeMachine machine;
        DriverApi api{};
        std::string reason;
        REQUIRE(api.load(DeviceKind::cuda, reason));
        const long before = machine.count("cuDeviceGet");
        int device = -1;
        CHECK(api.device_get(&device, 0) == DriverApi::kSuccess);
        CHECK(machine.count("cuDeviceGet") == before + 1);
    }

    TEST_CASE("should say which function a driver lacks") {
        // The driver of the other make has none of the names.
        const Environment cuda("FASTLOG_CUDA_LIBRARY", beside_runner("libfake_hip.so"));
        const Environment hip("FASTLOG_HIP_LIBRARY", beside_runner("libfake_cuda.so"));
        DriverApi api{};
        std::string reason;
        CHECK_FALSE(api.load(DeviceKind::cuda, reason));
        CHECK(reason.find("FASTLOG_CUDA_LIBRARY names") != std::string::npos);
        CHECK(reason.ends_with("libfake_hip.so, lacks cuDeviceGet"));
        CHECK_FALSE(api.load(DeviceKind::rocm, reason));
        CHECK(reason.ends_with("libfake_cuda.so, lacks hipDeviceGet"));
    }

    TEST_CASE("should say which library cannot be loaded") {
        const Environment cuda("FASTLOG_CUDA_LIBRARY", "/nowhere/libcuda.so.1");
        DriverApi api{};
        std::string reason;
        CHECK_FALSE(api.load(DeviceKind::cuda, reason));
        CHECK(
            reason.starts_with("the library that FASTLOG_CUDA_LIBRARY names, "
                               "/nowhere/libcuda.so.1, cannot be loaded: "));
        CHECK((api.device_get == nullptr));
    }

    TEST_CASE("should load nothing that is not in the process, nor initialise what is") {
        const Environment cuda("FASTLOG_CUDA_LIBRARY", "");
        const Environment hip("FASTLOG_HIP_LIBRARY", "");
        DriverApi api{};
        for (const DeviceKind kind : {DeviceKind::cuda, DeviceKind::rocm}) {
            std::string reason;
            if (api.load(kind, reason)) continue;  // this machine's own, found in this process
            CHECK(reason == (kind == DeviceKind::cuda ? "libcuda.so.1 is not loaded"
                                                      : "libamdhip64 is not loaded"));
        }
        for (const char* name : {"libcuda.so.1", "libamdhip64.so.6", "libamdhip64.so"}) {
            CHECK(::dlopen(name, RTLD_NOW | RTLD_NOLOAD) == nullptr);
        }
        ::fake_reset_counts();
        const Environment fake("FASTLOG_CUDA_LIBRARY", beside_runner("libfake_cuda.so"));
        std::string reason;
        REQUIRE(api.load(DeviceKind::cuda, reason));
        for (const std::string& name : kCudaNames) CHECK(::fake_count(name.c_str()) == 0);
        CHECK(::fake_count("contexts_created") == 0);
    }

    TEST_CASE("should know no driver of other kinds of devices") {
        for (const DeviceKind kind : {DeviceKind::xpu, DeviceKind::mps, DeviceKind::other}) {
            DriverApi api{};
            std::string reason;
            CHECK_FALSE(api.load(kind, reason));
            CHECK(reason == "its driver API is not known here");
        }
    }

    TEST_CASE("should know the errors of a capture by their numbers") {
        for (int code = -1; code < 1000; ++code) {
            CHECK(is_capture_error(code) == (code >= 900 && code <= 908));
        }
    }
}
