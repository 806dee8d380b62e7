// Detects metrics that turn NaN or infinite. Owned by the flush thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_set>

#include "core/line_renderer.hpp"
#include "core/record.hpp"

namespace fastlog {

/// Which values are watched. Device values are those that the caller cannot check cheaply.
enum class WatchNonfinite : std::uint8_t { none, device, all };

class NonfiniteWatch {
  public:
    /// If there are more keys or waiting events than this, further ones are not reported individually.
    static constexpr std::size_t kMostKeys = 4096;
    static constexpr std::size_t kMostEvents = 256;

    explicit NonfiniteWatch(WatchNonfinite which) : which_(which) {}  // a deque allocates

    /// Checks the metrics record that `renderer` has just rendered. A key that was finite before, or is new,
    /// produces an event; it produces the next one only after it has been finite again.
    void observe(const RecordHeader& record, const LineRenderer& renderer) noexcept;

    /// Events not yet recorded, oldest first: members for lines of the errors stream.
    const std::deque<std::string>& events() const noexcept { return events_; }
    void pop_event() noexcept { events_.pop_front(); }

  private:
    bool watched(const RecordHeader& record, std::size_t i) const noexcept;
    void add_event(std::int64_t step, std::string_view key, const char* value);

    const WatchNonfinite which_;
    std::unordered_set<std::string> turned_;  // keys, as JSON, whose last value was not finite
    std::deque<std::string> events_;
};

}  // namespace fastlog
