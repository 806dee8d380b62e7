// Converts records to lines. Owned by one thread (the flush thread).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/clock.hpp"
#include "core/device_values.hpp"
#include "core/json_writer.hpp"
#include "core/key_table.hpp"
#include "core/record.hpp"

namespace fastlog {

class LineRenderer {
  public:
    /// For records of this process.
    LineRenderer(const std::byte* key_arena, std::size_t arena_bytes)
        : reader_(key_arena, arena_bytes) {}
    /// For records left by another process.
    LineRenderer(const std::byte* key_arena, std::size_t arena_bytes, const TickConverter& clock)
        : clock_(clock), reader_(key_arena, arena_bytes) {}

    /// True if the record can be rendered: every offset, length and number in it is in bounds. Always true
    /// for records of this process; call it for those of a found ring.
    bool check(const RecordHeader& record);

    /// Call before rendering records made since the last call.
    void refresh_clock() noexcept { clock_.refresh(); }
    const TickConverter& clock() const noexcept { return clock_; }

    /// Appends the record's line with its "\n" to `out`. `seq` is the line's number in its stream. Pending
    /// values come from `device`; without it they are lost.
    void render(const RecordHeader& record, std::uint64_t seq, std::string& out,
                const DeviceValues* device = nullptr);

    /// The index for a summary's own epoch, which is not one of its values.
    static constexpr std::uint32_t kOwnEpoch = UINT32_MAX;
    /// A NaN or infinite value of the last metrics record.
    struct Nonfinite {
        std::uint32_t index;
        const char* name;  // "nan", "inf" or "-inf"
    };
    const std::vector<Nonfinite>& nonfinite() const noexcept { return nonfinite_; }
    /// A value that a device did not deliver.
    struct Missing {
        std::uint32_t index;
        std::uint64_t bits;  // missing_bits()
    };
    /// The missing values of the last metrics record.
    const std::vector<Missing>& missing() const noexcept { return missing_; }
    /// How many device values are missing in the last line.
    std::size_t missing_of_devices() const noexcept { return missing_of_devices_; }
    /// The i-th key of a set as quoted JSON.
    std::string_view key_text(std::uint32_t key_set, std::size_t i) const noexcept {
        const std::string_view key = keys_[key_set].key(i);
        return key.substr(0, key.size() - 1);
    }

    /// Renders a line that says how many records of a stream were dropped here.
    void render_drops(std::uint64_t dropped, std::uint64_t ticks, std::uint64_t seq,
                      std::string& out);

    /// Lowers the numbers of rendered lines by `by`, which none of them is below. Needs no memory.
    static void renumber(std::string& lines, std::uint64_t by) noexcept;

  private:
    // The keys of one set as JSON, ready to copy: `"loss":` at [ends[i-1], ends[i]).
    struct RenderedKeys {
        std::string text;
        std::vector<std::uint32_t> ends;
        std::int32_t epoch = -1;  // index of the key "epoch", or -1
        std::string_view key(std::size_t i) const noexcept {
            const std::uint32_t begin = i == 0 ? 0 : ends[i - 1];
            return std::string_view(text).substr(begin, ends[i] - begin);
        }
    };

    const RenderedKeys& keys(std::uint32_t id);
    bool has_keys(std::uint32_t id);
    bool add_keys();
    bool check_metrics(const std::byte* payload, std::size_t length);
    bool check_timing(const std::byte* payload, std::size_t length);
    void open_line(std::uint64_t ticks, std::uint64_t seq, std::string& out);
    void render_metrics(const std::byte* payload, const DeviceValues* device, std::string& out);
    void render_timing(const RecordHeader& record, const std::byte* payload,
                       const DeviceValues* device, std::string& out);

    TickConverter clock_;
    json::TimestampWriter timestamps_;
    KeyTable::Reader reader_;
    std::vector<RenderedKeys> keys_;
    std::vector<std::string_view> scratch_;
    std::vector<Nonfinite> nonfinite_;
    std::vector<Missing> missing_;
    std::size_t missing_of_devices_ = 0;
};

/// Renders a metrics payload whose keys did not fit into the key table as fragment text: the members from
/// "step" on. `keys[i]` belongs to value i; no value is pending.
std::string render_metrics_fragment(const std::byte* payload,
                                    const std::vector<std::string_view>& keys);

/// The same for a timing whose name or parent did not fit into the key table: the members from "name" on.
/// With TimingPayload::kDeviceMissing, `missing` says why there is no device time.
std::string render_timing_fragment(std::string_view name, std::string_view parent,
                                   const TimingPayload& timing, double ns_per_tick,
                                   std::uint32_t thread_id, std::string_view error,
                                   std::uint64_t missing = missing_bits(MissingReason::lost));

}  // namespace fastlog
