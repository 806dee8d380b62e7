// The only code that turns Python objects into record bytes.
#pragma once

#include <Python.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

#include "bindings/tensors.hpp"
#include "core/record.hpp"

namespace fastlog::bindings {

/// A device value: its index in the record, and its element.
struct DeviceArgument {
    std::size_t index;
    PyObject* value;  // borrowed
    Element element;
};

/// A metrics payload under construction: on the stack for normal records, on the heap for large ones.
class PayloadBuilder {
  public:
    PayloadBuilder() = default;
    ~PayloadBuilder();
    PayloadBuilder(const PayloadBuilder&) = delete;
    PayloadBuilder& operator=(const PayloadBuilder&) = delete;

    /// Room for `count` values; false with MemoryError set.
    bool begin(std::size_t count) noexcept;
    void set_step(std::int64_t step) noexcept { std::memcpy(data_, &step, sizeof step); }
    void set_flags(std::uint16_t flags) noexcept {
        std::memcpy(data_ + offsetof(MetricsPayload, flags), &flags, sizeof flags);
    }

    void set(std::size_t i, ValueTag tag, std::uint64_t bits) noexcept {
        data_[sizeof(MetricsPayload) + i] = static_cast<std::byte>(tag);
        std::memcpy(data_ + metrics_values_offset(count_) + i * sizeof bits, &bits, sizeof bits);
    }
    ValueTag tag(std::size_t i) const noexcept {
        return static_cast<ValueTag>(data_[sizeof(MetricsPayload) + i]);
    }
    /// Copies the text after the values; false with MemoryError or ValueError set.
    bool set_string(std::size_t i, std::string_view text) noexcept;
    /// Adds a value that a device has to deliver; takes over the element's references. False with MemoryError
    /// set.
    bool add_device_argument(std::size_t i, PyObject* value, const Element& element) noexcept;
    const std::vector<DeviceArgument>& device_arguments() const noexcept { return arguments_; }
    std::vector<DeviceArgument>& device_arguments() noexcept { return arguments_; }
    void set_key_set(std::uint32_t id) noexcept {
        std::memcpy(data_ + offsetof(MetricsPayload, key_set), &id, sizeof id);
    }

    /// The only value of a payload with one value.
    SettledValue settled() const noexcept { return {tag(0), bits(0)}; }

    /// Truncates the longest texts, marking their original length, so that the payload has at most `bytes` if
    /// possible; false with MemoryError set.
    bool shorten_texts(std::size_t bytes) noexcept;

    const std::byte* data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }

  private:
    bool reserve(std::size_t bytes) noexcept;
    std::uint64_t bits(std::size_t i) const noexcept {
        std::uint64_t bits;
        std::memcpy(&bits, data_ + metrics_values_offset(count_) + i * sizeof bits, sizeof bits);
        return bits;
    }
    std::string_view text(std::size_t i) const noexcept {
        return {
            reinterpret_cast<const char*>(data_) + metrics_strings_offset(count_) + (bits(i) >> 32),
            static_cast<std::uint32_t>(bits(i))};
    }

    alignas(8) std::byte inline_[1024];
    std::unique_ptr<std::byte[]> heap_;
    std::byte* data_ = inline_;
    std::size_t capacity_ = sizeof inline_;
    std::size_t count_ = 0;
    std::size_t size_ = 0;
    std::vector<DeviceArgument> arguments_;
};

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
