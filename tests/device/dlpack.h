// The part of DLPack 1.3 that its C exchange table needs: layouts and numbers of the specification
// (https://dmlc.github.io/dlpack/latest/c_api.html), written down for the fakes alone.
#pragma once

#include <stdint.h>

enum { DLPACK_MAJOR_VERSION = 1, DLPACK_MINOR_VERSION = 3 };

typedef struct {
    uint32_t major;  // another one: another layout of all that follows
    uint32_t minor;
} DLPackVersion;

typedef enum {
    kDLCPU = 1,
    kDLCUDA = 2,
    kDLCUDAHost = 3,
    kDLMetal = 8,
    kDLROCM = 10,
    kDLROCMHost = 11,
    kDLCUDAManaged = 13,
    kDLOneAPI = 14,
} DLDeviceType;

typedef struct {
    DLDeviceType device_type;
    int32_t device_id;
} DLDevice;

typedef enum {
    kDLInt = 0,
    kDLUInt = 1,
    kDLFloat = 2,
    kDLBfloat = 4,
    kDLComplex = 5,
    kDLBool = 6,
    kDLFloat8_e4m3fn = 10,
    kDLFloat8_e4m3fnuz = 11,
    kDLFloat8_e5m2 = 12,
    kDLFloat8_e5m2fnuz = 13,
    kDLFloat8_e8m0fnu = 14,
    kDLFloat4_e2m1fn = 17,
} DLDataTypeCode;

typedef struct {
    uint8_t code;
    uint8_t bits;
    uint16_t lanes;
} DLDataType;

typedef struct {
    void* data;
    DLDevice device;
    int32_t ndim;
    DLDataType dtype;
    int64_t* shape;    // of the producer; may be NULL when ndim is 0
    int64_t* strides;  // in elements
    uint64_t byte_offset;
} DLTensor;

typedef struct DLPackExchangeAPIHeader {
    DLPackVersion version;
    struct DLPackExchangeAPIHeader* prev_api;  // an older table, or NULL
} DLPackExchangeAPIHeader;

typedef struct DLPackExchangeAPI {
    DLPackExchangeAPIHeader header;
    // Of tensors that own their memory: the recorder never calls them.
    void (*managed_tensor_allocator)(void);
    void (*managed_tensor_from_py_object_no_sync)(void);
    void (*managed_tensor_to_py_object_no_sync)(void);
    int (*dltensor_from_py_object_no_sync)(void* py_object, DLTensor* out);  // may be NULL
    int (*current_work_stream)(DLDeviceType device_type, int32_t device_id, void** out_stream);
} DLPackExchangeAPI;
