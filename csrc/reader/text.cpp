#include "reader/text.hpp"

namespace fastlog::reader {
namespace {

/// Reads four hexadecimal digits; -1 where they are none.
int hex4(const char* p) noexcept {
    int value = 0;
    for (int i = 0; i < 4; ++i) {
        const char c = p[i];
        int digit;
        if (is_digit(c)) {
            digit = c - '0';
        } else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f') {
            digit = (c | 0x20) - 'a' + 10;
        } else {
            return -1;
        }
        value = value << 4 | digit;
    }
    return value;
}

void append_character(std::string& out, std::uint32_t c) {
    const auto put = [&out](std::uint32_t byte) { out.push_back(static_cast<char>(byte)); };
    if (c < 0x80) {
        put(c);
    } else if (c < 0x800) {
        put(0xC0 | c >> 6);
        put(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
        put(0xE0 | c >> 12);
        put(0x80 | (c >> 6 & 0x3F));
        put(0x80 | (c & 0x3F));
    } else {
        put(0xF0 | c >> 18);
        put(0x80 | (c >> 12 & 0x3F));
        put(0x80 | (c >> 6 & 0x3F));
        put(0x80 | (c & 0x3F));
    }
}

/// Reads an escape behind its backslash. Returns what is behind it; null where it is none.
const char* parse_escape(const char* p, std::uint32_t& character) noexcept {
    switch (*p) {
        case '"':
        case '\\':
        case '/':
            character = static_cast<unsigned char>(*p);
            return p + 1;
        case 'b':
            character = '\b';
            return p + 1;
        case 'f':
            character = '\f';
            return p + 1;
        case 'n':
            character = '\n';
            return p + 1;
        case 'r':
            character = '\r';
            return p + 1;
        case 't':
            character = '\t';
            return p + 1;
        case 'u':
            break;
        default:
            return nullptr;
    }
    const int unit = hex4(p + 1);
    if (unit < 0) return nullptr;
    character = static_cast<std::uint32_t>(unit);
    if (unit < 0xD800 || unit > 0xDFFF) return p + 5;
    if (unit > 0xDBFF || p[5] != '\\' || p[6] != 'u') return nullptr;
    const int low = hex4(p + 7);
    if (low < 0xDC00 || low > 0xDFFF) return nullptr;
    character = 0x10000U + ((static_cast<std::uint32_t>(unit) - 0xD800U) << 10) +
                (static_cast<std::uint32_t>(low) - 0xDC00U);
    return p + 11;
}

/// Passes over a value that holds no others.
const char* skip_scalar(const char* p) noexcept {
    if (*p == '"') return skip_string(p + 1);
    return *p == '-' || is_digit(*p) ? skip_number(p) : skip_literal(p);
}

/// Passes over a key and its colon, from the opening quote on.
const char* skip_key(const char* p) noexcept {
    if (*p != '"' || (p = skip_string(p + 1)) == nullptr) return nullptr;
    p = skip_blanks(p);
    return *p == ':' ? skip_blanks(p + 1) : nullptr;
}

}  // namespace

const char* skip_literal(const char* p) noexcept {
    switch (*p) {
        case 't':
            return std::memcmp(p, "true", 4) == 0 ? p + 4 : nullptr;
        case 'f':
            return std::memcmp(p, "false", 5) == 0 ? p + 5 : nullptr;
        case 'n':
            return std::memcmp(p, "null", 4) == 0 ? p + 4 : nullptr;
        default:
            return nullptr;
    }
}

unsigned character_size(const char* p) noexcept {
    const auto byte = [p](int i) { return static_cast<unsigned char>(p[i]); };
    const auto follows = [&byte](int i) { return (byte(i) & 0xC0) == 0x80; };
    const unsigned first = byte(0);
    if (first >= 0xC2 && first < 0xE0) return follows(1) ? 2 : 0;
    if (first >= 0xE0 && first < 0xF0) {
        if (first == 0xE0 && byte(1) < 0xA0) return 0;  // has a shorter form
        if (first == 0xED && byte(1) > 0x9F) return 0;  // a surrogate
        return follows(1) && follows(2) ? 3 : 0;
    }
    if (first >= 0xF0 && first < 0xF5) {
        if (first == 0xF0 && byte(1) < 0x90) return 0;
        if (first == 0xF4 && byte(1) > 0x8F) return 0;  // past the last one
        return follows(1) && follows(2) && follows(3) ? 4 : 0;
    }
    return 0;
}

const char* parse_string(const char* p, std::string_view& text, std::string& scratch) {
    const char* plain = p;
    bool escaped = false;
    for (;;) {
        p = skip_plain(p);
        const auto c = static_cast<unsigned char>(*p);
        if (c == '"') break;
        if (c < 0x20) return nullptr;
        if (c >= 0x80) {
            const unsigned size = character_size(p);
            if (size == 0) return nullptr;
            p += size;
            continue;
        }
        if (!escaped) scratch.clear();
        escaped = true;
        scratch.append(plain, p);
        std::uint32_t character;
        plain = p = parse_escape(p + 1, character);
        if (p == nullptr) return nullptr;
        append_character(scratch, character);
    }
    if (escaped) {
        scratch.append(plain, p);
        text = scratch;
    } else {
        text = {plain, static_cast<std::size_t>(p - plain)};
    }
    return p + 1;
}

const char* skip_string(const char* p) noexcept {
    for (;;) {
        p = skip_plain(p);
        const auto c = static_cast<unsigned char>(*p);
        if (c == '"') return p + 1;
        if (c < 0x20) return nullptr;
        if (c >= 0x80) {
            const unsigned size = character_size(p);
            if (size == 0) return nullptr;
            p += size;
            continue;
        }
        std::uint32_t character;
        p = parse_escape(p + 1, character);
        if (p == nullptr) return nullptr;
    }
}

const char* skip_value(const char* p, unsigned depth) noexcept {
    // One bit for each open object (1) or array (0).
    std::uint64_t open[kMaxDepth / 64] = {};
    const unsigned outside = depth;
    for (;;) {
        // A value begins here.
        if (*p == '{' || *p == '[') {
            const bool object = *p == '{';
            if (depth == kMaxDepth) return nullptr;
            const std::uint64_t mask = std::uint64_t{1} << (depth & 63);
            open[depth >> 6] = object ? open[depth >> 6] | mask : open[depth >> 6] & ~mask;
            ++depth;
            p = skip_blanks(p + 1);
            if (*p != (object ? '}' : ']')) {
                if (object && (p = skip_key(p)) == nullptr) return nullptr;
                continue;
            }
            ++p;
            --depth;
        } else if ((p = skip_scalar(p)) == nullptr) {
            return nullptr;
        }
        // A value has ended here.
        for (;;) {
            if (depth == outside) return p;
            p = skip_blanks(p);
            const bool object = (open[(depth - 1) >> 6] >> ((depth - 1) & 63) & 1) != 0;
            if (*p == ',') {
                p = skip_blanks(p + 1);
                if (object && (p = skip_key(p)) == nullptr) return nullptr;
                break;
            }
            if (*p != (object ? '}' : ']')) return nullptr;
            ++p;
            --depth;
        }
    }
}

}  // namespace fastlog::reader
