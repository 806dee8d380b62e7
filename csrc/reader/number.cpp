#include "reader/number.hpp"

#include <locale.h>

#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#if defined(__APPLE__)
#include <xlocale.h>
#endif

namespace fastlog::reader {
namespace {

/// What strtod() makes of a number, in no locale.
double by_strtod(const char* begin, const char* end) noexcept {
    static const locale_t kNone = ::newlocale(LC_ALL_MASK, "C", nullptr);
    char few[128];
    const auto size = static_cast<std::size_t>(end - begin);
    if (size < sizeof few) {
        std::memcpy(few, begin, size);
        few[size] = 0;
        return ::strtod_l(few, nullptr, kNone);
    }
    auto* const many = static_cast<char*>(std::malloc(size + 1));
    if (many == nullptr) return std::numeric_limits<double>::infinity();
    std::memcpy(many, begin, size);
    many[size] = 0;
    const double number = ::strtod_l(many, nullptr, kNone);
    std::free(many);
    return number;
}

double to_double(const char* begin, const char* end) noexcept {
// libc++ has it for doubles from LLVM 20 on.
#if defined(__cpp_lib_to_chars)
    double number = 0;
    if (std::from_chars(begin, end, number).ec == std::errc()) return number;
    // Too large, or so small that it is 0 or loses digits: strtod() tells which.
#endif
    return by_strtod(begin, end);
}

/// The quotient and remainder of `high << 64` by `divisor`, where high < divisor.
std::uint64_t divide(std::uint64_t high, std::uint64_t divisor, std::uint64_t& rest) noexcept {
#if defined(__x86_64__)
    std::uint64_t quotient;
    std::uint64_t low = 0;
    __asm__("divq %4" : "=a"(quotient), "=d"(rest) : "a"(low), "d"(high), "r"(divisor) : "cc");
    return quotient;
#else
    __extension__ using Wide = unsigned __int128;
    const Wide number = static_cast<Wide>(high) << 64;
    rest = static_cast<std::uint64_t>(number % divisor);
    return static_cast<std::uint64_t>(number / divisor);
#endif
}

constexpr auto kFives = [] {
    std::array<std::uint64_t, kMostPlaces + 1> powers{1};
    for (std::size_t i = 1; i < powers.size(); ++i) powers[i] = powers[i - 1] * 5;
    return powers;
}();

}  // namespace

double divided(std::uint64_t mantissa, unsigned places) noexcept {
    // Both with their top bit set, then the numerator halved: the quotient has 63 or 64 bits.
    const int up = std::countl_zero(mantissa);
    const int up_divisor = std::countl_zero(kFives[places]);
    const std::uint64_t divisor = kFives[places] << up_divisor;
    std::uint64_t rest;
    std::uint64_t quotient = divide(mantissa << up >> 1, divisor, rest);
    const int shift = (quotient >> 63) != 0 ? 11 : 10;
    const std::uint64_t below = quotient & ((std::uint64_t{1} << shift) - 1);
    const std::uint64_t half = std::uint64_t{1} << (shift - 1);
    quotient >>= shift;
    if (below > half || (below == half && (rest != 0 || (quotient & 1) != 0))) ++quotient;
    const int exponent = up_divisor - up - 63 + shift - static_cast<int>(places);  // 10 = 5 * 2
    const auto scale = static_cast<std::uint64_t>(1023 + exponent) << 52;
    return static_cast<double>(quotient) * std::bit_cast<double>(scale);
}

const char* parse_any_number(const char* p, Value& out) noexcept {
    const char* const begin = p;
    p += *p == '-';
    const char* const digits = p;
    while (is_digit(*p)) ++p;
    if (p == digits || (*digits == '0' && p - digits > 1)) return nullptr;
    const char* const whole_end = p;
    if (*p == '.') {
        const char* const fraction = ++p;
        while (is_digit(*p)) ++p;
        if (p == fraction) return nullptr;
    }
    if ((*p | 0x20) == 'e') {
        ++p;
        if (*p == '-' || *p == '+') ++p;
        const char* const exponent = p;
        while (is_digit(*p)) ++p;
        if (p == exponent) return nullptr;
    }
    if (p == whole_end) {
        std::int64_t number = 0;
        if (std::from_chars(begin, p, number).ec == std::errc()) {
            out = Value::of_int(number);
            return p;
        }
        std::uint64_t big = 0;
        if (*begin != '-' && std::from_chars(begin, p, big).ec == std::errc()) {
            out = {Kind::kBig, big};
            return p;
        }
    }
    const double number = to_double(begin, p);
    if (!std::isfinite(number)) return nullptr;
    out = Value::of_double(number);
    return p;
}

}  // namespace fastlog::reader
