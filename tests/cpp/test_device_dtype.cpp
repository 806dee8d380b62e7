// Bytes of scalars to numbers: each 8-bit format in all of its 256 values, by a slow formula that is
// written a second time here.
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <set>
#include <string>

#include "device/dtype.hpp"
#include "test_support.hpp"

using namespace fastlog;
using namespace fastlog::test;

namespace {

template <class T>
SettledValue decoded(DType type, T value) {
    return decode(type, &value);
}

double number(const SettledValue& value) {
    REQUIRE(value.tag == ValueTag::real);
    return std::bit_cast<double>(value.bits);
}

bool same(double a, double b) {
    if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
    return std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b);  // -0.0 is not 0.0
}

// What "Formats for Deep Learning" and ml_dtypes say of a format, with what follows from it.
struct Format {
    DType type;
    std::uint8_t code;  // DLPack's
    int exponent;
    int mantissa;
    int bias;
    std::set<int> nans;
    std::set<int> infinities;
    double largest;
    double smallest;
};

std::set<int> above(int first, int last) {
    std::set<int> all;
    for (int i = first; i <= last; ++i) all.insert({i, i | 0x80});
    return all;
}

const std::vector<Format>& formats() {
    static const std::vector<Format> all = {
        {DType::float8_e3m4, 7, 3, 4, 3, above(0x71, 0x7F), {0x70, 0xF0}, 15.5, 0x1p-6},
        {DType::float8_e4m3, 8, 4, 3, 7, above(0x79, 0x7F), {0x78, 0xF8}, 240, 0x1p-9},
        {DType::float8_e4m3b11fnuz, 9, 4, 3, 11, {0x80}, {}, 30, 0x1p-13},
        {DType::float8_e4m3fn, 10, 4, 3, 7, {0x7F, 0xFF}, {}, 448, 0x1p-9},
        {DType::float8_e4m3fnuz, 11, 4, 3, 8, {0x80}, {}, 240, 0x1p-10},
        {DType::float8_e5m2, 12, 5, 2, 15, above(0x7D, 0x7F), {0x7C, 0xFC}, 57344, 0x1p-16},
        {DType::float8_e5m2fnuz, 13, 5, 2, 16, {0x80}, {}, 57344, 0x1p-17},
    };
    return all;
}

// Bit by bit, with nothing but products and sums of powers of two.
double slowly(const Format& f, int bits) {
    if (f.nans.contains(bits)) return std::numeric_limits<double>::quiet_NaN();
    const double sign = bits & 0x80 ? -1 : 1;
    if (f.infinities.contains(bits)) return sign * std::numeric_limits<double>::infinity();
    int exponent = 0;
    for (int i = 0; i < f.exponent; ++i) exponent += bits >> (f.mantissa + i) & 1 ? 1 << i : 0;
    double fraction = exponent == 0 ? 0 : 1;
    for (int i = 0; i < f.mantissa; ++i) {
        if (bits >> i & 1) fraction += std::pow(2.0, i - f.mantissa);
    }
    return sign * fraction * std::pow(2.0, (exponent == 0 ? 1 : exponent) - f.bias);
}

// IEEE 754's 16 bits the same way.
double slow_half(int bits) {
    const int exponent = bits >> 10 & 0x1F;
    const int mantissa = bits & 0x3FF;
    const double sign = bits & 0x8000 ? -1 : 1;
    if (exponent == 31) {
        return mantissa != 0 ? std::numeric_limits<double>::quiet_NaN()
                             : sign * std::numeric_limits<double>::infinity();
    }
    if (exponent == 0) return sign * mantissa / 1024.0 * std::pow(2.0, -14);
    return sign * (1 + mantissa / 1024.0) * std::pow(2.0, exponent - 15);
}

}  // namespace

TEST_SUITE("device dtype") {
    TEST_CASE("should decode all values of the 8-bit floats as a slow formula does") {
        for (const Format& format : formats()) {
            CAPTURE(static_cast<int>(format.type));
            double largest = 0;
            double smallest = 1;
            for (int bits = 0; bits < 256; ++bits) {
                CAPTURE(bits);
                const double found = number(decoded(format.type, static_cast<std::uint8_t>(bits)));
                REQUIRE(same(found, slowly(format, bits)));
                if (!std::isfinite(found)) continue;
                largest = std::max(largest, found);
                if (found > 0) smallest = std::min(smallest, found);
            }
            CHECK(largest == format.largest);
            CHECK(smallest == format.smallest);
        }
    }

    TEST_CASE("should decode the 8-bit exponents as powers of two, the last as NaN") {
        for (int bits = 0; bits < 255; ++bits) {
            const double found =
                number(decoded(DType::float8_e8m0fnu, static_cast<std::uint8_t>(bits)));
            REQUIRE(found == std::pow(2.0, bits - 127));
        }
        CHECK(std::isnan(number(decoded(DType::float8_e8m0fnu, std::uint8_t{255}))));
    }

    TEST_CASE("should decode all values of both 16-bit floats") {
        for (int bits = 0; bits < 65536; ++bits) {
            const auto raw = static_cast<std::uint16_t>(bits);
            const auto wide = std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
            if (!same(number(decoded(DType::float16, raw)), slow_half(bits))) FAIL_CHECK(bits);
            if (!same(number(decoded(DType::bfloat16, raw)), wide)) FAIL_CHECK(bits);
        }
    }

    TEST_CASE("should decode 32- and 64-bit floats bit for bit, from any address") {
        std::mt19937_64 random(1);
        char bytes[16];
        for (int i = 0; i < 10'000; ++i) {
            const auto raw = random();
            const std::size_t at = static_cast<std::size_t>(i % 8);
            std::memcpy(bytes + at, &raw, sizeof raw);
            REQUIRE(same(number(decode(DType::float64, bytes + at)), std::bit_cast<double>(raw)));
            const auto half = static_cast<std::uint32_t>(raw);
            REQUIRE(same(number(decode(DType::float32, bytes + at)), std::bit_cast<float>(half)));
        }
    }

    TEST_CASE("should keep integers as integers, to their limits") {
        const auto integer = [](const SettledValue& value) {
            REQUIRE(value.tag == ValueTag::integer);
            return static_cast<std::int64_t>(value.bits);
        };
        for (int i = 0; i < 256; ++i) {
            REQUIRE(integer(decoded(DType::int8, static_cast<std::int8_t>(i))) ==
                    (i < 128 ? i : i - 256));
            REQUIRE(integer(decoded(DType::uint8, static_cast<std::uint8_t>(i))) == i);
        }
        CHECK(integer(decoded(DType::int16, std::int16_t{INT16_MIN})) == INT16_MIN);
        CHECK(integer(decoded(DType::uint16, std::uint16_t{UINT16_MAX})) == UINT16_MAX);
        CHECK(integer(decoded(DType::int32, std::int32_t{INT32_MIN})) == INT32_MIN);
        CHECK(integer(decoded(DType::uint32, std::uint32_t{UINT32_MAX})) == UINT32_MAX);
        CHECK(integer(decoded(DType::int64, std::int64_t{INT64_MIN})) == INT64_MIN);
        CHECK(integer(decoded(DType::int64, std::int64_t{-1})) == -1);
        CHECK(integer(decoded(DType::uint64, std::uint64_t{INT64_MAX})) == INT64_MAX);
    }

    TEST_CASE("should make a double of what no int64 holds") {
        CHECK(number(decoded(DType::uint64, std::uint64_t{1} << 63)) == 0x1p63);
        CHECK(number(decoded(DType::uint64, UINT64_MAX)) == 0x1p64);
    }

    TEST_CASE("should take each byte but zero for true") {
        for (int i = 0; i < 256; ++i) {
            const SettledValue value = decoded(DType::boolean, static_cast<std::uint8_t>(i));
            REQUIRE(value.tag == ValueTag::boolean);
            REQUIRE(value.bits == (i != 0 ? 1 : 0));
        }
    }

    TEST_CASE("should make nothing of no type, and of a number that is no type") {
        for (const int type : {0, static_cast<int>(kLastDType) + 1, 255}) {
            const SettledValue value = decoded(static_cast<DType>(type), std::uint64_t{0});
            CHECK(value.tag == ValueTag::missing);
            CHECK(size_of(DType::none) == 0);
        }
    }

    TEST_CASE("should find each type by DLPack's code and size") {
        const auto kinds = [](std::uint8_t code, std::uint8_t bits) {
            return dtype_of(code, bits, 1);
        };
        CHECK(kinds(0, 8) == DType::int8);
        CHECK(kinds(0, 16) == DType::int16);
        CHECK(kinds(0, 32) == DType::int32);
        CHECK(kinds(0, 64) == DType::int64);
        CHECK(kinds(1, 8) == DType::uint8);
        CHECK(kinds(1, 16) == DType::uint16);
        CHECK(kinds(1, 32) == DType::uint32);
        CHECK(kinds(1, 64) == DType::uint64);
        CHECK(kinds(2, 16) == DType::float16);
        CHECK(kinds(2, 32) == DType::float32);
        CHECK(kinds(2, 64) == DType::float64);
        CHECK(kinds(4, 16) == DType::bfloat16);
        CHECK(kinds(6, 8) == DType::boolean);
        for (const Format& format : formats()) CHECK(kinds(format.code, 8) == format.type);
        CHECK(kinds(14, 8) == DType::float8_e8m0fnu);
    }

    TEST_CASE("should refuse every other code, size and number of lanes") {
        int known = 0;
        for (int code = 0; code < 256; ++code) {
            for (int bits = 0; bits < 256; ++bits) {
                const auto c = static_cast<std::uint8_t>(code);
                const auto b = static_cast<std::uint8_t>(bits);
                const DType type = dtype_of(c, b, 1);
                REQUIRE(type <= kLastDType);
                for (const unsigned lanes : {0u, 2u, 4u, 65535u}) {
                    if (dtype_of(c, b, static_cast<std::uint16_t>(lanes)) != DType::none)
                        FAIL_CHECK(code, ":", bits);
                }
                if (type == DType::none) continue;
                ++known;
                if (size_of(type) * 8 != b) FAIL_CHECK(code, ":", bits);
            }
        }
        CHECK(known == static_cast<int>(kLastDType));  // each type by one way
    }
}
