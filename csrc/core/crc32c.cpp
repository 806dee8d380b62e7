#include "core/crc32c.hpp"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

namespace fastlog {
namespace {

constexpr std::array<std::uint32_t, 256> make_table() {
    std::array<std::uint32_t, 256> table{};
    for (std::uint32_t i = 0; i < 256; ++i) {
        std::uint32_t value = i;
        for (int bit = 0; bit < 8; ++bit) {
            value = (value >> 1) ^ ((value & 1) != 0 ? 0x82F63B78u : 0u);
        }
        table[i] = value;
    }
    return table;
}
constexpr auto kTable = make_table();

#if defined(__x86_64__)

__attribute__((hot, target("sse4.2"))) std::uint32_t crc32c_hardware(std::uint32_t crc,
                                                                     const void* data,
                                                                     std::size_t size) noexcept {
    const auto* at = static_cast<const unsigned char*>(data);
    std::uint64_t value = ~crc;
    for (; size >= 8; size -= 8, at += 8) {
        std::uint64_t word;
        std::memcpy(&word, at, sizeof word);
        value = _mm_crc32_u64(value, word);
    }
    auto rest = static_cast<std::uint32_t>(value);
    for (; size != 0; --size, ++at) rest = _mm_crc32_u8(rest, *at);
    return ~rest;
}
const bool have_hardware = __builtin_cpu_supports("sse4.2") != 0;

#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)

std::uint32_t crc32c_hardware(std::uint32_t crc, const void* data, std::size_t size) noexcept {
    const auto* at = static_cast<const unsigned char*>(data);
    std::uint32_t value = ~crc;
    for (; size >= 8; size -= 8, at += 8) {
        std::uint64_t word;
        std::memcpy(&word, at, sizeof word);
        value = __crc32cd(value, word);
    }
    for (; size != 0; --size, ++at) value = __crc32cb(value, *at);
    return ~value;
}
constexpr bool have_hardware = true;

#else

constexpr bool have_hardware = false;
std::uint32_t crc32c_hardware(std::uint32_t crc, const void* data, std::size_t size) noexcept {
    return crc32c_software(crc, data, size);
}

#endif

}  // namespace

std::uint32_t crc32c_software(std::uint32_t crc, const void* data, std::size_t size) noexcept {
    const auto* at = static_cast<const unsigned char*>(data);
    std::uint32_t value = ~crc;
    for (; size != 0; --size, ++at) value = (value >> 8) ^ kTable[(value ^ *at) & 0xFF];
    return ~value;
}

[[gnu::hot]] std::uint32_t crc32c(std::uint32_t crc, const void* data, std::size_t size) noexcept {
    if (have_hardware) [[likely]]
        return crc32c_hardware(crc, data, size);
    return crc32c_software(crc, data, size);
}

}  // namespace fastlog
