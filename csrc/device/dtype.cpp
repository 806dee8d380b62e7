#include "device/dtype.hpp"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace fastlog {
namespace {

// Codes of DLPack's DLDataTypeCode (https://dmlc.github.io/dlpack/latest/c_api.html).
enum Code : std::uint8_t {
    kInt = 0,
    kUInt = 1,
    kFloat = 2,
    kBfloat = 4,
    kBool = 6,
    kFloat8First = 7,  // e3m4, then the others in the order of DType
    kFloat8Last = 14,
};

template <class T>
T load(const void* bytes) noexcept {
    T value;
    std::memcpy(&value, bytes, sizeof value);
    return value;
}

SettledValue real(double value) noexcept {
    return {ValueTag::real, std::bit_cast<std::uint64_t>(value)};
}

SettledValue integer(std::int64_t value) noexcept {
    return {ValueTag::integer, static_cast<std::uint64_t>(value)};
}

// The layout of a small float: sign, exponent, mantissa. The largest exponent means what IEEE 754 defines
// (infinities and NaNs) or, for "fn", one NaN with all bits set; for "fnuz" the only NaN is the bit pattern
// of negative zero. (ml_dtypes; Micikevicius et al., "FP8 Formats for Deep Learning", 2022.)
enum class Special : std::uint8_t { ieee, fn, fnuz };
struct Layout {
    int exponent_bits;
    int mantissa_bits;
    int bias;
    Special special;
};

double small_float(std::uint32_t bits, const Layout& layout) noexcept {
    const std::uint32_t sign_bit = 1u << (layout.exponent_bits + layout.mantissa_bits);
    const std::uint32_t mantissa_mask = (1u << layout.mantissa_bits) - 1;
    const std::uint32_t exponent_mask = (1u << layout.exponent_bits) - 1;
    const std::uint32_t magnitude = bits & (sign_bit - 1);
    const std::uint32_t exponent = magnitude >> layout.mantissa_bits;
    const std::uint32_t mantissa = magnitude & mantissa_mask;
    const double sign = (bits & sign_bit) != 0 ? -1.0 : 1.0;
    constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
    if (layout.special == Special::fnuz && bits == sign_bit) return kNaN;
    if (layout.special == Special::fn && magnitude == sign_bit - 1) return kNaN;
    if (layout.special == Special::ieee && exponent == exponent_mask) {
        return mantissa != 0 ? kNaN : sign * std::numeric_limits<double>::infinity();
    }
    if (exponent == 0) {
        return sign * std::ldexp(mantissa, 1 - layout.bias - layout.mantissa_bits);
    }
    return sign * std::ldexp(mantissa + mantissa_mask + 1,
                             static_cast<int>(exponent) - layout.bias - layout.mantissa_bits);
}

}  // namespace

DType dtype_of(std::uint8_t code, std::uint8_t bits, std::uint16_t lanes) noexcept {
    if (lanes != 1) return DType::none;
    const auto sized = [&](DType of8) {  // the types of 8, 16, 32 and 64 bits are consecutive
        switch (bits) {
            case 8:
                return of8;
            case 16:
                return static_cast<DType>(static_cast<int>(of8) + 1);
            case 32:
                return static_cast<DType>(static_cast<int>(of8) + 2);
            case 64:
                return static_cast<DType>(static_cast<int>(of8) + 3);
            default:
                return DType::none;
        }
    };
    if (code == kInt) return sized(DType::int8);
    if (code == kUInt) return sized(DType::uint8);
    if (code == kFloat) {
        return bits == 16   ? DType::float16
               : bits == 32 ? DType::float32
               : bits == 64 ? DType::float64
                            : DType::none;
    }
    if (code == kBfloat) return bits == 16 ? DType::bfloat16 : DType::none;
    if (code == kBool) return bits == 8 ? DType::boolean : DType::none;
    if (code >= kFloat8First && code <= kFloat8Last && bits == 8) {
        return static_cast<DType>(static_cast<int>(DType::float8_e3m4) + code - kFloat8First);
    }
    return DType::none;
}

std::size_t size_of(DType type) noexcept {
    switch (type) {
        case DType::none:
            return 0;
        case DType::int16:
        case DType::uint16:
        case DType::float16:
        case DType::bfloat16:
            return 2;
        case DType::int32:
        case DType::uint32:
        case DType::float32:
            return 4;
        case DType::int64:
        case DType::uint64:
        case DType::float64:
            return 8;
        default:
            return 1;
    }
}

SettledValue decode(DType type, const void* bytes) noexcept {
    const auto byte = [&] { return load<std::uint8_t>(bytes); };
    switch (type) {
        case DType::none:
            break;
        case DType::boolean:
            return {ValueTag::boolean, byte() != 0 ? std::uint64_t{1} : 0};
        case DType::int8:
            return integer(load<std::int8_t>(bytes));
        case DType::int16:
            return integer(load<std::int16_t>(bytes));
        case DType::int32:
            return integer(load<std::int32_t>(bytes));
        case DType::int64:
            return integer(load<std::int64_t>(bytes));
        case DType::uint8:
            return integer(byte());
        case DType::uint16:
            return integer(load<std::uint16_t>(bytes));
        case DType::uint32:
            return integer(load<std::uint32_t>(bytes));
        case DType::uint64: {
            const auto value = load<std::uint64_t>(bytes);
            if (value > INT64_MAX) return real(static_cast<double>(value));
            return integer(static_cast<std::int64_t>(value));
        }
        case DType::float16:
            return real(small_float(load<std::uint16_t>(bytes), {5, 10, 15, Special::ieee}));
        case DType::bfloat16:
            return real(std::bit_cast<float>(std::uint32_t{load<std::uint16_t>(bytes)} << 16));
        case DType::float32:
            return real(load<float>(bytes));
        case DType::float64:
            return real(load<double>(bytes));
        case DType::float8_e3m4:
            return real(small_float(byte(), {3, 4, 3, Special::ieee}));
        case DType::float8_e4m3:
            return real(small_float(byte(), {4, 3, 7, Special::ieee}));
        case DType::float8_e4m3b11fnuz:
            return real(small_float(byte(), {4, 3, 11, Special::fnuz}));
        case DType::float8_e4m3fn:
            return real(small_float(byte(), {4, 3, 7, Special::fn}));
        case DType::float8_e4m3fnuz:
            return real(small_float(byte(), {4, 3, 8, Special::fnuz}));
        case DType::float8_e5m2:
            return real(small_float(byte(), {5, 2, 15, Special::ieee}));
        case DType::float8_e5m2fnuz:
            return real(small_float(byte(), {5, 2, 16, Special::fnuz}));
        case DType::float8_e8m0fnu:
            return real(byte() == 0xFF ? std::numeric_limits<double>::quiet_NaN()
                                       : std::ldexp(1.0, byte() - 127));
    }
    return {};
}

}  // namespace fastlog
