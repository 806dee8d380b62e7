#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>

#include "doctest/doctest.h"
#include "reader/number.hpp"

namespace {

using namespace fastlog::reader;

struct Read {
    Value value;
    std::ptrdiff_t size = -1;     // -1: none
    std::ptrdiff_t skipped = -1;  // likewise, by who only passes over it
};

Read read(const std::string& text) {
    const std::string padded = text + std::string(kPadding, '\0');
    Read out;
    const char* const p = padded.data();
    if (const char* end = parse_number(p, out.value)) out.size = end - p;
    if (const char* end = skip_number(p)) out.skipped = end - p;
    return out;
}

TEST_CASE("what is an integer, and how large, is kept") {
    const auto is = [](const char* text, Kind kind, std::uint64_t bits) {
        const Read got = read(text);
        CAPTURE(text);
        CHECK(got.value.kind == kind);
        CHECK(got.value.bits == bits);
        CHECK(got.size == static_cast<std::ptrdiff_t>(std::strlen(text)));
        CHECK(got.skipped == got.size);
    };
    is("0", Kind::kInt, 0);
    is("-0", Kind::kInt, 0);
    is("123456789", Kind::kInt, 123456789);
    is("9223372036854775807", Kind::kInt, INT64_MAX);
    is("-9223372036854775808", Kind::kInt, std::uint64_t{1} << 63);
    is("9223372036854775808", Kind::kBig, std::uint64_t{1} << 63);
    is("18446744073709551615", Kind::kBig, UINT64_MAX);
    is("18446744073709551616", Kind::kDouble, std::bit_cast<std::uint64_t>(18446744073709551616.0));
    is("-9223372036854775809", Kind::kDouble, std::bit_cast<std::uint64_t>(-9223372036854775808.0));
    is("1.0", Kind::kDouble, std::bit_cast<std::uint64_t>(1.0));
    is("-0.0", Kind::kDouble, std::bit_cast<std::uint64_t>(-0.0));
}

TEST_CASE("what is no number of JSON is none") {
    for (const char* text : {"", "-", "01", "-01", "1.", "1.e5", ".5", "1e", "1e+", "+1", "1e400",
                             "-1e400", "nan", "Infinity", "1e99999999999"}) {
        CAPTURE(text);
        CHECK(read(text).size == -1);
        CHECK(read(text).skipped == -1);
    }
    CHECK(read(std::string(310, '9')).size == -1);
    CHECK(read("0x10").size == 1);  // what follows is no part of it
}

TEST_CASE("every decimal reads as the double that is nearest to it") {
    std::mt19937_64 random(1);
    char text[256];
    const auto unit = [&random] { return static_cast<double>(random() >> 11) * 0x1p-53; };
    int wrong = 0;
    for (int i = 0; i < 200'000; ++i) {
        switch (random() % 6) {
            case 0: {
                const double any = std::bit_cast<double>(random());
                std::snprintf(text, sizeof text, "%.17g", std::isfinite(any) ? any : 1.0);
                break;
            }
            case 1: {
                const double size = std::pow(10, static_cast<int>(random() % 12) - 6);
                std::snprintf(text, sizeof text, "%.*f", static_cast<int>(random() % 20),
                              unit() * size);
                break;
            }
            case 2:
                std::snprintf(text, sizeof text, "%d.%llue%d", static_cast<int>(random() % 1000),
                              static_cast<unsigned long long>(random() >> random() % 64),
                              static_cast<int>(random() % 60) - 40);
                break;
            case 3:
                std::snprintf(text, sizeof text, "0.%0*d%llu", static_cast<int>(random() % 12) + 1,
                              0, static_cast<unsigned long long>(random() >> random() % 64));
                break;
            case 4:
                std::snprintf(text, sizeof text, "%llu",
                              static_cast<unsigned long long>(random() >> random() % 64));
                break;
            default: {  // halfway between two doubles, or just beside
                const auto odd =
                    static_cast<long double>(random() >> 11 | std::uint64_t{1} << 52) + 0.5L;
                std::snprintf(text, sizeof text, "%.*Lf", static_cast<int>(random() % 3),
                              std::ldexp(odd, -static_cast<int>(random() % 10)));
            }
        }
        const Read got = read(text);
        const bool same = std::bit_cast<std::uint64_t>(as_double(got.value)) ==
                          std::bit_cast<std::uint64_t>(std::strtod(text, nullptr));
        if (!same || got.size != static_cast<std::ptrdiff_t>(std::strlen(text)) ||
            got.skipped != got.size) {
            ++wrong;
            MESSAGE(text);
        }
    }
    CHECK(wrong == 0);
}

}  // namespace
