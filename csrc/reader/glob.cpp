#include <cstddef>
#include <string_view>

#include "reader/line_parser.hpp"

namespace fastlog::reader {
namespace {

/// Whether a character is in the set that begins behind `[` at `at`, which becomes the place behind
/// it. A set without an end is none: `at` stays then.
bool in_set(std::string_view pattern, std::size_t& at, char c, bool& is_set) noexcept {
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
        const auto low = static_cast<unsigned char>(pattern[i++]);
        auto high = low;
        if (i + 1 < pattern.size() && pattern[i] == '-' && pattern[i + 1] != ']') {
            high = static_cast<unsigned char>(pattern[i + 1]);
            i += 2;
        }
        const auto byte = static_cast<unsigned char>(c);
        found |= low <= byte && byte <= high;
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
        bool same = false;
        std::size_t next = at + 1;
        if (at < pattern.size()) {
            const char c = pattern[at];
            if (c == '*') {
                star = ++at;
                taken = i;
                continue;
            }
            bool is_set = false;
            if (c == '[') same = in_set(pattern, next, name[i], is_set);
            if (!is_set) same = c == '?' || c == name[i];
        }
        if (same) {
            at = next;
            ++i;
        } else if (star != std::string_view::npos) {
            at = star;
            i = ++taken;
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
