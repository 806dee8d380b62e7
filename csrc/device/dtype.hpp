// Scalars on devices: decoding their bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/device_values.hpp"

namespace fastlog {

/// Scalar types, with the names of torch and ml_dtypes.
enum class DType : std::uint8_t {
    none,  // not a scalar that can be recorded
    boolean,
    int8,
    int16,
    int32,
    int64,
    uint8,
    uint16,
    uint32,
    uint64,
    float16,
    float32,
    float64,
    bfloat16,
    float8_e3m4,
    float8_e4m3,
    float8_e4m3b11fnuz,
    float8_e4m3fn,
    float8_e4m3fnuz,
    float8_e5m2,
    float8_e5m2fnuz,
    float8_e8m0fnu,
};
inline constexpr DType kLastDType = DType::float8_e8m0fnu;

/// The type that DLPack describes by a code, a size in bits and a number of lanes; none for complex numbers,
/// vectors, types smaller than a byte and unknown types.
DType dtype_of(std::uint8_t code, std::uint8_t bits, std::uint16_t lanes) noexcept;

/// Bytes of one scalar: 1, 2, 4 or 8; 0 for none.
std::size_t size_of(DType type) noexcept;

/// The number in a scalar's bytes. Integers stay integers if they fit int64; larger ones and all kinds of
/// floats become doubles, which represent every value exactly except for those of uint64.
SettledValue decode(DType type, const void* bytes) noexcept;

}  // namespace fastlog
