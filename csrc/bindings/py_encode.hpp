// The only code that turns Python objects into record bytes.
#pragma once

#include <Python.h>

#include <cstdint>
#include <cstring>

#include "bindings/payload_builder.hpp"
#include "core/hot_line.hpp"

namespace fastlog::bindings {

/// Writes `value` as the i-th value. Exact float and short int are read straight from the object; others go
/// through encode_other(). False with a Python error set that names `key`.
bool encode_other(PayloadBuilder& out, std::size_t i, PyObject* key, PyObject* value) noexcept;

/// Sets the TypeError for an unsupported value, with the reason; returns false.
bool refuse(PyObject* key, PyObject* value, const char* why);
/// The same after an error, which becomes its cause. KeyboardInterrupt and the like stay as they are.
bool refuse_failed(PyObject* key, PyObject* value);
/// The same with the message of the current error as the reason.
bool refuse_for_reason(PyObject* key, PyObject* value);

/// Reads an int of one digit, which most are; false for any other object.
inline bool read_short_int(PyObject* object, std::int64_t& number,
                           const HotLine& facts = hot_line) noexcept {
    if (Py_TYPE(object) != facts.int_type) [[unlikely]]
        return false;
#if PY_VERSION_HEX >= 0x030C0000
    auto* exact = reinterpret_cast<PyLongObject*>(object);
    if (!PyUnstable_Long_IsCompact(exact)) [[unlikely]]
        return false;
    number = PyUnstable_Long_CompactValue(exact);
#else
    const Py_ssize_t digits = Py_SIZE(object);  // signed
    if (digits < -1 || digits > 1) [[unlikely]]
        return false;
    number =
        digits * static_cast<std::int64_t>(reinterpret_cast<PyLongObject*>(object)->ob_digit[0]);
#endif
    return true;
}

inline bool encode_value(PayloadBuilder& out, std::size_t i, PyObject* key,
                         PyObject* value) noexcept {
    if (Py_TYPE(value) == hot_line.float_type) [[likely]] {
        const double real = PyFloat_AS_DOUBLE(value);
        std::uint64_t bits;
        std::memcpy(&bits, &real, sizeof bits);
        out.set(i, ValueTag::real, bits);
        return true;
    }
    std::int64_t number;
    if (read_short_int(value, number)) {
        out.set(i, ValueTag::integer, static_cast<std::uint64_t>(number));
        return true;
    }
    return encode_other(out, i, key, value);
}

/// A text of limited length for any value; a new reference, or null with an error set.
PyObject* text_of(PyObject* value);

bool read_any_step(PyObject* object, std::int64_t& step) noexcept;

/// Reads a step: any object with __index__ except bool, within int64. False with an error set.
inline bool read_step(PyObject* object, std::int64_t& step) noexcept {
    return read_short_int(object, step) || read_any_step(object, step);
}

}  // namespace fastlog::bindings
