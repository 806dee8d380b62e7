// The values of one key in a chunk of lines, by row.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "reader/buffer.hpp"
#include "reader/number.hpp"
#include "reader/value.hpp"

namespace fastlog::reader {

/// A key as lines spell it, with its quotes and colon, to be recognised at one look.
class Spelling {
  public:
    void set(std::string_view text) {
        text_.assign(text);
        text_.resize(text.size() + kWords * 8);  // may be loaded whole
        size_ = text.size();
        for (std::size_t i = 0; i < kWords; ++i) {
            const std::size_t bytes = size_ > i * 8 ? std::min<std::size_t>(8, size_ - i * 8) : 0;
            words_[i] = load8(text_.data() + i * 8);
            masks_[i] = bytes == 8 ? ~std::uint64_t{0} : (std::uint64_t{1} << bytes * 8) - 1;
        }
    }

    bool begins(const char* p) const noexcept {
        if ((differs(p, 0) | differs(p, 1)) != 0 || size_ == 0) return false;
        if (size_ <= 16) return true;
        if ((differs(p, 2) | differs(p, 3)) != 0) return false;
        return size_ <= kWords * 8 ||
               std::memcmp(p + kWords * 8, text_.data() + kWords * 8, size_ - kWords * 8) == 0;
    }

    std::size_t size() const noexcept { return size_; }

  private:
    static constexpr std::size_t kWords = 4;

    std::uint64_t differs(const char* p, std::size_t word) const noexcept {
        return (load8(p + word * 8) ^ words_[word]) & masks_[word];
    }

    std::uint64_t words_[kWords] = {};
    std::uint64_t masks_[kWords] = {};
    std::size_t size_ = 0;
    std::string text_;
};

/// The entries of a key: for rows without one it takes no memory.
class Column {
  public:
    Column(std::string_view key, bool stored) : name(key), is_stored(stored) {}

    /// Appends an entry; rows ascend.
    void put(std::uint32_t row, Value value) {
        if (row == next_row_ && value.kind == kind_) [[likely]] {
            values_.push_back(value.bits);
            if (!rows_.empty()) rows_.push_back(row);
            if (!tags_.empty()) tags_.push_back(value.kind);
            next_row_ = row + 1;
            return;
        }
        put_slowly(row, value);
    }

    std::size_t size() const noexcept { return values_.size(); }
    bool empty() const noexcept { return values_.empty(); }

    /// Whether it has an entry for each row from its first one on.
    bool is_dense() const noexcept { return rows_.empty(); }
    std::uint32_t first_row() const noexcept { return first_row_; }
    std::uint32_t row(std::size_t entry) const noexcept {
        return rows_.empty() ? first_row_ + static_cast<std::uint32_t>(entry) : rows_[entry];
    }
    /// The first entry of a row, or of one behind it.
    std::size_t entry_at(std::uint32_t row) const noexcept {
        if (!rows_.empty()) {
            return static_cast<std::size_t>(std::lower_bound(rows_.begin(), rows_.end(), row) -
                                            rows_.begin());
        }
        return row <= first_row_ ? 0 : std::min<std::size_t>(row - first_row_, size());
    }

    /// The kinds of its entries; null where there is one.
    Kinds kinds() const noexcept { return kinds_; }
    bool is_uniform() const noexcept { return tags_.empty(); }
    Kind kind(std::size_t entry) const noexcept { return tags_.empty() ? kind_ : tags_[entry]; }
    std::uint64_t bits(std::size_t entry) const noexcept { return values_[entry]; }
    Value value(std::size_t entry) const noexcept { return {kind(entry), bits(entry)}; }
    const std::uint64_t* data() const noexcept { return values_.data(); }

    void reserve(std::size_t rows) { values_.reserve(rows); }

    /// Takes out the entries of the rows that `gone` names; returns how many there were. It is asked once
    /// for each entry, in order.
    template <class Gone>
    std::size_t erase_if(Gone gone) {
        const std::size_t before = size();
        std::size_t kept = 0;
        kinds_ = 0;
        for (std::size_t i = 0; i < before; ++i) {
            const std::uint32_t at = row(i);
            if (gone(at)) {
                if (rows_.empty()) list_rows();  // a gap is to come
                continue;
            }
            kinds_ = static_cast<Kinds>(kinds_ | bit_of(kind(i)));
            values_[kept] = values_[i];
            if (!rows_.empty()) rows_[kept] = at;
            if (!tags_.empty()) tags_[kept] = tags_[i];
            ++kept;
        }
        values_.resize(kept);
        if (!rows_.empty()) rows_.resize(kept);
        if (!tags_.empty()) tags_.resize(kept);
        return before - kept;
    }

    const std::string name;
    Spelling spelling;
    Column* next = nullptr;  // which key followed it last
    const bool is_stored;
    bool is_listed = false;  // a sound line has it; noted where names are listed
    std::int64_t first_time = 0;
    std::optional<std::int64_t> first_step;  // the least of the lines that have it, where asked for
    std::optional<double> first_epoch;       // of those without a step
    std::uint32_t role = 0;                  // of a field; see LineParser
    std::uint32_t place = 0;                 // where the parser has its value of this line
    std::uint32_t out = 0;                   // which column of a frame it goes to

  private:
    void put_slowly(std::uint32_t row, Value value);
    void list_rows();

    std::uint32_t first_row_ = 0;
    std::uint32_t next_row_ = UINT32_MAX;  // none yet
    Kind kind_ = Kind::kNull;              // of all entries, unless there are tags
    Kinds kinds_ = 0;
    Buffer<std::uint64_t> values_;
    Buffer<std::uint32_t> rows_;  // only where rows lie between the entries
    Buffer<Kind> tags_;           // only where the kinds differ
};

}  // namespace fastlog::reader
