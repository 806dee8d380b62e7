#include "core/nonfinite_watch.hpp"

#include <algorithm>
#include <cstring>
#include <new>

#include "core/json_writer.hpp"

namespace fastlog {
namespace {

const std::byte* payload_of(const RecordHeader& record) noexcept {
    return reinterpret_cast<const std::byte*>(&record) + sizeof(RecordHeader);
}

ValueTag tag_of(const RecordHeader& record, std::size_t i) noexcept {
    return static_cast<ValueTag>(payload_of(record)[sizeof(MetricsPayload) + i]);
}

}  // namespace

bool NonfiniteWatch::watched(const RecordHeader& record, std::size_t i) const noexcept {
    return which_ == WatchNonfinite::all || tag_of(record, i) == ValueTag::pending;
}

void NonfiniteWatch::observe(const RecordHeader& record, const LineRenderer& renderer) noexcept {
    if (which_ == WatchNonfinite::none) return;
    const auto& found = renderer.nonfinite();
    const auto& missing = renderer.missing();
    if (found.empty() && turned_.empty()) [[likely]]
        return;
    MetricsPayload head;
    std::memcpy(&head, payload_of(record), sizeof head);
    if ((head.flags & MetricsPayload::kSummary) != 0)
        return;  // no step; the line itself names them
    try {
        for (std::size_t i = 0; i < head.count; ++i) {
            if (!watched(record, i)) continue;
            if (std::any_of(missing.begin(), missing.end(),
                            [&](const auto& item) { return item.index == i; })) {
                continue;  // still not finite
            }
            const auto nonfinite = std::find_if(found.begin(), found.end(),
                                                [&](const auto& item) { return item.index == i; });
            std::string key(renderer.key_text(head.key_set, i));
            if (nonfinite == found.end()) {
                turned_.erase(key);
            } else if (turned_.size() < kMostKeys && turned_.insert(key).second) {
                add_event(head.step, key, nonfinite->name);
            }
        }
    } catch (const std::bad_alloc&) {
        // The line itself also says so.
    }
}

// `key` is quoted JSON.
void NonfiniteWatch::add_event(std::int64_t step, std::string_view key, const char* value) {
    if (events_.size() == kMostEvents) return;
    std::string number;
    json::append_int(number, step);
    const std::string_view bare = key.substr(1, key.size() - 2);
    std::string text = "\"level\":\"WARNING\",\"logger\":\"foundry_fastlog\",\"message\":\"";
    text.append(bare).append(" became ").append(value).append(" at step ").append(number);
    text.append("\",\"event\":\"nonfinite\",\"step\":").append(number);
    text.append(",\"context\":{\"key\":").append(key).append(",\"value\":\"").append(value);
    text.append("\"}");
    events_.push_back(std::move(text));
}

}  // namespace fastlog
