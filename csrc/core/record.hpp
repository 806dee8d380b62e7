// The binary layout of one record in the ring: drawn once, here.
//
//    0                   4                   8
//    +-------------------------------------------+
//  0 | stamp: mix(absolute position, salt)       |  published last, with release
//    +---------------------+---------------------+
//  8 | payload length      | crc32c (mapped ring) |
//    +---------------------+---------------------+
// 16 | ticks: time of the call, in clock ticks    |
//    +---------------------+------+------+-------+
// 24 | thread id           | kind |stream| flags |
//    +---------------------+------+------+-------+
// 32 | payload, padded to a multiple of 32 bytes  |
//    +-------------------------------------------+
//
// metrics payload:  MetricsPayload | tags[count], padded to 8 | values[count] | string bytes
// timing payload:   TimingPayload | error type name
// fragment payload: JSON members without braces, rendered by the caller ("level":"INFO",...)
// drops payload:    u64 number of records dropped in the header's stream
//
// Records are aligned to the header's size, so that a header always fits before the wrap. The stamp
// depends on the absolute position: bytes that an earlier lap left never pass for a record, and
// nothing has to be zeroed after reading.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace fastlog {

/// A stream has its own file and its own gapless `seq`.
enum class Stream : std::uint8_t { metrics = 0, performance = 1, errors = 2, log = 3 };
inline constexpr std::size_t kStreamCount = 4;
inline constexpr const char* kStreamNames[kStreamCount] = {"metrics", "performance", "errors",
                                                           "log"};

enum class RecordKind : std::uint8_t { pad = 0, metrics = 1, timing = 2, fragment = 3, drops = 4 };

inline constexpr std::size_t kRecordAlign = 32;

struct RecordHeader {
    std::uint64_t stamp;  // accessed only as an atomic, by the ring
    std::uint32_t length;
    std::uint32_t crc;
    std::uint64_t ticks;
    std::uint32_t thread_id;
    RecordKind kind;
    Stream stream;
    std::uint16_t flags;
};
static_assert(sizeof(RecordHeader) == kRecordAlign);

/// Bytes that a record with `payload` bytes occupies in the ring.
constexpr std::size_t record_size(std::size_t payload) noexcept {
    return sizeof(RecordHeader) + ((payload + kRecordAlign - 1) & ~(kRecordAlign - 1));
}

/// What the eight bytes of a metric value hold.
enum class ValueTag : std::uint8_t {
    null = 0,
    boolean = 1,  // 0 or 1
    integer = 2,  // int64
    real = 3,     // IEEE 754 double
    string = 4,   // low 32 bits: length; high 32 bits: offset into the string bytes
};

struct MetricsPayload {
    std::int64_t step;
    std::uint32_t key_set;
    std::uint16_t count;
    std::uint16_t reserved;
};
static_assert(sizeof(MetricsPayload) == 16);

inline constexpr std::size_t kMaxMetrics = 65535;

constexpr std::size_t metrics_tags_size(std::size_t count) noexcept {
    return (count + 7) & ~std::size_t{7};
}
constexpr std::size_t metrics_values_offset(std::size_t count) noexcept {
    return sizeof(MetricsPayload) + metrics_tags_size(count);
}
constexpr std::size_t metrics_strings_offset(std::size_t count) noexcept {
    return metrics_values_offset(count) + count * sizeof(std::uint64_t);
}

struct TimingPayload {
    static constexpr std::uint16_t kHasStep = 1;
    static constexpr std::uint16_t kHasParent = 2;
    std::int64_t step;
    std::uint64_t duration_ticks;
    std::uint32_t name;    // key set id of the one key `name`
    std::uint32_t parent;  // likewise
    std::uint16_t depth;
    std::uint16_t flags;
    std::uint32_t error_length;
};
static_assert(sizeof(TimingPayload) == 32);

}  // namespace fastlog
