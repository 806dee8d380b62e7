// What a line can say of one key.
#pragma once

#include <bit>
#include <cstdint>
#include <optional>

namespace fastlog::reader {

enum class Kind : std::uint8_t {
    kNull,
    kBool,
    kInt,  // fits signed 64 bits
    kBig,  // fits unsigned 64 bits only
    kDouble,
    kText,  // offset and length in the chunk's texts
    kJson,  // an object or array as it stands in the line; likewise
};

/// A set of kinds.
using Kinds = std::uint8_t;
constexpr Kinds bit_of(Kind kind) noexcept {
    return static_cast<Kinds>(1U << static_cast<unsigned>(kind));
}

struct Value {
    Kind kind = Kind::kNull;
    std::uint64_t bits = 0;

    static Value of_double(double value) noexcept {
        return {Kind::kDouble, std::bit_cast<std::uint64_t>(value)};
    }
    static Value of_int(std::int64_t value) noexcept {
        return {Kind::kInt, static_cast<std::uint64_t>(value)};
    }
    /// Of bytes in the chunk's texts, which are less than 4 GiB.
    static Value of_text(Kind kind, std::uint64_t offset, std::uint64_t size) noexcept {
        return {kind, offset << 32 | size};
    }
};

constexpr bool is_number(Kind kind) noexcept {
    return kind == Kind::kInt || kind == Kind::kBig || kind == Kind::kDouble;
}

/// A number's value, rounded where a double does not hold it.
inline double as_double(Value value) noexcept {
    switch (value.kind) {
        case Kind::kInt:
            return static_cast<double>(static_cast<std::int64_t>(value.bits));
        case Kind::kBool:
        case Kind::kBig:
            return static_cast<double>(value.bits);
        default:
            return std::bit_cast<double>(value.bits);
    }
}

/// The number that a value is in a sum or a curve: a flag is 1 or 0.
inline std::optional<Value> as_summand(Value value) noexcept {
    if (value.kind == Kind::kBool) return Value{Kind::kInt, value.bits};
    return is_number(value.kind) ? std::optional(value) : std::nullopt;
}

inline std::optional<double> as_number(Value value) noexcept {
    return is_number(value.kind) ? std::optional(as_double(value)) : std::nullopt;
}

constexpr std::uint32_t text_offset(std::uint64_t bits) noexcept {
    return static_cast<std::uint32_t>(bits >> 32);
}
constexpr std::uint32_t text_size(std::uint64_t bits) noexcept {
    return static_cast<std::uint32_t>(bits);
}

}  // namespace fastlog::reader
