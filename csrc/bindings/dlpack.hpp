// The parts of DLPack's C interface that are used here: the layout of a tensor, and the function table that a
// tensor type provides as `__dlpack_c_exchange_api__`.
//
// Follows the DLPack specification 1.3, https://dmlc.github.io/dlpack/latest/ (the names are DLPack's).
#pragma once

#include <cstdint>

namespace fastlog::bindings::dlpack {

// DLDeviceType
inline constexpr std::int32_t kCpu = 1;
inline constexpr std::int32_t kCuda = 2;
inline constexpr std::int32_t kCudaHost = 3;
inline constexpr std::int32_t kMetal = 8;
inline constexpr std::int32_t kRocm = 10;
inline constexpr std::int32_t kRocmHost = 11;
inline constexpr std::int32_t kCudaManaged = 13;
inline constexpr std::int32_t kOneApi = 14;

struct Tensor {  // DLTensor
    void* data;
    std::int32_t device_type;
    std::int32_t device_id;
    std::int32_t ndim;
    std::uint8_t code;
    std::uint8_t bits;
    std::uint16_t lanes;
    std::int64_t* shape;
    std::int64_t* strides;
    std::uint64_t byte_offset;
};

struct ExchangeHeader {  // DLPackExchangeAPIHeader
    std::uint32_t major;
    std::uint32_t minor;
    ExchangeHeader* previous;
};

struct Exchange {  // DLPackExchangeAPI
    ExchangeHeader header;
    void* managed_tensor_allocator;
    void* managed_tensor_from_py_object_no_sync;
    void* managed_tensor_to_py_object_no_sync;
    int (*tensor_from_py_object_no_sync)(void* object, Tensor* out);
    int (*current_work_stream)(std::int32_t device_type, std::int32_t device_id, void** stream);
};

inline constexpr const char* kExchangeAttribute = "__dlpack_c_exchange_api__";
inline constexpr const char* kExchangeCapsule = "dlpack_exchange_api";
inline constexpr std::uint32_t kMajor = 1;

}  // namespace fastlog::bindings::dlpack
