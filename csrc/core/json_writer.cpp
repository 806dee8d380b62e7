#include "core/json_writer.hpp"

#include <array>
#include <charconv>
#include <chrono>
#include <cmath>

namespace fastlog::json {
namespace {

// 0: copy as it is; 'u': \u00XX; otherwise the character after the backslash.
constexpr std::array<char, 256> make_escapes() {
    std::array<char, 256> table{};
    for (int c = 0; c < 0x20; ++c) table[static_cast<std::size_t>(c)] = 'u';
    table['\b'] = 'b';
    table['\t'] = 't';
    table['\n'] = 'n';
    table['\f'] = 'f';
    table['\r'] = 'r';
    table['"'] = '"';
    table['\\'] = '\\';
    return table;
}
constexpr auto kEscapes = make_escapes();

void two_digits(char* at, unsigned value) {
    at[0] = static_cast<char>('0' + value / 10);
    at[1] = static_cast<char>('0' + value % 10);
}

}  // namespace

void append_string(std::string& out, std::string_view text) {
    static constexpr char kHex[] = "0123456789abcdef";
    out.push_back('"');
    std::size_t plain = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const auto c = static_cast<unsigned char>(text[i]);
        const char escape = kEscapes[c];
        if (escape == 0) [[likely]]
            continue;
        out.append(text, plain, i - plain);
        plain = i + 1;
        out.push_back('\\');
        out.push_back(escape);
        if (escape == 'u') {
            out.append("00");
            out.push_back(kHex[c >> 4]);
            out.push_back(kHex[c & 15]);
        }
    }
    out.append(text, plain);
    out.push_back('"');
}

void append_double(std::string& out, double value) {
    if (!std::isfinite(value)) {
        out.append("null");
        return;
    }
    char buffer[32];
    const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
    bool marked = false;
    for (const char* p = buffer; p != end; ++p) marked |= (*p == '.') | (*p == 'e');
    out.append(buffer, static_cast<std::size_t>(end - buffer));
    if (!marked) out.append(".0");
}

void append_int(std::string& out, std::int64_t value) {
    char buffer[24];
    const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
    out.append(buffer, static_cast<std::size_t>(end - buffer));
}

void append_uint(std::string& out, std::uint64_t value) {
    char buffer[24];
    const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
    out.append(buffer, static_cast<std::size_t>(end - buffer));
}

const char* nonfinite_name(double value) noexcept {
    if (std::isnan(value)) return "nan";
    if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
    return nullptr;
}

void TimestampWriter::append(std::string& out, std::int64_t wall_ns) {
    constexpr std::int64_t kNsPerSecond = 1'000'000'000;
    std::int64_t second = wall_ns / kNsPerSecond;
    std::int64_t ns = wall_ns % kNsPerSecond;
    if (ns < 0) {
        ns += kNsPerSecond;
        --second;
    }
    if (second != second_) {
        const std::chrono::sys_seconds moment{std::chrono::seconds(second)};
        const auto midnight = std::chrono::floor<std::chrono::days>(moment);
        const std::chrono::year_month_day date(midnight);
        const auto year = static_cast<unsigned>(static_cast<int>(date.year()));
        const auto s = static_cast<unsigned>((moment - midnight).count());
        two_digits(text_, year / 100 % 100);
        two_digits(text_ + 2, year % 100);
        text_[4] = '-';
        two_digits(text_ + 5, static_cast<unsigned>(date.month()));
        text_[7] = '-';
        two_digits(text_ + 8, static_cast<unsigned>(date.day()));
        text_[10] = 'T';
        two_digits(text_ + 11, s / 3600);
        text_[13] = ':';
        two_digits(text_ + 14, s / 60 % 60);
        text_[16] = ':';
        two_digits(text_ + 17, s % 60);
        text_[19] = '.';
        second_ = second;
    }
    const auto us = static_cast<unsigned>(ns / 1000);
    char tail[7];
    two_digits(tail, us / 10000);
    two_digits(tail + 2, us / 100 % 100);
    two_digits(tail + 4, us % 100);
    tail[6] = 'Z';
    out.append(text_, sizeof text_);
    out.append(tail, sizeof tail);
}

}  // namespace fastlog::json
