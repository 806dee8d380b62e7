#include "bindings/py_encode.hpp"

#include <algorithm>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "bindings/gil.hpp"
#include "bindings/key_set_cache.hpp"

namespace fastlog::bindings {
namespace {

bool set_real(PayloadBuilder& out, std::size_t i, double real) noexcept {
    std::uint64_t bits;
    std::memcpy(&bits, &real, sizeof bits);
    out.set(i, ValueTag::real, bits);
    return true;
}

bool set_integer(PayloadBuilder& out, std::size_t i, PyObject* key, PyObject* value) {
    int overflow = 0;
    const long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow != 0) {
        PyErr_Format(PyExc_OverflowError,
                     "value of %R does not fit in a signed 64-bit integer; pass float(x) to record "
                     "it as a real number or str(x) to keep its digits",
                     key);
        return false;
    }
    if (number == -1 && PyErr_Occurred()) return false;
    out.set(i, ValueTag::integer, static_cast<std::uint64_t>(number));
    return true;
}

bool set_text(PayloadBuilder& out, std::size_t i, PyObject* value) noexcept {
    std::vector<PyObject*> storage;
    std::string_view text;
    const bool ok = utf8_of(value, text, storage) && out.set_string(i, text);
    for (PyObject* bytes : storage) Py_DECREF(bytes);
    return ok;
}

// Python's own scalars, subclasses included (numpy.float64 is a float, an IntEnum an int).
enum class Plain : std::uint8_t { done, failed, other };

Plain encode_plain(PayloadBuilder& out, std::size_t i, PyObject* key, PyObject* value) {
    const auto result = [](bool ok) { return ok ? Plain::done : Plain::failed; };
    if (PyBool_Check(value)) {
        out.set(i, ValueTag::boolean, value == Py_True ? 1 : 0);
        return Plain::done;
    }
    if (PyLong_Check(value)) return result(set_integer(out, i, key, value));
    if (PyFloat_Check(value)) return result(set_real(out, i, PyFloat_AS_DOUBLE(value)));
    if (value == Py_None) {
        out.set(i, ValueTag::null, 0);
        return Plain::done;
    }
    if (PyUnicode_Check(value)) return result(set_text(out, i, value));
    return Plain::other;
}

enum class Numpy : std::uint8_t { no, scalar, unusable };

// A numpy scalar? Checked without importing numpy: an instance can only exist if numpy is loaded. Dates and
// complex numbers have no single real value; item() of some of them would make one up.
Numpy numpy_scalar(PyObject* value) noexcept {
    bool unusable = false;
    for (PyTypeObject* type = Py_TYPE(value); type != nullptr; type = type->tp_base) {
        const std::string_view name = type->tp_name;
        unusable |= name == "numpy.datetime64" || name == "numpy.timedelta64" ||
                    name == "numpy.complexfloating";
        if (name == "numpy.generic") return unusable ? Numpy::unusable : Numpy::scalar;
    }
    return Numpy::no;
}

bool encode_numpy(PayloadBuilder& out, std::size_t i, PyObject* key, PyObject* scalar) {
    if (numpy_scalar(scalar) == Numpy::unusable) return refuse(key, scalar, "");
    PyObject* item = PyObject_CallMethod(scalar, "item", nullptr);
    if (item != nullptr &&
        Py_TYPE(item) == Py_TYPE(scalar)) {  // item() of a longdouble returns a longdouble
        PyObject* real = PyNumber_Float(item);
        Py_DECREF(item);
        item = real;
    }
    if (item == nullptr) return refuse_failed(key, scalar);
    const Plain plain = encode_plain(out, i, key, item);
    Py_DECREF(item);
    return plain == Plain::other ? refuse(key, scalar, "") : plain == Plain::done;
}

// 1: an array or tensor with one element and no dimensions, in host memory; 0: not so, with the error set;
// -1: not an array. Checked through DLPack's device protocol, which numpy, torch, jax and others implement
// (https://dmlc.github.io/dlpack/latest/python_spec.html): kDLCPU is 1.
int is_host_scalar_array(PyObject* key, PyObject* value) {
    PyObject* device = PyObject_CallMethod(value, "__dlpack_device__", nullptr);
    if (device == nullptr) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) return refuse_failed(key, value);
        PyErr_Clear();
        return -1;
    }
    long kind = -1;
    if (PyTuple_Check(device) && PyTuple_GET_SIZE(device) == 2) {
        PyObject* number = PyNumber_Long(PyTuple_GET_ITEM(device, 0));
        if (number != nullptr) {
            kind = PyLong_AsLong(number);
            Py_DECREF(number);
        }
    }
    Py_DECREF(device);
    if (PyErr_Occurred()) return refuse_failed(key, value);
    if (kind != 1) {
        return refuse(key, value,
                      " from a device other than the CPU: pass value.item(), which waits for "
                      "the device");
    }
    PyObject* dimensions = PyObject_GetAttrString(value, "ndim");
    if (dimensions == nullptr) return refuse_failed(key, value);
    const long count = PyLong_AsLong(dimensions);
    Py_DECREF(dimensions);
    if (count == -1 && PyErr_Occurred()) return refuse_failed(key, value);
    if (count != 0) {
        return refuse(key, value,
                      " with one or more dimensions: pass a scalar such as value.mean()");
    }
    return 1;
}

bool is_numpy_array(PyObject* value) noexcept {
    for (PyTypeObject* type = Py_TYPE(value); type != nullptr; type = type->tp_base) {
        if (std::strcmp(type->tp_name, "numpy.ndarray") == 0) return true;
    }
    return false;
}

// numpy.ma.masked, which an array returns for a masked element; its own item() is 0.0.
bool is_masked(PyObject* value) noexcept {
    return std::strcmp(Py_TYPE(value)->tp_name, "MaskedConstant") == 0 && is_numpy_array(value);
}

// The element of an array that passed is_host_scalar_array(). numpy's own arrays return a numpy scalar, which
// can still be told apart from a date or a mask; other arrays may not.
PyObject* element_of(PyObject* array) {
    if (is_numpy_array(array)) {
        PyObject* nowhere = PyTuple_New(0);
        PyObject* element = nowhere != nullptr ? PyObject_GetItem(array, nowhere) : nullptr;
        Py_XDECREF(nowhere);
        if (element == nullptr || is_masked(element) || !is_numpy_array(element)) return element;
        Py_DECREF(element);
    }
    return PyObject_CallMethod(array, "item", nullptr);
}

bool encode_tensor(PayloadBuilder& out, std::size_t i, PyObject* key, PyObject* value,
                   const TensorType& type) {
    Element element;
    if (!describe_element(type, key, value, element)) return false;
    if (!is_host(element.device_type)) {
        if (keep_memory(type, value, element)) return out.add_device_argument(i, value, element);
        Py_XDECREF(element.holder);
        return false;
    }
    const SettledValue read = decode(element.dtype, reinterpret_cast<const void*>(element.address));
    out.set(i, read.tag, read.bits);
    Py_XDECREF(element.holder);
    return true;
}

bool encode_foreign(PayloadBuilder& out, std::size_t i, PyObject* key, PyObject* value) {
    Plain plain = encode_plain(out, i, key, value);
    if (plain != Plain::other) return plain == Plain::done;
    TensorType tensor;
    if (!tensor_type_of(Py_TYPE(value), tensor)) return false;
    if (tensor.is_tensor) return encode_tensor(out, i, key, value, tensor);
    if (numpy_scalar(value) != Numpy::no) return encode_numpy(out, i, key, value);

    const int array = is_host_scalar_array(key, value);
    if (array <= 0) return array < 0 ? refuse(key, value, "") : false;
    PyObject* element = element_of(value);
    if (element == nullptr) return refuse_failed(key, value);
    bool ok = true;
    if (is_masked(element)) {
        out.set(i, ValueTag::missing, missing_bits(MissingReason::masked));
    } else if (numpy_scalar(element) != Numpy::no) {
        ok = encode_numpy(out, i, key, element);
    } else {
        plain = encode_plain(out, i, key, element);
        ok = plain == Plain::other ? refuse(key, value, "") : plain == Plain::done;
    }
    Py_DECREF(element);
    return ok;
}

bool starts_character(char c) noexcept { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }

// At most `limit` bytes of UTF-8. A truncated text ends with its original length, if there is room for it.
void append_cut(std::string& out, std::string_view text, std::size_t limit) {
    if (text.size() <= limit) {
        out.append(text);
        return;
    }
    std::string end = "... (";
    end += std::to_string(std::count_if(text.begin(), text.end(), starts_character));
    end += " characters)";
    if (end.size() > limit) end.clear();
    std::size_t keep = limit - end.size();
    while (keep != 0 && !starts_character(text[keep])) --keep;
    out.append(text.substr(0, keep)).append(end);
}

// Chains the current error as the cause of the one that `raise` sets.
template <class Raise>
bool raise_from_current(Raise&& raise) {
    if (!PyErr_ExceptionMatches(PyExc_Exception)) return false;
    PyObject* type;
    PyObject* cause;
    PyObject* trace;
    PyErr_Fetch(&type, &cause, &trace);
    PyErr_NormalizeException(&type, &cause, &trace);
    if (trace != nullptr) PyException_SetTraceback(cause, trace);
    Py_XDECREF(type);
    Py_XDECREF(trace);
    raise(cause);
    PyObject* error;
    PyErr_Fetch(&type, &error, &trace);
    PyErr_NormalizeException(&type, &error, &trace);
    PyException_SetCause(error, Py_NewRef(cause));
    PyException_SetContext(error, cause);
    PyErr_Restore(type, error, trace);
    return false;
}

}  // namespace

bool refuse(PyObject* key, PyObject* value, const char* why) {
    PyErr_Format(
        PyExc_TypeError,
        "value of %R has type %s, which record() does not take%s; it takes float, int, "
        "bool, None, str, numpy scalars, 0-dim arrays on the CPU, and tensors of one element",
        key, Py_TYPE(value)->tp_name, why);
    return false;
}

bool refuse_failed(PyObject* key, PyObject* value) {
    return raise_from_current([&](PyObject*) { refuse(key, value, " (reading it failed)"); });
}

bool refuse_for_reason(PyObject* key, PyObject* value) {
    return raise_from_current([&](PyObject* cause) {
        PyObject* words = PyObject_Str(cause);
        const char* text = words != nullptr ? PyUnicode_AsUTF8(words) : nullptr;
        if (text == nullptr) PyErr_Clear();
        PyErr_Format(PyExc_TypeError, "value of %R has type %s, which record() does not take: %s",
                     key, Py_TYPE(value)->tp_name, text != nullptr ? text : "reading it failed");
        Py_XDECREF(words);
    });
}

PayloadBuilder::~PayloadBuilder() {
    for (const DeviceArgument& argument : arguments_) {
        Py_XDECREF(argument.element.holder);
        Py_XDECREF(argument.element.keep);
    }
}

bool PayloadBuilder::add_device_argument(std::size_t i, PyObject* value,
                                         const Element& element) noexcept {
    try {
        arguments_.push_back({i, value, element});
    } catch (const std::bad_alloc&) {
        Py_XDECREF(element.holder);
        Py_XDECREF(element.keep);
        PyErr_NoMemory();
        return false;
    }
    set(i, ValueTag::missing, missing_bits(MissingReason::lost));
    return true;
}

bool PayloadBuilder::reserve(std::size_t bytes) noexcept {
    if (bytes <= capacity_) return true;
    const std::size_t capacity = bytes < 2 * capacity_ ? 2 * capacity_ : bytes;
    std::unique_ptr<std::byte[]> grown(new (std::nothrow) std::byte[capacity]);
    if (!grown) {
        PyErr_NoMemory();
        return false;
    }
    std::memcpy(grown.get(), data_, size_);
    heap_ = std::move(grown);
    data_ = heap_.get();
    capacity_ = capacity;
    return true;
}

bool PayloadBuilder::begin(std::size_t count) noexcept {
    count_ = count;
    if (!reserve(metrics_strings_offset(count))) return false;
    size_ = metrics_strings_offset(count);
    const MetricsPayload head{0, 0, static_cast<std::uint16_t>(count), 0};
    std::memcpy(data_, &head, sizeof head);
    if (count % 8 != 0) {  // the padding after the tags
        std::memset(data_ + sizeof head + count, 0, metrics_tags_size(count) - count);
    }
    return true;
}

bool PayloadBuilder::set_string(std::size_t i, std::string_view text) noexcept {
    const std::size_t offset = size_ - metrics_strings_offset(count_);
    if (text.size() > UINT32_MAX || offset > UINT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "text of 4 GiB or more cannot be recorded");
        return false;
    }
    if (!reserve(size_ + text.size())) return false;
    std::memcpy(data_ + size_, text.data(), text.size());
    size_ += text.size();
    set(i, ValueTag::string, (static_cast<std::uint64_t>(offset) << 32) | text.size());
    return true;
}

bool PayloadBuilder::shorten_texts(std::size_t bytes) noexcept {
    if (size_ <= bytes) return true;
    try {
        std::vector<std::size_t> lengths;
        for (std::size_t i = 0; i < count_; ++i) {
            if (tag(i) == ValueTag::string) lengths.push_back(text(i).size());
        }
        std::sort(lengths.begin(), lengths.end());
        const std::size_t fixed = metrics_strings_offset(count_);
        std::size_t room = bytes > fixed ? bytes - fixed : 0;
        std::size_t limit = 0;  // an equal share of what the shorter ones leave
        for (std::size_t n = 0; n < lengths.size(); ++n) {
            limit = room / (lengths.size() - n);
            if (lengths[n] > limit) break;
            room -= lengths[n];
        }
        std::string texts;
        for (std::size_t i = 0; i < count_; ++i) {
            if (tag(i) != ValueTag::string) continue;
            const std::size_t offset = texts.size();
            append_cut(texts, text(i), limit);
            set(i, ValueTag::string,
                (static_cast<std::uint64_t>(offset) << 32) | (texts.size() - offset));
        }
        std::memcpy(data_ + fixed, texts.data(), texts.size());
        size_ = fixed + texts.size();
        return true;
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
        return false;
    }
}

PyObject* text_of(PyObject* value) {
    PyObject* values = PyImport_ImportModule("foundry_fastlog.recording.values");
    PyObject* function = values != nullptr ? PyObject_GetAttrString(values, "text_of") : nullptr;
    PyObject* text =
        function != nullptr ? PyObject_CallFunctionObjArgs(function, value, nullptr) : nullptr;
    Py_XDECREF(function);
    Py_XDECREF(values);
    return text;
}

bool encode_other(PayloadBuilder& out, std::size_t i, PyObject* key, PyObject* value) noexcept {
    return python_call([&] { return encode_foreign(out, i, key, value); });
}

bool read_any_step(PyObject* object, std::int64_t& step) noexcept {
    if (PyBool_Check(object) || !PyIndex_Check(object)) {
        PyErr_Format(PyExc_TypeError, "step must be an int, got %s", Py_TYPE(object)->tp_name);
        return false;
    }
    int overflow = 0;
    long long number;
    if (PyLong_CheckExact(object)) {
        number = PyLong_AsLongLongAndOverflow(object, &overflow);
    } else {
        PyObject* index = python_call([&] { return PyNumber_Index(object); });
        if (index == nullptr) return false;
        number = PyLong_AsLongLongAndOverflow(index, &overflow);
        Py_DECREF(index);
    }
    if (overflow != 0) {
        PyErr_SetString(PyExc_OverflowError, "step does not fit in a signed 64-bit integer");
        return false;
    }
    if (number == -1 && PyErr_Occurred()) return false;
    step = number;
    return true;
}

}  // namespace fastlog::bindings
