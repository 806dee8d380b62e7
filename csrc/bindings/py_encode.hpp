// The only code that turns Python objects into record bytes.
#pragma once

#include <Python.h>

#include <cstdint>
#include <cstring>

#include "bindings/payload_builder.hpp"

namespace fastlog::bindings {

/// Writes `value` as the i-th value. Exact float and int are read straight from the object; other types go
/// through encode_other(). False with a Python error set that names `key`.
bool encode_other(PayloadBuilder& out, std::size_t i, PyObject* key, PyObject* value) noexcept;

/// Sets the TypeError for an unsupported value, with the reason; returns false.
bool refuse(PyObject* key, PyObject* value, const char* why);
/// The same after an error, which becomes its cause. KeyboardInterrupt and the like stay as they are.
bool refuse_failed(PyObject* key, PyObject* value);
/// The same with the message of the current error as the reason.
bool refuse_for_reason(PyObject* key, PyObject* value);

inline bool encode_value(PayloadBuilder& out, std::size_t i, PyObject* key,
                         PyObject* value) noexcept {
    if (PyFloat_CheckExact(value)) [[likely]] {
        const double real = PyFloat_AS_DOUBLE(value);
        std::uint64_t bits;
        std::memcpy(&bits, &real, sizeof bits);
        out.set(i, ValueTag::real, bits);
        return true;
    }
    return encode_other(out, i, key, value);
}

/// A text of limited length for any value; a new reference, or null with an error set.
PyObject* text_of(PyObject* value);

bool read_any_step(PyObject* object, std::int64_t& step) noexcept;

/// Reads a step: any object with __index__ except bool, within int64. False with an error set. A one-digit
/// int is read directly.
inline bool read_step(PyObject* object, std::int64_t& step) noexcept {
    if (PyLong_CheckExact(object)) [[likely]] {
#if PY_VERSION_HEX >= 0x030C0000
        auto* number = reinterpret_cast<PyLongObject*>(object);
        if (PyUnstable_Long_IsCompact(number)) [[likely]] {
            step = PyUnstable_Long_CompactValue(number);
            return true;
        }
#else
        const Py_ssize_t digits = Py_SIZE(object);  // signed
        if (digits >= -1 && digits <= 1) [[likely]] {
            step = digits *
                   static_cast<std::int64_t>(reinterpret_cast<PyLongObject*>(object)->ob_digit[0]);
            return true;
        }
#endif
    }
    return read_any_step(object, step);
}

}  // namespace fastlog::bindings
