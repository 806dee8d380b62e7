#include "bindings/tensors.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <new>
#include <string_view>
#include <utility>

#include "bindings/py_encode.hpp"

namespace fastlog::bindings {
namespace {

struct CachedType {
    PyTypeObject* type;  // owned, so that its address is not reused
    TensorType found;
};
// Entries are never freed, and there are at most as many as places.
std::array<std::atomic<CachedType*>, 256> cache{};

std::size_t place_of(const PyTypeObject* type) noexcept {
    const auto bits = reinterpret_cast<std::uintptr_t>(type);
    return static_cast<std::size_t>((bits * 0x9E3779B97F4A7C15ULL) >> 56);
}

// The function table with the newest version that is supported here.
const dlpack::Exchange* usable(const dlpack::ExchangeHeader* header) noexcept {
    for (; header != nullptr; header = header->previous) {
        if (header->major != dlpack::kMajor) continue;
        const auto* exchange = reinterpret_cast<const dlpack::Exchange*>(header);
        const bool whole = exchange->tensor_from_py_object_no_sync != nullptr &&
                           exchange->current_work_stream != nullptr;
        return whole ? exchange : nullptr;
    }
    return nullptr;
}

constexpr const char* kStorage = "untyped_storage";

// Interned when the module is created: records come from many threads.
struct Names {
    PyObject* storage;
    PyObject* detach;
    PyObject* clone;
    PyObject* is_neg;
    PyObject* dtype;
} names{};

// The largest allocation to keep until the line of its value is written: in torch, a separate result takes
// 512 bytes.
constexpr Py_ssize_t kMostKept = 4096;

// No valid address is below this: a wrapper without its own memory has a null address plus its view's offset.
constexpr std::uint64_t kFirstPage = 4096;

// Clears an error; false for anything that is not an Exception, which stays set.
bool clear_exception() noexcept {
    if (!PyErr_ExceptionMatches(PyExc_Exception)) return false;
    PyErr_Clear();
    return true;
}

bool look_up(PyTypeObject* type, TensorType& out) {
    out = {};
    PyObject* capsule =
        PyObject_GetAttrString(reinterpret_cast<PyObject*>(type), dlpack::kExchangeAttribute);
    if (capsule != nullptr && PyCapsule_IsValid(capsule, dlpack::kExchangeCapsule)) {
        out.exchange = usable(static_cast<const dlpack::ExchangeHeader*>(
            PyCapsule_GetPointer(capsule, dlpack::kExchangeCapsule)));
        out.is_tensor = out.exchange != nullptr;
    }
    Py_XDECREF(capsule);
    if (PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_Exception)) return false;
        PyErr_Clear();
    }
    if (out.is_tensor) {
        const int has = PyObject_HasAttrString(reinterpret_cast<PyObject*>(type), kStorage);
        out.has_storage = has != 0;
        return true;
    }
    // Tensors of an older torch have these attributes and no table.
    for (const char* name : {"data_ptr", "is_neg", "dtype", "device"}) {
        const int has = PyObject_HasAttrString(reinterpret_cast<PyObject*>(type), name);
        if (has == 0) return true;
    }
    out.is_tensor = out.has_storage = true;
    return true;
}

// The tensor that a wrapper wraps, found in Python: owned, or null with TypeError set.
PyObject* plain_tensor(PyObject* key, PyObject* value) {
    PyObject* function = device_function("plain_tensor");
    if (function == nullptr) return nullptr;
    PyObject* plain = PyObject_CallFunctionObjArgs(function, value, nullptr);
    if (plain == nullptr) refuse_for_reason(key, value);
    return plain;
}

bool one_element(const dlpack::Tensor& tensor) noexcept {
    for (std::int32_t i = 0; i < tensor.ndim; ++i) {
        if (tensor.shape[i] != 1) return false;
    }
    return true;
}

bool is_empty(const dlpack::Tensor& tensor) noexcept {
    return std::find(tensor.shape, tensor.shape + tensor.ndim, 0) != tensor.shape + tensor.ndim;
}

// Only the imaginary part of a conjugated tensor stores its sign outside its memory (torch: Tensor.is_neg).
// It follows the real part, so it is never at the start of an allocation, unless its complex number is not
// aligned to its own size. Host elements at the start of an allocation, such as results of operations, are
// not checked: that would cost half as much again as the rest of a tensor's handling, and release the GIL.
// The exception is the private torch._neg_view().
bool may_be_negated(const Element& element) noexcept {
    constexpr std::uint64_t kAllocation = 64;  // the smallest alignment of torch's allocators
    return !is_host(element.device_type) || element.address % kAllocation != 0;
}

bool is_negated(PyObject* value, bool& out) {
    PyObject* answer = PyObject_CallMethodNoArgs(value, names.is_neg);
    if (answer == nullptr) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) return false;
        PyErr_Clear();
        out = false;
        return true;
    }
    const int truth = PyObject_IsTrue(answer);
    Py_DECREF(answer);
    out = truth == 1;
    return truth >= 0;
}

bool check(PyObject* key, PyObject* value, const dlpack::Tensor& tensor, Element& out) {
    if (!one_element(tensor)) {
        return refuse(key, value,
                      is_empty(tensor)
                          ? " with no element"
                          : " with more than one element: pass a scalar such as value.mean()");
    }
    out.dtype = dtype_of(tensor.code, tensor.bits, tensor.lanes);
    if (out.dtype == DType::none) {
        return refuse(
            key, value,
            " with elements that are not a single real number each (complex, packed or unknown): "
            "pass value.abs(), value.real or the like");
    }
    out.address = reinterpret_cast<std::uint64_t>(tensor.data) + tensor.byte_offset;
    out.device_type = tensor.device_type;
    out.device_id = tensor.device_id;
    return true;
}

// (device_type, device_id, address, code, bits, stream, holder), for an older torch. The memory may belong to
// a tensor created just now, which has to live until it is read or copied.
bool ask_python(PyObject* key, PyObject* value, Element& out) {
    PyObject* function = device_function("describe_tensor");
    if (function == nullptr) return false;
    PyObject* facts = PyObject_CallFunctionObjArgs(function, value, nullptr);
    if (facts == nullptr) return refuse_for_reason(key, value);
    int device_type = 0;
    int device_id = 0;
    int code = 0;
    int bits = 0;
    unsigned long long address = 0;
    unsigned long long stream = 0;
    PyObject* holder = nullptr;
    const bool parsed = PyArg_ParseTuple(facts, "iiKiiKO", &device_type, &device_id, &address,
                                         &code, &bits, &stream, &holder) != 0;
    Py_XINCREF(holder);
    Py_DECREF(facts);
    if (!parsed) return refuse_failed(key, value);
    const dlpack::Tensor tensor{reinterpret_cast<void*>(address),
                                device_type,
                                device_id,
                                0,
                                static_cast<std::uint8_t>(code),
                                static_cast<std::uint8_t>(bits),
                                1,
                                nullptr,
                                nullptr,
                                0};
    out.stream = reinterpret_cast<void*>(stream);
    out.exchange = nullptr;
    const bool ok = check(key, value, tensor, out);
    if (ok && holder != value) {
        out.holder = holder;
    } else {
        Py_DECREF(holder);
    }
    return ok;
}

// Returns whether a name is that of an integer of one to seven bits: "torch.int4", "uint1".
bool names_part_of_byte(std::string_view name) noexcept {
    name.remove_prefix(name.rfind('.') + 1);
    if (!name.empty() && name.front() == 'u') name.remove_prefix(1);
    return name.size() == 4 && name.substr(0, 3) == "int" && name[3] >= '1' && name[3] <= '7';
}

// DLPack reports torch's integers of fewer bits as eight-bit ones; only the name of their type tells them
// apart. False with an error set.
bool has_eight_bits(PyObject* key, PyObject* value, DType shown) {
    static std::atomic<PyObject*> known[2]{};  // torch's int8 and uint8, kept alive
    PyObject* dtype = PyObject_GetAttr(value, names.dtype);
    if (dtype == nullptr) return clear_exception();
    std::atomic<PyObject*>& eight = known[shown == DType::int8 ? 0 : 1];
    PyObject* kept = eight.load(std::memory_order_acquire);
    if (dtype == kept) {
        Py_DECREF(dtype);
        return true;
    }
    PyObject* text = PyObject_Str(dtype);
    const char* name = text != nullptr ? PyUnicode_AsUTF8(text) : nullptr;
    const bool part = name != nullptr && names_part_of_byte(name);
    const bool keeps = name != nullptr && !part && kept == nullptr &&
                       eight.compare_exchange_strong(kept, dtype, std::memory_order_acq_rel);
    Py_XDECREF(text);
    if (!keeps) Py_DECREF(dtype);
    if (name == nullptr) return clear_exception();
    return !part ||
           refuse(key, value, " with integers smaller than a byte, such as int4 and uint1");
}

bool ask(const TensorType& type, PyObject* key, PyObject* value, Element& out, bool& wrapped) {
    wrapped = false;
    out.exchange = type.exchange;
    if (type.exchange == nullptr) return ask_python(key, value, out);
    dlpack::Tensor tensor{};
    if (type.exchange->tensor_from_py_object_no_sync(value, &tensor) != 0) {
        if (!PyErr_ExceptionMatches(PyExc_Exception)) return false;
        PyErr_Clear();
        wrapped = true;  // Python has a better error message
        return false;
    }
    if (!check(key, value, tensor, out)) return false;
    if ((out.dtype == DType::int8 || out.dtype == DType::uint8) &&
        !has_eight_bits(key, value, out.dtype)) {
        return false;
    }
    wrapped = out.address < kFirstPage;
    return !wrapped;
}

// A copy of a tensor with its own memory, queued on the current stream: owned; null with an error set.
PyObject* clone_of(PyObject* tensor) {
    PyObject* detached = PyObject_CallMethodNoArgs(tensor, names.detach);
    if (detached == nullptr) return nullptr;
    PyObject* clone = PyObject_CallMethodNoArgs(detached, names.clone);
    Py_DECREF(detached);
    return clone;
}

void release_element(const Element& element) noexcept {
    Py_XDECREF(element.holder);
    Py_XDECREF(element.keep);
}

}  // namespace

bool intern_names() {
    names = {PyUnicode_InternFromString(kStorage), PyUnicode_InternFromString("detach"),
             PyUnicode_InternFromString("clone"), PyUnicode_InternFromString("is_neg"),
             PyUnicode_InternFromString("dtype")};
    return names.storage != nullptr && names.detach != nullptr && names.clone != nullptr &&
           names.is_neg != nullptr && names.dtype != nullptr;
}

PyObject* device_function(const char* name) {
    static std::atomic<PyObject*> known{nullptr};  // a reference that is kept
    PyObject* module = known.load(std::memory_order_acquire);
    if (module == nullptr) {
        module = PyImport_ImportModule("foundry_fastlog.recording.device_tensors");
        if (module == nullptr) return nullptr;
        known.store(module, std::memory_order_release);
    }
    PyObject* function = PyObject_GetAttrString(module, name);
    Py_XDECREF(function);  // the module keeps it alive
    return function;
}

bool tensor_type_of(PyTypeObject* type, TensorType& out) {
    std::atomic<CachedType*>& place = cache[place_of(type)];
    const CachedType* known = place.load(std::memory_order_acquire);
    if (known != nullptr && known->type == type) {
        out = known->found;
        return true;
    }
    if (!look_up(type, out)) return false;
    if (known != nullptr) return true;  // another type is there
    auto* made = new (std::nothrow) CachedType{type, out};
    if (made == nullptr) return true;
    Py_INCREF(type);
    CachedType* nobody = nullptr;
    if (!place.compare_exchange_strong(nobody, made, std::memory_order_release,
                                       std::memory_order_relaxed)) {
        Py_DECREF(type);
        delete made;
    }
    return true;
}

bool describe_element(const TensorType& type, PyObject* key, PyObject* value, Element& out) {
    out = {};
    bool wrapped = false;
    if (ask(type, key, value, out, wrapped)) {
        if (!may_be_negated(out)) [[likely]]
            return true;
        if (type.exchange == nullptr) return true;  // Python has already checked
        bool negated = false;
        if (!is_negated(value, negated)) return refuse_failed(key, value);
        if (!negated) return true;
        wrapped = true;
    }
    if (!wrapped) return false;
    // A wrapper without its own memory: use the tensor that it wraps, or report why there is none.
    PyObject* plain = plain_tensor(key, value);
    if (plain == nullptr) return false;
    TensorType plain_type;
    const bool ok = tensor_type_of(Py_TYPE(plain), plain_type) && plain_type.is_tensor &&
                    ask(plain_type, key, plain, out, wrapped);
    if (!ok) {
        Py_DECREF(plain);
        if (!PyErr_Occurred()) return refuse(key, value, " without memory of its own");
        return false;
    }
    if (out.holder == nullptr) {
        out.holder = plain;
    } else {
        Py_DECREF(plain);  // the memory belongs to a wrapped tensor
    }
    return true;
}

bool keep_memory(const TensorType& type, PyObject* value, Element& element) {
    PyObject* tensor = element.holder != nullptr ? element.holder : value;
    if (element.holder != nullptr || type.has_storage) {
        element.keep = PyObject_CallMethodNoArgs(tensor, names.storage);
        if (element.keep != nullptr) {
            const Py_ssize_t bytes = PyObject_Size(element.keep);
            element.large = bytes > kMostKept;
            if (bytes >= 0 || clear_exception()) return true;
            Py_CLEAR(element.keep);
            return false;
        }
        if (!clear_exception()) return false;
    }
    element.keep = Py_NewRef(tensor);
    return true;
}

bool copy_large(PyObject* key, PyObject* value, Element& element) {
    PyObject* clone = clone_of(element.holder != nullptr ? element.holder : value);
    if (clone == nullptr) return clear_exception();
    TensorType type;
    Element made;
    if (!tensor_type_of(Py_TYPE(clone), type) ||
        (type.is_tensor &&
         (!describe_element(type, key, clone, made) || !keep_memory(type, clone, made)))) {
        release_element(made);
        Py_DECREF(clone);
        return clear_exception();
    }
    if (made.holder == nullptr) {
        made.holder = clone;
    } else {
        Py_DECREF(clone);  // the memory belongs to a wrapped tensor
    }
    // A third-party class may return anything.
    const bool same = made.keep != nullptr && !made.large && made.dtype == element.dtype &&
                      made.device_type == element.device_type &&
                      made.device_id == element.device_id && made.stream == element.stream;
    if (same) std::swap(made, element);
    release_element(made);
    return true;
}

bool current_stream(const Element& element, void*& stream) {
    stream = element.stream;
    if (element.exchange == nullptr) return true;
    const std::int32_t device =
        element.device_type == dlpack::kCudaManaged ? dlpack::kCuda : element.device_type;
    return element.exchange->current_work_stream(device, element.device_id, &stream) == 0;
}

}  // namespace fastlog::bindings
