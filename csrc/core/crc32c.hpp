// CRC-32C (Castagnoli, RFC 3720 appendix B.4), with the processor's instruction if it has one.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastlog {

/// Continues `crc` (0 at the start) over `size` bytes.
std::uint32_t crc32c(std::uint32_t crc, const void* data, std::size_t size) noexcept;

/// The same, always in software: the reference for tests.
std::uint32_t crc32c_software(std::uint32_t crc, const void* data, std::size_t size) noexcept;

}  // namespace fastlog
