// Strings and any other values of strict JSON (RFC 8259), as orjson takes them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "reader/number.hpp"

namespace fastlog::reader {

/// Objects and arrays within each other, the line's own included.
constexpr unsigned kMaxDepth = 1024;

inline const char* skip_blanks(const char* p) noexcept {
    while (*p == ' ' || *p == '\t' || *p == '\r') ++p;
    return p;
}

/// Passes over plain ASCII within a string: up to a quote, a backslash, a control character or a
/// byte of several that make one character.
inline const char* skip_plain(const char* p) noexcept {
    constexpr std::uint64_t kOnes = 0x0101010101010101U;
    constexpr std::uint64_t kTops = 0x8080808080808080U;
    for (;; p += 8) {
        const std::uint64_t word = load8(p);
        const std::uint64_t quote = word ^ (kOnes * '"');
        const std::uint64_t slash = word ^ (kOnes * '\\');
        // The first byte that it marks is one: a borrow comes out of marked bytes only.
        const std::uint64_t odd =
            ((quote - kOnes) | (slash - kOnes) | (word - kOnes * 0x20) | word) & kTops;
        if (odd == 0) continue;
        return p + static_cast<unsigned>(std::countr_zero(odd)) / 8;
    }
}

/// Bytes of the character of UTF-8 that begins at `p`, which is none of ASCII; 0 where it is
/// malformed.
unsigned character_size(const char* p) noexcept;

/// Reads a string behind its opening quote. `text` becomes its value: a part of the line, or where
/// it has escapes, of `scratch`. Returns what is behind the closing quote; null where it is none.
const char* parse_string(const char* p, std::string_view& text, std::string& scratch);

/// Passes over a string behind its opening quote; null where it is none.
const char* skip_string(const char* p) noexcept;

/// Passes over true, false or null; null where it is none of them.
const char* skip_literal(const char* p) noexcept;

/// Passes over any value, at `depth` objects and arrays; null where it is none.
const char* skip_value(const char* p, unsigned depth) noexcept;

}  // namespace fastlog::reader
