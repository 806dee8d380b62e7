#include "bindings/payload_builder.hpp"

#include <algorithm>
#include <new>
#include <string>

namespace fastlog::bindings {
namespace {

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

void release(const DeviceArgument& argument) noexcept {
    Py_XDECREF(argument.element.holder);
    Py_XDECREF(argument.element.keep);
}

}  // namespace

[[gnu::hot]] PayloadBuilder::~PayloadBuilder() {
    for (const DeviceArgument& argument : arguments_) release(argument);
}

void PayloadBuilder::drop_device_argument(std::size_t i) noexcept {
    const auto found =
        std::find_if(arguments_.begin(), arguments_.end(),
                     [&](const DeviceArgument& argument) { return argument.index == i; });
    if (found == arguments_.end()) return;
    const DeviceArgument dropped = *found;
    arguments_.erase(found);
    release(dropped);
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

[[gnu::hot]] bool PayloadBuilder::begin(std::size_t count) noexcept {
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
            if (text(i).size() > limit) shortened_.push_back(i);
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

}  // namespace fastlog::bindings
