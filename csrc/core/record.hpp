// The binary layout of a record in the ring, defined only here.
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
// flags: 1 + the ticket of values that a device delivers later (core/device_values.hpp); 0: none. Meaningless
// once its process has ended.
//
// metrics payload:  MetricsPayload | tags[count], padded to 8 | values[count] | string bytes
// timing payload:   TimingPayload | error type name | reason (kDeviceMissing only)
// fragment payload: JSON members without braces, rendered by the caller ("level":"INFO",...)
// drops payload:    u64 number of records dropped in the header's stream
//
// Records are aligned to the size of the header, so a header never wraps around. The stamp depends on the
// absolute position: bytes left by an earlier lap are never taken for a record, and nothing has to be zeroed
// after reading.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace fastlog {

/// Each stream has its own files and its own gapless `seq`.
enum class Stream : std::uint8_t { metrics = 0, performance = 1, errors = 2, log = 3, system = 4 };
inline constexpr std::size_t kStreamCount = 5;
inline constexpr const char* kStreamNames[kStreamCount] = {"metrics", "performance", "errors",
                                                           "log", "system"};

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

/// The first ticket of a record with pending values.
constexpr std::uint16_t ticket_of(const RecordHeader& header) noexcept {
    return static_cast<std::uint16_t>(header.flags - 1);
}

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
    pending = 5,  // a device delivers it: PendingValue
    missing = 6,  // it will not arrive: missing_bits()
};
inline constexpr ValueTag kLastValueTag = ValueTag::missing;

/// Why a value is missing, usually one that a device should have delivered.
enum class MissingReason : std::uint8_t {
    lost = 0,          // its process ended first
    timeout = 1,       // device_timeout_s
    no_slot = 2,       // too many values in flight
    driver_error = 3,  // with the driver's number
    forked = 4,        // recorded in a forked child, which cannot use the device
    no_room = 5,       // given up to free room in the ring
    no_key_space =
        6,  // its line was rendered at once, because its keys did not fit into the key table
    backend_error = 7,  // the framework's own copy failed
    masked = 8,         // not a device value: masked in its array
    other_context = 9,  // a block in a context that is not the framework's
    unordered = 10,     // a block whose end ran before its begin, on another stream
    capture = 11,       // its stream was being captured into a graph
    unsupported = 12,   // not a device value: no scalar, and left out
};
inline constexpr MissingReason kLastMissingReason = MissingReason::unsupported;

/// The bits of a missing value: the reason in the lowest byte, the driver's error number from bit 16 on.
constexpr std::uint64_t missing_bits(MissingReason reason, std::uint32_t error = 0) noexcept {
    return static_cast<std::uint64_t>(reason) | (static_cast<std::uint64_t>(error) << 16);
}

/// The bits of a pending value: where it will arrive, and its type.
struct PendingValue {
    std::uint32_t slot;
    std::uint8_t dtype;

    constexpr std::uint64_t bits() const noexcept {
        return slot | (static_cast<std::uint64_t>(dtype) << 32);
    }
    static constexpr PendingValue from(std::uint64_t bits) noexcept {
        return {static_cast<std::uint32_t>(bits), static_cast<std::uint8_t>(bits >> 32)};
    }
};

struct MetricsPayload {
    static constexpr std::uint16_t kSummary = 1;    // an epoch summary: the epoch replaces the step
    static constexpr std::uint16_t kRealEpoch = 2;  // the epoch is stored as the bits of a double
    std::int64_t step;
    std::uint32_t key_set;
    std::uint16_t count;
    std::uint16_t flags;
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
    static constexpr std::uint16_t kHasDevice = 4;  // a device also measures the block
    static constexpr std::uint16_t kDeviceMissing =
        8;  // the device has no time: missing_bits() at the end
    static constexpr unsigned kDeviceKindShift = 4;   // four bits: DeviceKind
    static constexpr unsigned kDeviceIndexShift = 8;  // eight bits
    std::int64_t step;
    std::uint64_t duration_ticks;
    std::uint32_t name;    // key set id of the one key `name`
    std::uint32_t parent;  // likewise
    std::uint16_t depth;
    std::uint16_t flags;
    std::uint32_t error_length;
};
static_assert(sizeof(TimingPayload) == 32);

/// Kinds of devices, as lines name them; torch calls the first two the same.
enum class DeviceKind : std::uint8_t { cuda = 0, rocm = 1, xpu = 2, mps = 3, other = 4 };
inline constexpr const char* kDeviceNames[] = {"cuda", "cuda", "xpu", "mps", "device"};
inline constexpr DeviceKind kLastDeviceKind = DeviceKind::other;

}  // namespace fastlog
