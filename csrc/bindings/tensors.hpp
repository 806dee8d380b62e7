// What a tensor object says about its single element: its location and type.
//
// Uses DLPack's exchange table if the type has one (torch 2.10 or newer: no Python code runs), otherwise asks
// foundry_fastlog.recording.device_tensors.
#pragma once

#include <Python.h>

#include <cstdint>

#include "bindings/dlpack.hpp"
#include "device/dtype.hpp"

namespace fastlog::bindings {

/// How to query tensors of a type.
struct TensorType {
    const dlpack::Exchange* exchange = nullptr;  // null: through Python
    bool is_tensor = false;
    bool has_storage = false;  // its memory can be kept without the tensor
};

/// Looks up a type in a cache by its address. False with an error set only for what is not an Exception.
bool tensor_type_of(PyTypeObject* type, TensorType& out);

/// The single element of a tensor.
struct Element {
    std::uint64_t address = 0;
    std::int32_t device_type = 0;  // DLPack's
    std::int32_t device_id = 0;
    DType dtype = DType::none;
    const dlpack::Exchange* exchange = nullptr;  // null: `stream` is already known
    void* stream = nullptr;
    PyObject* holder = nullptr;  // owned: replaces the object that was passed, or null
    PyObject* keep = nullptr;    // owned: keeps the memory alive; only for device elements
    bool large = false;          // the allocation is much larger than the element
};

/// One-time set-up when the module is created. False with an error set.
bool intern_names();

/// Describes the element of a tensor. False with TypeError set, which names key and type and says what to do,
/// if it is not a single number: several elements, complex, without its own memory. Never waits for a device.
bool describe_element(const TensorType& type, PyObject* key, PyObject* value, Element& out);

/// Keeps the memory of a described element alive: through its storage, which holds no graph, if it has one.
/// False with an error set only for what is not an Exception.
bool keep_memory(const TensorType& type, PyObject* value, Element& element);

/// Replaces a described element inside a large allocation with a copy that the framework makes on the
/// device's current stream; if no copy can be made, nothing changes. Not while that stream is being captured.
/// Python code runs. False with an error set only for what is not an Exception.
bool copy_large(PyObject* key, PyObject* value, Element& element);

/// The current stream of its device; false with an error set.
bool current_stream(const Element& element, void*& stream);

/// True for memory that the host can read.
constexpr bool is_host(std::int32_t device_type) noexcept {
    return device_type == dlpack::kCpu || device_type == dlpack::kCudaHost ||
           device_type == dlpack::kRocmHost;
}

/// A function of foundry_fastlog.recording.device_tensors, borrowed; null with an error set.
PyObject* device_function(const char* name);

}  // namespace fastlog::bindings
