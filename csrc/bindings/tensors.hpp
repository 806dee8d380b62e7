// What a Python object that is a tensor says about its one element: where it lies, of which type.
//
// By DLPack's exchange table where its type has one (torch from 2.10 on: no Python code runs), else by
// asking foundry_fastlog.recording.device_tensors.
#pragma once

#include <Python.h>

#include <cstdint>

#include "bindings/dlpack.hpp"
#include "device/dtype.hpp"

namespace fastlog::bindings {

/// How tensors of a type are asked.
struct TensorType {
    const dlpack::Exchange* exchange = nullptr;  // null: by Python
    bool is_tensor = false;
    bool has_storage = false;  // its memory can be kept apart from it
};

/// Looks a type up, in a cache by its address. False with an error set only for what is no Exception.
bool tensor_type_of(PyTypeObject* type, TensorType& out);

/// The one element of a tensor.
struct Element {
    std::uint64_t address = 0;
    std::int32_t device_type = 0;  // of DLPack
    std::int32_t device_id = 0;
    DType dtype = DType::none;
    const dlpack::Exchange* exchange = nullptr;  // null: `stream` is known already
    void* stream = nullptr;
    PyObject* holder = nullptr;  // owned: stands for the object that was given, or null
    PyObject* keep = nullptr;    // owned: keeps its memory; of elements on devices only
    bool large = false;          // that is much more memory than the element's own
};

/// What is to be done once, when the module is made. False with an error set.
bool intern_names();

/// Describes the element of a tensor. False with TypeError set, which names key and type and says what
/// to do, for one that is none: several elements, complex, without memory of its own. No device waits.
bool describe_element(const TensorType& type, PyObject* key, PyObject* value, Element& out);

/// Keeps the memory of a described element: by its storage, which holds no graph, where it has one. False
/// with an error set only for what is no Exception.
bool keep_memory(const TensorType& type, PyObject* value, Element& element);

/// Puts a copy, made by the framework on the device's current stream, in the place of a described element
/// whose memory is large; where none can be made all stays as it is. Not while that stream is being
/// captured. Python code runs. False with an error set only for what is no Exception.
bool copy_large(PyObject* key, PyObject* value, Element& element);

/// Its device's current stream; false with an error set.
bool current_stream(const Element& element, void*& stream);

/// True for memory that the host reads.
constexpr bool is_host(std::int32_t device_type) noexcept {
    return device_type == dlpack::kCpu || device_type == dlpack::kCudaHost ||
           device_type == dlpack::kRocmHost;
}

/// A function of foundry_fastlog.recording.device_tensors, borrowed; null with an error set.
PyObject* device_function(const char* name);

}  // namespace fastlog::bindings
