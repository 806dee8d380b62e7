// Recording as the bindings do it: count the call, mark earlier drops, submit, wait, drop.
#pragma once

#include <string>
#include <string_view>

#include "core/recorder.hpp"
#include "test_flush_thread_support.hpp"

namespace fastlog::test {

inline RecorderOptions options_for(std::string directory, std::size_t ring_bytes = 64 << 10,
                                   BackPressure policy = BackPressure::block) {
    RecorderOptions options;
    options.sink = {std::move(directory), "", "", false, std::uint64_t{1} << 30};
    options.ring_bytes = ring_bytes;
    options.back_pressure = policy;
    options.flush_interval_ns = kHourNs;  // what a test waits for, it asks for
    return options;
}

enum class Recorded { accepted, dropped, closed };

inline Recorded record(Recorder& recorder, std::string_view members,
                       Stream stream = Stream::metrics, std::uint64_t ticks = now_ticks()) {
    if (recorder.attention().bits() & AttentionBits::kClosed) return Recorded::closed;
    if (recorder.attention().bits() & AttentionBits::kDrops) recorder.submit_drop_markers();
    ThreadSlot& slot = recorder.slot();
    slot.count_call(CallKind::record);
    for (;;) {
        const auto result = recorder.submit(RecordKind::fragment, stream, ticks, slot.thread(),
                                            members.data(), members.size());
        if (result == Recorder::Submit::accepted) {
            ThreadSlot::add(slot.accepted, 1);
            return Recorded::accepted;
        }
        if (result == Recorder::Submit::closed) {
            slot.uncount_call(CallKind::record);
            return Recorded::closed;
        }
        if (result == Recorder::Submit::full && recorder.may_block() &&
            recorder.wait_for_room(members.size())) {
            continue;
        }
        recorder.count_drop(stream, result == Recorder::Submit::too_large);
        return Recorded::dropped;
    }
}

inline Recorded record_number(Recorder& recorder, std::uint64_t number,
                              Stream stream = Stream::metrics) {
    return record(recorder, "\"n\":" + std::to_string(number), stream);
}

inline std::uint64_t calls(const RecorderStats& stats) {
    return stats.calls.calls[static_cast<std::size_t>(CallKind::record)];
}

inline std::uint64_t written(const RecorderStats& stats) {
    std::uint64_t sum = 0;
    for (const auto& stream : stats.flush.streams) sum += stream.written;
    return sum;
}

/// What must hold of every closed recorder.
inline void check_balance(const Recorder& recorder) {
    const RecorderStats stats = recorder.stats();
    CHECK(calls(stats) == stats.calls.accepted + stats.calls.dropped);
    CHECK(written(stats) == stats.calls.accepted);
    std::uint64_t dropped = 0;
    for (const auto& stream : stats.flush.streams) dropped += stream.dropped;
    CHECK(dropped == stats.calls.dropped);
}

}  // namespace fastlog::test
