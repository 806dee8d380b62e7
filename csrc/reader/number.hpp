// Numbers of JSON. The text lies in a buffer with kPadding readable bytes behind its last newline.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "reader/value.hpp"

namespace fastlog::reader {

/// Bytes behind the text of a buffer that may be read, whatever they are.
constexpr std::size_t kPadding = 64;

inline std::uint64_t load8(const char* p) noexcept {
    std::uint64_t word;
    std::memcpy(&word, p, sizeof word);
    if constexpr (std::endian::native == std::endian::big) word = __builtin_bswap64(word);
    return word;
}

constexpr bool is_digit(char c) noexcept { return static_cast<unsigned char>(c - '0') < 10; }

/// How many of eight bytes are digits before the first one that is none.
constexpr unsigned count_digits(std::uint64_t word) noexcept {
    constexpr std::uint64_t kHigh = 0xF0F0F0F0F0F0F0F0U;
    constexpr std::uint64_t kZeros = 0x3030303030303030U;
    // A carry comes out of a byte that is no digit, and only what is below it counts.
    const std::uint64_t odd =
        ((word & kHigh) ^ kZeros) | (((word + 0x0606060606060606U) & kHigh) ^ kZeros);
    return static_cast<unsigned>(std::countr_zero(odd)) / 8;
}

/// The number of eight digits, the first of them in the lowest byte. A zero byte is a zero.
constexpr std::uint64_t eight_digits(std::uint64_t word) noexcept {
    word = (word & 0x0F0F0F0F0F0F0F0FU) * 2561 >> 8;
    word = (word & 0x00FF00FF00FF00FFU) * 6553601 >> 16;
    return (word & 0x0000FFFF0000FFFFU) * 42949672960001U >> 32;
}

constexpr std::uint64_t kTens[] = {1,       10,        100,        1'000,      10'000,
                                   100'000, 1'000'000, 10'000'000, 100'000'000};

/// Which of the 32 bytes at `p` are digits, the first one in the lowest bit. One look at all of them
/// is as quick as one at eight, and what follows need not wait for the next one.
inline std::uint32_t digit_mask(const char* p) noexcept {
#if defined(__SSE2__)
    const auto half = [](const char* at) {
        const __m128i bytes =
            _mm_sub_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)), _mm_set1_epi8('0'));
        const __m128i digits = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(9)), bytes);
        return static_cast<std::uint32_t>(_mm_movemask_epi8(digits));
    };
    return half(p) | half(p + 16) << 16;
#else
    std::uint32_t mask = 0;
    for (unsigned i = 0; i < 4; ++i) {
        // The lowest bit of each byte, gathered in the top one.
        const std::uint64_t word = load8(p + 8 * i);
        const std::uint64_t low = word & 0x7F7F7F7F7F7F7F7FU;
        const std::uint64_t odd = (low + 0x4646464646464646U) | ~(low + 0x5050505050505050U) | word;
        const std::uint64_t digits = ~odd >> 7 & 0x0101010101010101U;
        mask |= static_cast<std::uint32_t>(digits * 0x0102040810204080U >> 56) << 8 * i;
    }
    return mask;
#endif
}

/// The number of the first `count` digits of a word, up to eight.
constexpr std::uint64_t some_digits(std::uint64_t word, unsigned count) noexcept {
    // Shifted up, they stand behind zeros.
    return count == 0 ? 0 : eight_digits(word << (64 - 8 * count));
}

/// Reads any number by the rules of JSON, slowly; null where it is none, or has no double.
const char* parse_any_number(const char* p, Value& out) noexcept;

/// `mantissa / 10^places`, rounded to nearest; 0 < mantissa < 2^63, places <= kMostPlaces.
double divided(std::uint64_t mantissa, unsigned places) noexcept;
constexpr std::ptrdiff_t kMostPlaces = 27;  // 5^27 fits

constexpr double kPowers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                              1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                              1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

/// Reads a number. Returns where it ends, null where it is none or has no double.
inline const char* parse_number(const char* p, Value& out) noexcept {
    const char* const begin = p;
    const bool negative = *p == '-';
    p += negative;
    const std::uint32_t mask = digit_mask(p);
    const auto whole = static_cast<unsigned>(std::countr_one(mask));
    if (whole == 0 || (*p == '0' && whole > 1)) return nullptr;
    if (whole > 16) return parse_any_number(begin, out);
    std::uint64_t mantissa = whole <= 8 ? some_digits(load8(p), whole)
                                        : eight_digits(load8(p)) * kTens[whole - 8] +
                                              some_digits(load8(p + 8), whole - 8);
    const char* const fraction = p + whole + 1;
    p += whole;
    if (*p != '.' && (*p | 0x20) != 'e') {
        const auto number = static_cast<std::int64_t>(mantissa);
        out = Value::of_int(negative ? -number : number);
        return p;
    }
    std::ptrdiff_t places = 0;
    if (*p == '.') {
        const auto count = static_cast<unsigned>(std::countr_one(mask >> whole >> 1));
        if (count == 0) return nullptr;
        if (whole + 1 + count >= 32 || count > 24) return parse_any_number(begin, out);
        // Digits that count are 19 at most: those behind zeros at the front are more.
        if (whole + count > 19) {
            if (mantissa != 0) return parse_any_number(begin, out);
            const char* at = fraction;
            while (*at == '0') ++at;
            if (count - static_cast<unsigned>(at - fraction) > 19) {
                return parse_any_number(begin, out);
            }
        }
        if (count <= 8) {
            mantissa = mantissa * kTens[count] + some_digits(load8(fraction), count);
        } else {
            // By numbers instead of branches: how many there are differs from value to value.
            const unsigned second = count < 16 ? count - 8 : 8;
            const unsigned third = count - 8 - second;
            mantissa = mantissa * 100'000'000 + eight_digits(load8(fraction));
            mantissa = mantissa * kTens[second] + some_digits(load8(fraction + 8), second);
            mantissa = mantissa * kTens[third] + some_digits(load8(fraction + 16), third);
        }
        p = fraction + count;
        places = count;
    }
    if ((*p | 0x20) == 'e') {
        ++p;
        const bool down = *p == '-';
        if (down || *p == '+') ++p;
        const unsigned count = count_digits(load8(p));
        if (count == 0) return nullptr;
        if (count > 4) return parse_any_number(begin, out);
        const auto exponent = static_cast<std::ptrdiff_t>(some_digits(load8(p), count));
        p += count;
        places += down ? exponent : -exponent;
    }
    double number;
    if (mantissa <= std::uint64_t{1} << 53 && places <= 22 && places >= -22) {
        // Both are exact, so the one operation rounds rightly.
        number = static_cast<double>(mantissa);
        number = places < 0 ? number * kPowers[-places] : number / kPowers[places];
    } else if (places > 0 && places <= kMostPlaces && mantissa >> 63 == 0) {
        number = divided(mantissa, static_cast<unsigned>(places));
    } else {
        return parse_any_number(begin, out);
    }
    out = Value::of_double(negative ? -number : number);
    return p;
}

/// Passes over a number; null where it is none or has no double.
inline const char* skip_number(const char* p) noexcept {
    const char* const begin = p;
    p += *p == '-';
    const std::uint32_t mask = digit_mask(p);
    const auto whole = static_cast<unsigned>(std::countr_one(mask));
    if (whole == 0 || (*p == '0' && whole > 1)) return nullptr;
    unsigned size = whole;
    if (whole < 31 && p[whole] == '.') {
        const auto count = static_cast<unsigned>(std::countr_one(mask >> whole >> 1));
        if (count == 0) return nullptr;
        size += 1 + count;
    }
    Value ignored;
    if (size >= 31) return parse_any_number(begin, ignored);
    if ((p[size] | 0x20) != 'e') return p + size;
    p += size + 1;
    if (*p == '-' || *p == '+') ++p;
    const unsigned count = count_digits(load8(p));
    if (count == 0) return nullptr;
    // With an exponent below 100 so few digits are finite.
    return count <= 2 ? p + count : parse_any_number(begin, ignored);
}

}  // namespace fastlog::reader
