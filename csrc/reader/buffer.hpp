// Memory that grows, and is not cleared before it is written.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <type_traits>
#include <utility>

namespace fastlog::reader {

/// A vector of plain values. Grows by realloc(), which moves large ones by their page tables alone.
template <class T>
class Buffer {
    static_assert(std::is_trivially_copyable_v<T>);

  public:
    Buffer() = default;
    Buffer(Buffer&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)),
          size_(std::exchange(other.size_, 0)),
          room_(std::exchange(other.room_, 0)) {}
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        std::swap(room_, other.room_);
        return *this;
    }
    ~Buffer() { std::free(data_); }

    void push_back(T value) {
        if (size_ == room_) [[unlikely]]
            reserve(room_ < 16 ? 16 : room_ * 2);
        data_[size_++] = value;
    }

    /// The same where there is room.
    void put(T value) noexcept { data_[size_++] = value; }

    void append(const T* from, std::size_t count) {
        if (count == 0) return;
        if (room_ - size_ < count) reserve(size_ + count > room_ * 2 ? size_ + count : room_ * 2);
        std::memcpy(data_ + size_, from, count * sizeof(T));
        size_ += count;
    }

    /// Makes room for at least so many values.
    void reserve(std::size_t count) {
        if (count <= room_) return;
        if (count > std::numeric_limits<std::size_t>::max() / sizeof(T)) throw std::bad_alloc();
        auto* grown = static_cast<T*>(std::realloc(data_, count * sizeof(T)));
        if (grown == nullptr) throw std::bad_alloc();
        data_ = grown;
        room_ = count;
    }

    /// Values beyond the old size are whatever was there.
    void resize(std::size_t count) {
        reserve(count);
        size_ = count;
    }

    void clear() noexcept { size_ = 0; }
    std::size_t size() const noexcept { return size_; }
    std::size_t room() const noexcept { return room_; }
    bool empty() const noexcept { return size_ == 0; }
    T* data() noexcept { return data_; }
    const T* data() const noexcept { return data_; }
    T& operator[](std::size_t at) noexcept { return data_[at]; }
    const T& operator[](std::size_t at) const noexcept { return data_[at]; }
    T& back() noexcept { return data_[size_ - 1]; }
    const T* begin() const noexcept { return data_; }
    const T* end() const noexcept { return data_ + size_; }

  private:
    T* data_ = nullptr;
    std::size_t size_ = 0;
    std::size_t room_ = 0;
};

}  // namespace fastlog::reader
