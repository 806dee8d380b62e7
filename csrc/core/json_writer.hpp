// Appends JSON text to a byte string. No state, no locale, no exceptions except std::bad_alloc.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace fastlog::json {

/// Appends `text` (UTF-8) as a JSON string with quotes; control characters are escaped.
void append_string(std::string& out, std::string_view text);

/// Appends the shortest decimal that reads back as the same double, always with '.' or 'e' so that a reader
/// sees a float; null for NaN and infinities. Uses std::to_chars.
void append_double(std::string& out, double value);

void append_int(std::string& out, std::int64_t value);
void append_uint(std::string& out, std::uint64_t value);

/// "nan", "inf" or "-inf"; null when `value` is finite.
const char* nonfinite_name(double value) noexcept;

/// Appends nanoseconds since the epoch as "2026-01-30T14:32:15.123456Z" without quotes (UTC, truncated to
/// microseconds). Caches the text of the last second, which consecutive records share.
class TimestampWriter {
  public:
    void append(std::string& out, std::int64_t wall_ns);

  private:
    std::int64_t second_ = INT64_MIN;
    char text_[20];  // "2026-01-30T14:32:15."
};

}  // namespace fastlog::json
