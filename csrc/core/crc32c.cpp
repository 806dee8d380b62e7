#include "core/crc32c.hpp"

#include <array>

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

bool asks_processor() noexcept {
#if defined(__x86_64__)
    __builtin_cpu_init();  // this may run before the other initialisers
    return __builtin_cpu_supports("sse4.2") != 0;
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
    return true;
#else
    return false;
#endif
}
const bool asked_for_crc = (hot_line.has_crc32c = asks_processor());

}  // namespace

std::uint32_t crc32c_software(std::uint32_t crc, const void* data, std::size_t size) noexcept {
    const auto* at = static_cast<const unsigned char*>(data);
    std::uint32_t value = ~crc;
    for (; size != 0; --size, ++at) value = (value >> 8) ^ kTable[(value ^ *at) & 0xFF];
    return ~value;
}

std::uint32_t crc32c(std::uint32_t crc, const void* data, std::size_t size) noexcept {
    if (!hot_line.has_crc32c) return crc32c_software(crc, data, size);
    const auto* at = static_cast<const std::byte*>(data);
    const std::uint64_t state = crc32c_words(~crc, at, size);
    return crc32c_software(~static_cast<std::uint32_t>(state), at, size);
}

}  // namespace fastlog
