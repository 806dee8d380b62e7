// The fields that lines have, by stream: docs/format.md.
#pragma once

#include <cstdint>
#include <span>

#include "reader/chunk.hpp"

namespace fastlog::reader {

/// What a field is to a parser.
enum Role : std::uint32_t {
    kTime,
    kSeq,
    kStep,
    kEpoch,
    kMetrics,
    kSummary,
    kSystem,
    kNonfinite,
    kMissing,
    kDropped,
    kRewind,
    kContext,
    kName,
    kDuration,
    kLevel,
    kMessage,
    kDevice,
    kDeviceDuration,
    kOther,
};

constexpr std::uint32_t flag(std::uint32_t role) noexcept { return std::uint32_t{1} << role; }

struct Field {
    const char* name;
    Role role;
};

// Those of every stream.
constexpr Field kCommon[] = {{"timestamp", kTime},      {"seq", kSeq},         {"step", kStep},
                             {"epoch", kEpoch},         {"dropped", kDropped}, {"rewind", kRewind},
                             {"nonfinite", kNonfinite}, {"missing", kMissing}};
constexpr Field kOfMetrics[] = {{"metrics", kMetrics}, {"summary", kSummary}};
constexpr Field kOfPerformance[] = {{"name", kName},     {"duration_s", kDuration},
                                    {"depth", kOther},   {"parent", kOther},
                                    {"thread", kOther},  {"error", kOther},
                                    {"device", kDevice}, {"device_duration_s", kDeviceDuration}};
constexpr Field kOfErrors[] = {
    {"level", kLevel},     {"logger", kOther},      {"message", kMessage},
    {"event", kOther},     {"error_type", kOther},  {"error_message", kOther},
    {"traceback", kOther}, {"fingerprint", kOther}, {"context", kContext}};
constexpr Field kOfLog[] = {
    {"level", kLevel}, {"logger", kOther}, {"message", kMessage}, {"context", kContext}};

constexpr Field kOfSystem[] = {{"system", kSystem}};

inline std::span<const Field> fields_of(Stream stream) {
    switch (stream) {
        case Stream::kMetrics:
            return kOfMetrics;
        case Stream::kPerformance:
            return kOfPerformance;
        case Stream::kErrors:
            return kOfErrors;
        case Stream::kSystem:
            return kOfSystem;
        case Stream::kLog:
            break;
    }
    return kOfLog;
}

}  // namespace fastlog::reader
