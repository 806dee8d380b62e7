#include "core/line_renderer.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <utility>

namespace fastlog {
namespace {

template <class T>
T load(const std::byte* at) noexcept {
    T value;
    std::memcpy(&value, at, sizeof value);
    return value;
}

void append_value(std::string& out, ValueTag tag, std::uint64_t bits, const char* strings) {
    switch (tag) {
        case ValueTag::null:
            out.append("null");
            return;
        case ValueTag::boolean:
            out.append(bits != 0 ? "true" : "false");
            return;
        case ValueTag::integer:
            json::append_int(out, static_cast<std::int64_t>(bits));
            return;
        case ValueTag::real: {
            double value;
            std::memcpy(&value, &bits, sizeof value);
            json::append_double(out, value);
            return;
        }
        case ValueTag::string:
            json::append_string(out, {strings + (bits >> 32), bits & 0xFFFFFFFFu});
            return;
        case ValueTag::pending:
        case ValueTag::missing:
            out.append("null");
            return;
    }
}

// The reason as text, quoted.
void append_reason(std::string& out, std::uint64_t bits) {
    static constexpr const char* kTexts[] = {
        "lost",      "timeout",      "no_slot",       "driver_error_", "forked",
        "no_room",   "no_key_space", "backend_error", "masked",        "other_context",
        "unordered", "capture",      "unsupported"};
    const auto reason = static_cast<MissingReason>(bits & 0xFF);
    out.push_back('"');
    out.append(kTexts[static_cast<std::size_t>(reason)]);
    if (reason == MissingReason::driver_error) json::append_uint(out, (bits >> 16) & 0xFFFFFFFFu);
    out.push_back('"');
}

bool is_unsupported(std::uint64_t bits) noexcept {
    return (bits & 0xFF) == static_cast<std::uint64_t>(MissingReason::unsupported);
}

bool is_of_device(std::uint64_t bits) noexcept {
    return (bits & 0xFF) != static_cast<std::uint64_t>(MissingReason::masked) &&
           !is_unsupported(bits);
}

bool is_reason(std::uint64_t bits) noexcept {
    return (bits & 0xFF) <= static_cast<std::uint64_t>(kLastMissingReason);
}

const char* nonfinite_value(ValueTag tag, std::uint64_t bits) noexcept {
    if (tag != ValueTag::real) return nullptr;
    double value;
    std::memcpy(&value, &bits, sizeof value);
    return json::nonfinite_name(value);
}

// Appends `,"name":{"key":<text>,...}` for the items of a list.
template <class Item, class Key, class Text>
void append_named(std::string& out, const char* name, const std::vector<Item>& items, Key&& key,
                  Text&& text) {
    if (items.empty()) return;
    out.append(",\"").append(name).append("\":{");
    for (std::size_t n = 0; n < items.size(); ++n) {
        if (n != 0) out.push_back(',');
        out.append(key(items[n].index));
        text(items[n]);
    }
    out.push_back('}');
}

// The parts of a metrics line other than its keys.
struct MetricsParts {
    std::vector<LineRenderer::Nonfinite>& nonfinite;
    std::vector<LineRenderer::Missing>& missing;
    const DeviceValues* device;
};

// Appends the members of a metrics line from "step" on. `key(i)` is the i-th key as JSON with its colon.
template <class Key>
void append_metrics(std::string& out, const std::byte* payload, Key&& key, std::int32_t epoch,
                    const MetricsParts& parts) {
    const auto head = load<MetricsPayload>(payload);
    const auto* tags = reinterpret_cast<const ValueTag*>(payload + sizeof(MetricsPayload));
    const std::byte* values = payload + metrics_values_offset(head.count);
    const auto* strings =
        reinterpret_cast<const char*>(payload + metrics_strings_offset(head.count));
    parts.nonfinite.clear();
    parts.missing.clear();
    if ((head.flags & MetricsPayload::kSummary) != 0)
        epoch = -1;  // in a summary it is a name like any other
    const auto append = [&](std::uint32_t i) {
        ValueTag tag = tags[i];
        auto bits = load<std::uint64_t>(values + i * sizeof(std::uint64_t));
        if (tag == ValueTag::pending) [[unlikely]] {
            const SettledValue settled = parts.device != nullptr
                                             ? parts.device->value(PendingValue::from(bits))
                                             : SettledValue{};
            tag = settled.tag;
            bits = settled.bits;
        }
        append_value(out, tag, bits, strings);
        if (tag == ValueTag::missing) [[unlikely]]
            parts.missing.push_back({i, bits});
        if (const char* name = nonfinite_value(tag, bits)) parts.nonfinite.push_back({i, name});
    };

    if ((head.flags & MetricsPayload::kSummary) != 0) {
        out.append("\"epoch\":");
        const auto bits = static_cast<std::uint64_t>(head.step);
        const bool real = (head.flags & MetricsPayload::kRealEpoch) != 0;
        const ValueTag tag = real ? ValueTag::real : ValueTag::integer;
        append_value(out, tag, bits, nullptr);
        if (const char* name = nonfinite_value(tag, bits)) {
            parts.nonfinite.push_back({LineRenderer::kOwnEpoch, name});
        }
        out.append(",\"summary\":{");
    } else {
        out.append("\"step\":");
        json::append_int(out, head.step);
        if (epoch >= 0 && tags[epoch] == ValueTag::missing) {
            parts.missing.push_back({static_cast<std::uint32_t>(epoch),
                                     load<std::uint64_t>(values + epoch * sizeof(std::uint64_t))});
        } else if (epoch >= 0 && tags[epoch] != ValueTag::null) {
            out.append(",\"epoch\":");
            append(static_cast<std::uint32_t>(epoch));
        }
        out.append(",\"metrics\":{");
    }
    bool first = true;
    for (std::uint32_t i = 0; i < head.count; ++i) {
        if (static_cast<std::int32_t>(i) == epoch) continue;
        if (!first) out.push_back(',');
        first = false;
        out.append(key(i));
        append(i);
    }
    out.push_back('}');
    const auto key_or_epoch = [&](std::uint32_t i) -> std::string_view {
        return i == LineRenderer::kOwnEpoch ? std::string_view("\"epoch\":") : key(i);
    };
    append_named(out, "nonfinite", parts.nonfinite, key_or_epoch,
                 [&](const auto& item) { out.append("\"").append(item.name).append("\""); });
    append_named(out, "missing", parts.missing, key,
                 [&](const auto& item) { append_reason(out, item.bits); });
}

// Appends the members for a device's time to a timing line.
void append_device_time(std::string& out, const TimingPayload& timing,
                        const SettledValue& duration) {
    const unsigned kind = (timing.flags >> TimingPayload::kDeviceKindShift) & 0xF;
    out.append(",\"device\":\"").append(kDeviceNames[kind]).append(":");
    json::append_uint(out, timing.flags >> TimingPayload::kDeviceIndexShift);
    out.append("\",\"device_duration_s\":");
    append_value(out, duration.tag, duration.bits, nullptr);
    if (duration.tag != ValueTag::missing) return;
    out.append(",\"missing\":{\"device_duration_s\":");
    append_reason(out, duration.bits);
    out.push_back('}');
}

// Appends the members of a timing line after "name".
template <class Parent>
void append_timing(std::string& out, const TimingPayload& timing, double duration_ns,
                   Parent&& append_parent, std::uint32_t thread_id, std::string_view error) {
    out.append(",\"duration_s\":");
    json::append_double(out, std::round(duration_ns) / 1e9);
    if (timing.flags & TimingPayload::kHasStep) {
        out.append(",\"step\":");
        json::append_int(out, timing.step);
    }
    out.append(",\"depth\":");
    json::append_uint(out, timing.depth);
    if (timing.flags & TimingPayload::kHasParent) {
        out.append(",\"parent\":");
        append_parent(out);
    }
    out.append(",\"thread\":");
    json::append_uint(out, thread_id);
    if (!error.empty()) {
        out.append(",\"error\":");
        json::append_string(out, error);
    }
}

}  // namespace

const LineRenderer::RenderedKeys& LineRenderer::keys(std::uint32_t id) {
    // A record is only committed after its key set was published, so the key set is always there.
    has_keys(id);
    return keys_.at(id);
}

bool LineRenderer::check(const RecordHeader& record) {
    const auto* payload = reinterpret_cast<const std::byte*>(&record) + sizeof(RecordHeader);
    if (static_cast<std::size_t>(record.stream) >= kStreamCount) return false;
    switch (record.kind) {
        case RecordKind::pad:
            return true;
        case RecordKind::metrics:
            return check_metrics(payload, record.length);
        case RecordKind::timing:
            return check_timing(payload, record.length);
        case RecordKind::drops:
            return record.length == sizeof(std::uint64_t);
        case RecordKind::fragment:
            break;
        default:
            return false;
    }
    // JSON text never contains a raw control character, so a fragment is always a single line.
    for (std::size_t i = 0; i < record.length; ++i) {
        if (static_cast<unsigned char>(payload[i]) < 0x20) return false;
    }
    return record.length != 0;
}

bool LineRenderer::check_metrics(const std::byte* payload, std::size_t length) {
    if (length < sizeof(MetricsPayload)) return false;
    const auto head = load<MetricsPayload>(payload);
    if (length < metrics_strings_offset(head.count) || !has_keys(head.key_set) ||
        keys(head.key_set).ends.size() != head.count) {
        return false;
    }
    const std::size_t strings = length - metrics_strings_offset(head.count);
    std::uint64_t used = 0;
    for (std::size_t i = 0; i < head.count; ++i) {
        const auto tag = static_cast<ValueTag>(payload[sizeof head + i]);
        if (tag > kLastValueTag) return false;
        if (tag < ValueTag::string) continue;
        const auto bits = load<std::uint64_t>(payload + metrics_values_offset(head.count) +
                                              i * sizeof(std::uint64_t));
        if (tag != ValueTag::string) {
            const bool summary = (head.flags & MetricsPayload::kSummary) != 0;
            if (tag == ValueTag::missing && !is_reason(bits)) return false;
            if (!summary && static_cast<std::int32_t>(i) == keys(head.key_set).epoch &&
                (tag != ValueTag::missing || !is_unsupported(bits))) {
                return false;
            }
            continue;
        }
        const std::uint64_t size = bits & 0xFFFFFFFFu;
        if ((bits >> 32) > strings || size > strings - (bits >> 32)) return false;
        used += size;  // texts do not overlap, so a line cannot grow to a multiple of its record
        if (used > strings) return false;
    }
    return true;
}

bool LineRenderer::check_timing(const std::byte* payload, std::size_t length) {
    if (length < sizeof(TimingPayload)) return false;
    const auto timing = load<TimingPayload>(payload);
    const auto is_name = [&](std::uint32_t id) { return has_keys(id) && !keys(id).ends.empty(); };
    std::size_t behind = length - sizeof timing;
    const bool on_device = (timing.flags & TimingPayload::kHasDevice) != 0;
    const unsigned kind = (timing.flags >> TimingPayload::kDeviceKindShift) & 0xF;
    if (on_device && kind > static_cast<unsigned>(kLastDeviceKind)) return false;
    if ((timing.flags & TimingPayload::kDeviceMissing) != 0) {
        if (!on_device || behind < sizeof(std::uint64_t)) return false;
        behind -= sizeof(std::uint64_t);
        if (!is_reason(load<std::uint64_t>(payload + sizeof timing + behind))) return false;
    }
    return timing.error_length == behind && is_name(timing.name) &&
           ((timing.flags & TimingPayload::kHasParent) == 0 || is_name(timing.parent));
}

bool LineRenderer::has_keys(std::uint32_t id) {
    while (keys_.size() <= id) {
        if (!add_keys()) return false;
    }
    return true;
}

bool LineRenderer::add_keys() {
    // If memory runs out in between, the reader has not advanced and the set is read again.
    KeyTable::Reader ahead = reader_;
    if (!ahead.next(scratch_)) return false;
    RenderedKeys set;
    for (std::size_t i = 0; i < scratch_.size(); ++i) {
        json::append_string(set.text, scratch_[i]);
        set.text.push_back(':');
        set.ends.push_back(static_cast<std::uint32_t>(set.text.size()));
        if (scratch_[i] == "epoch") set.epoch = static_cast<std::int32_t>(i);
    }
    keys_.push_back(std::move(set));
    reader_ = ahead;
    return true;
}

void LineRenderer::open_line(std::uint64_t ticks, std::uint64_t seq, std::string& out) {
    out.append("{\"timestamp\":\"");
    timestamps_.append(out, clock_.wall_ns(ticks));
    out.append("\",\"seq\":");
    json::append_uint(out, seq);
    out.push_back(',');
}

void LineRenderer::renumber(std::string& lines, std::uint64_t by) noexcept {
    constexpr std::size_t kNumberAt =
        std::string_view("{\"timestamp\":\"2026-01-30T14:32:15.123456Z\",\"seq\":").size();
    char* to = lines.data();
    const char* const end = to + lines.size();
    for (const char* from = to; from != end;) {
        const char* number = from + kNumberAt;
        const char* next = std::find(number, end, '\n') + 1;
        std::uint64_t seq = 0;
        const char* behind = std::from_chars(number, next, seq).ptr;
        to = std::copy(from, number, to);
        to = std::to_chars(to, to + (behind - number), seq - by).ptr;  // not longer than before
        to = std::copy(behind, next, to);
        from = next;
    }
    lines.resize(static_cast<std::size_t>(to - lines.data()));
}

void LineRenderer::render(const RecordHeader& record, std::uint64_t seq, std::string& out,
                          const DeviceValues* device) {
    if (record.flags == 0) device = nullptr;  // no value is pending
    missing_of_devices_ = 0;
    const auto* payload = reinterpret_cast<const std::byte*>(&record) + sizeof(RecordHeader);
    if (record.kind == RecordKind::drops) {
        render_drops(load<std::uint64_t>(payload), record.ticks, seq, out);
        return;
    }
    open_line(record.ticks, seq, out);
    if (record.kind == RecordKind::metrics) {
        render_metrics(payload, device, out);
    } else if (record.kind == RecordKind::timing) {
        render_timing(record, payload, device, out);
    } else {
        out.append(reinterpret_cast<const char*>(payload), record.length);
    }
    out.append("}\n");
}

void LineRenderer::render_drops(std::uint64_t dropped, std::uint64_t ticks, std::uint64_t seq,
                                std::string& out) {
    open_line(ticks, seq, out);
    out.append("\"dropped\":");
    json::append_uint(out, dropped);
    out.append("}\n");
}

void LineRenderer::render_metrics(const std::byte* payload, const DeviceValues* device,
                                  std::string& out) {
    const RenderedKeys& set = keys(load<MetricsPayload>(payload).key_set);
    append_metrics(out, payload, [&](std::size_t i) { return set.key(i); }, set.epoch,
                   {nonfinite_, missing_, device});
    for (const Missing& item : missing_) missing_of_devices_ += is_of_device(item.bits);
}

void LineRenderer::render_timing(const RecordHeader& record, const std::byte* payload,
                                 const DeviceValues* device, std::string& out) {
    const auto timing = load<TimingPayload>(payload);
    const auto append_name = [&](std::string& to, std::uint32_t id) {
        const std::string_view key = keys(id).key(0);
        to.append(key.substr(0, key.size() - 1));  // without the colon
    };
    out.append("\"name\":");
    append_name(out, timing.name);
    const std::byte* error = payload + sizeof(TimingPayload);
    append_timing(out, timing, clock_.duration_ns(timing.duration_ticks),
                  [&](std::string& to) { append_name(to, timing.parent); }, record.thread_id,
                  {reinterpret_cast<const char*>(error), timing.error_length});
    if ((timing.flags & TimingPayload::kHasDevice) == 0) return;
    SettledValue duration;
    if ((timing.flags & TimingPayload::kDeviceMissing) != 0) {
        duration.bits = load<std::uint64_t>(error + timing.error_length);
    } else if (device != nullptr) {
        duration = device->duration(ticket_of(record));
    }
    append_device_time(out, timing, duration);
    missing_of_devices_ = duration.tag == ValueTag::missing;
}

std::string render_timing_fragment(std::string_view name, std::string_view parent,
                                   const TimingPayload& timing, double ns_per_tick,
                                   std::uint32_t thread_id, std::string_view error,
                                   std::uint64_t missing) {
    std::string out = "\"name\":";
    json::append_string(out, name);
    append_timing(
        out, timing, static_cast<double>(timing.duration_ticks) * ns_per_tick,
        [&](std::string& to) { json::append_string(to, parent); }, thread_id, error);
    if ((timing.flags & TimingPayload::kHasDevice) != 0) {
        append_device_time(out, timing, {ValueTag::missing, missing});
    }
    return out;
}

std::string render_metrics_fragment(const std::byte* payload,
                                    const std::vector<std::string_view>& keys) {
    std::string out;
    std::string key_text;
    std::vector<LineRenderer::Nonfinite> nonfinite;
    std::vector<LineRenderer::Missing> missing;
    std::int32_t epoch = -1;
    for (std::size_t i = 0; i < keys.size(); ++i) {
        if (keys[i] == "epoch") epoch = static_cast<std::int32_t>(i);
    }
    append_metrics(out, payload,
                   [&](std::size_t i) -> std::string_view {
                       key_text.clear();
                       json::append_string(key_text, keys[i]);
                       key_text.push_back(':');
                       return key_text;
                   },
                   epoch, {nonfinite, missing, nullptr});
    return out;
}

}  // namespace fastlog
