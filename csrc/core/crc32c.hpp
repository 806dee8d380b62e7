// CRC-32C (Castagnoli, RFC 3720 appendix B.4), with the processor's instruction if it has one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/hot_line.hpp"

#if defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

namespace fastlog {

/// Continues `crc` (0 at the start) over `size` bytes.
std::uint32_t crc32c(std::uint32_t crc, const void* data, std::size_t size) noexcept;

/// The same, always in software: the reference for tests.
std::uint32_t crc32c_software(std::uint32_t crc, const void* data, std::size_t size) noexcept;

/// The processor's step over eight bytes, in the form between the inversions at both ends. Only with
/// hot_line.has_crc32c. In assembler, so that it is inlined where the compiler may not assume the instruction.
inline std::uint64_t crc32c_step(std::uint64_t state, std::uint64_t word) noexcept {
#if defined(__x86_64__)
    asm volatile("crc32q %1, %0" : "+r"(state) : "r"(word));
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
    state = __crc32cd(static_cast<std::uint32_t>(state), word);
#else
    static_cast<void>(word);
#endif
    return state;
}

/// The same over as many whole words as `size` bytes have; `at` and `size` are then at the rest.
inline std::uint64_t crc32c_words(std::uint64_t state, const std::byte*& at,
                                  std::size_t& size) noexcept {
    for (; size >= sizeof(std::uint64_t); size -= sizeof(std::uint64_t)) {
        std::uint64_t word;
        std::memcpy(&word, at, sizeof word);
        state = crc32c_step(state, word);
        at += sizeof word;
    }
    return state;
}

}  // namespace fastlog
