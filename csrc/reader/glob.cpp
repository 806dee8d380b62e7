#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "reader/line_parser.hpp"

namespace fastlog::reader {
namespace {

/// The character of UTF-8 at a place, and how many bytes it has; a byte that begins none is one.
struct Character {
    Character(std::string_view text, std::size_t at) noexcept {
        const auto first = static_cast<unsigned char>(text[at]);
        const std::size_t count = first < 0xC0 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
        size = std::min(count, text.size() - at);
        // Alike for equal characters, and in their order.
        for (const char c : text.substr(at, size)) code = code << 8 | static_cast<unsigned char>(c);
    }

    std::uint32_t code = 0;
    std::size_t size;
};

/// Whether a character is in the set that begins behind `[` at `at`, which becomes the place behind
/// it. A set without an end is none: `at` stays then.
bool in_set(std::string_view pattern, std::size_t& at, Character c, bool& is_set) noexcept {
    std::size_t i = at;
    const bool negated = i < pattern.size() && pattern[i] == '!';
    if (negated) ++i;
    bool found = false;
    for (bool first = true; i < pattern.size(); first = false) {
        if (pattern[i] == ']' && !first) {
            at = i + 1;
            is_set = true;
            return found != negated;
        }
        const Character low(pattern, i);
        i += low.size;
        std::uint32_t high = low.code;
        if (i + 1 < pattern.size() && pattern[i] == '-' && pattern[i + 1] != ']') {
            const Character last(pattern, i + 1);
            high = last.code;
            i += 1 + last.size;
        }
        found |= low.code <= c.code && c.code <= high;
    }
    is_set = false;
    return false;
}

}  // namespace

bool fits(std::string_view pattern, std::string_view name) noexcept {
    if (pattern == name) return true;
    // Behind the last star, and what of the name it has taken: to go back to.
    std::size_t star = std::string_view::npos;
    std::size_t taken = 0;
    std::size_t at = 0;
    std::size_t i = 0;
    while (i < name.size()) {
        const Character here(name, i);
        bool same = false;
        std::size_t next = at + 1;
        std::size_t size = 1;  // of what fits: bytes are compared one by one
        if (at < pattern.size()) {
            const char c = pattern[at];
            if (c == '*') {
                star = ++at;
                taken = i;
                continue;
            }
            bool is_set = false;
            if (c == '[') same = in_set(pattern, next, here, is_set);
            if (!is_set) same = c == '?' || c == name[i];
            if (is_set || c == '?') size = here.size;
        }
        if (same) {
            at = next;
            i += size;
        } else if (star != std::string_view::npos) {
            at = star;
            i = taken += Character(name, taken).size;
        } else {
            return false;
        }
    }
    while (at < pattern.size() && pattern[at] == '*') ++at;
    return at == pattern.size();
}

bool Wanted::has(std::string_view name) const {
    if (all) return true;
    for (const std::string& pattern : patterns) {
        if (exact ? pattern == name : fits(pattern, name)) return true;
    }
    return false;
}

}  // namespace fastlog::reader
