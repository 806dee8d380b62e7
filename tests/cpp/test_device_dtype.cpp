// Bytes of scalars to numbers, and types by DLPack's codes. All values of the 8-bit floats are in
// tests/device/test_device_values.py.
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>

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

// IEEE 754's 16 bits, by nothing but products and powers of two.
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

    TEST_CASE("should keep each byte as its integer, and take each but zero for true") {
        for (int i = 0; i < 256; ++i) {
            const auto byte = static_cast<std::uint8_t>(i);
            const SettledValue narrow = decoded(DType::int8, byte);
            CHECK(narrow.tag == ValueTag::integer);
            CHECK(static_cast<std::int64_t>(narrow.bits) == (i < 128 ? i : i - 256));
            CHECK(decoded(DType::uint8, byte).bits == byte);
            const SettledValue truth = decoded(DType::boolean, byte);
            CHECK(truth.tag == ValueTag::boolean);
            CHECK(truth.bits == (i != 0 ? 1 : 0));
        }
    }

    TEST_CASE("should make nothing of no type, and of a number that is no type") {
        for (const int type : {0, static_cast<int>(kLastDType) + 1, 255}) {
            CHECK(decoded(static_cast<DType>(type), std::uint64_t{0}).tag == ValueTag::missing);
        }
        CHECK(size_of(DType::none) == 0);
    }

    TEST_CASE("should know each type by one code and size, and one lane alone") {
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
        CHECK(known == static_cast<int>(kLastDType));
    }
}
