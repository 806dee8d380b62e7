#include "bindings/py_encode.hpp"

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
    if (overflow > 0) {  // one of uint64 becomes a real number, as on a device
        const unsigned long long large = PyLong_AsUnsignedLongLong(value);
        if (!PyErr_Occurred()) return set_real(out, i, static_cast<double>(large));
        if (!PyErr_ExceptionMatches(PyExc_OverflowError)) return false;
        PyErr_Clear();
    }
    if (overflow != 0) {
        PyErr_Format(PyExc_OverflowError,
                     "value of %R does not fit in a 64-bit integer; pass float(x) to record it as "
                     "a real number or str(x) to keep its digits",
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

// 1: if an array has one element; 0: if not; -1 with an error set.
int has_one_element(PyObject* value) {
    PyObject* dimensions = PyObject_GetAttrString(value, "ndim");
    if (dimensions == nullptr) return -1;
    const long count = PyLong_AsLong(dimensions);
    Py_DECREF(dimensions);
    if (count <= 0) return PyErr_Occurred() ? -1 : 1;
    PyObject* shape = PyObject_GetAttrString(value, "shape");
    PyObject* sizes = shape != nullptr ? PySequence_Tuple(shape) : nullptr;
    Py_XDECREF(shape);
    if (sizes == nullptr) return -1;
    int one = 1;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(sizes) && one == 1; ++i) {
        const Py_ssize_t size = PyNumber_AsSsize_t(PyTuple_GET_ITEM(sizes, i), nullptr);
        one = size == -1 && PyErr_Occurred() ? -1 : size == 1;
    }
    Py_DECREF(sizes);
    return one;
}

// 1: an array or tensor with one element, in host memory; 0: not so, with the error set; -1: not an array.
// Checked through DLPack's device protocol, which numpy, torch, jax and others implement
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
    const int one = has_one_element(value);
    if (one < 0) return refuse_failed(key, value);
    if (one == 0) {
        return refuse(key, value,
                      " without exactly one element: pass a scalar such as value.mean()");
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

// The index (0, 0, ...) of an array.
PyObject* first_index(PyObject* array) {
    PyObject* dimensions = PyObject_GetAttrString(array, "ndim");
    PyObject* index = dimensions != nullptr ? Py_BuildValue("(i)", 0) : nullptr;
    PyObject* zeros = index != nullptr ? PyNumber_Multiply(index, dimensions) : nullptr;
    Py_XDECREF(index);
    Py_XDECREF(dimensions);
    return zeros;
}

// The element of an array that passed is_host_scalar_array(). numpy's own arrays return a numpy scalar, which
// can still be told apart from a date or a mask; other arrays may not.
PyObject* element_of(PyObject* array) {
    if (is_numpy_array(array)) {
        PyObject* first = first_index(array);
        PyObject* element = first != nullptr ? PyObject_GetItem(array, first) : nullptr;
        Py_XDECREF(first);
        if (element == nullptr || is_masked(element) || !is_numpy_array(element)) return element;
        Py_DECREF(element);
    }
    return PyObject_CallMethod(array, "item", nullptr);
}

// A function of foundry_fastlog.recording.values, called with a value.
PyObject* ask_values(const char* name, PyObject* value) {
    PyObject* values = PyImport_ImportModule("foundry_fastlog.recording.values");
    PyObject* function = values != nullptr ? PyObject_GetAttrString(values, name) : nullptr;
    PyObject* answer =
        function != nullptr ? PyObject_CallFunctionObjArgs(function, value, nullptr) : nullptr;
    Py_XDECREF(function);
    Py_XDECREF(values);
    return answer;
}

// The element of what looks like an array of one and is none for DLPack (of pandas, polars, xarray), or
// NotImplemented.
PyObject* element_of_other(PyObject* value) { return ask_values("element_of_other", value); }

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
    if (array == 0) return false;
    PyObject* element = array > 0 ? element_of(value) : element_of_other(value);
    if (element == nullptr) return refuse_failed(key, value);
    if (element == Py_NotImplemented) {
        Py_DECREF(element);
        return refuse(key, value, "");
    }
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
    PyErr_Format(PyExc_TypeError,
                 "value of %R has type %s, which record() does not take%s; it takes float, int, "
                 "bool, None, str, numpy scalars, and arrays and tensors of one element",
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

PyObject* text_of(PyObject* value) { return ask_values("text_of", value); }

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
