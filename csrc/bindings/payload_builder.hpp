// A metrics record's payload while its values are being encoded.
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
    /// Puts null in the place of a value that no line can hold.
    void leave_out(std::size_t i) noexcept {
        drop_device_argument(i);
        set(i, ValueTag::missing, kLeftOut);
    }
    bool is_left_out(std::size_t i) const noexcept {
        return tag(i) == ValueTag::missing && bits(i) == kLeftOut;
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
    std::string_view settled_text() const noexcept { return text(0); }

    /// Truncates the longest texts, marking their original length, so that the payload has at most `bytes` if
    /// possible; false with MemoryError set.
    bool shorten_texts(std::size_t bytes) noexcept;
    /// The indexes of the texts that shorten_texts() has truncated.
    const std::vector<std::size_t>& shortened() const noexcept { return shortened_; }

    const std::byte* data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }

  private:
    static constexpr std::uint64_t kLeftOut = missing_bits(MissingReason::unsupported);

    bool reserve(std::size_t bytes) noexcept;
    void drop_device_argument(std::size_t i) noexcept;
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
    std::vector<std::size_t> shortened_;
};

}  // namespace fastlog::bindings
