// Times of lines: microseconds since 1970, in UTC.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "reader/number.hpp"

namespace fastlog::reader {

/// Stands for a timestamp that is not written as the format says.
constexpr std::int64_t kNoTime = INT64_MIN;

/// Reads timestamps, most of which lie in the second of the one before.
class MomentReader {
  public:
    /// Reads `2026-01-30T14:32:15.123456Z` and its closing quote at `p`; kNoTime for anything else.
    std::int64_t read(const char* p) noexcept {
        // Five digits and what is behind them: of eight bytes from the point on, and two more.
        if (load8(p) != day_[0] || load8(p + 8) != day_[1] || load4(p + 16) != second_)
            [[unlikely]] {
            if (!read_second(p)) return kNoTime;
        }
        const std::uint64_t word = load8(p + 18);
        // '5', '.', six digits
        const std::uint64_t digits = (word & ~std::uint64_t{0xFFFF}) | 0x3030;
        if (count_digits(digits) != 8 || p[26] != 'Z' || p[27] != '"') return kNoTime;
        return base_us_ + static_cast<std::int64_t>(eight_digits(digits));
    }

    static constexpr std::size_t kSize = 27;

  private:
    static std::uint32_t load4(const char* p) noexcept {
        std::uint32_t word;
        std::memcpy(&word, p, sizeof word);
        return word;
    }
    bool read_second(const char* p) noexcept;

    std::uint64_t day_[2] = {0, 0};  // no text begins with a zero byte
    std::uint32_t second_ = 0;
    std::int64_t base_us_ = 0;
};

/// Writes a time as lines have it.
std::string moment_text(std::int64_t us);

}  // namespace fastlog::reader
