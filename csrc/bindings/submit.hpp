// Submits one record according to the recorder's policy: count, time one call in 16, wait, drop.
#pragma once

#include <Python.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "bindings/handle.hpp"
#include "core/recorder.hpp"

namespace fastlog::bindings {

/// The rest of submit_counted() if the ring did not accept the record at once; may wait with the GIL
/// released. 0: dropped; -1: closed, with the Python error set; 2: try again.
int submit_refused(Recorder& core, Recorder::Submit result, CallKind call, Stream stream,
                   std::size_t length) noexcept;

/// Submits a record whose payload of `length` bytes `write(std::byte*)` fills in place. GIL held. `ticks` is
/// the time of the call, `thread` what the record names, 0 for the calling one. 1: accepted; 0: dropped; -1:
/// closed, with the Python error set. With `is_sampled`, the caller times the call to its end if that is set.
template <class Write>
[[gnu::always_inline]] inline int submit_counted(HotPage& page, CallKind call, RecordKind kind,
                                                 Stream stream, std::uint64_t ticks,
                                                 std::size_t length, Write&& write,
                                                 std::uint16_t flags = 0, std::uint32_t thread = 0,
                                                 bool* is_sampled = nullptr) noexcept {
    ThreadSlot& slot = page.slot();
    bool sample = slot.count_call(call);
    for (;;) {
        const auto result = Recorder::submit(
            page, kind, stream, ticks, thread != 0 ? thread : slot.thread(), length, write, flags);
        if (result == Recorder::Submit::accepted) [[likely]] {
            ThreadSlot::add(slot.accepted, 1);
            if (sample) [[unlikely]] {
                if (is_sampled != nullptr) {
                    *is_sampled = true;
                } else {
                    const std::uint64_t end = now_ticks();
                    if (end > ticks) slot.add_sample(call, end - ticks);
                }
            }
            return 1;
        }
        const int next = submit_refused(*page.core, result, call, stream, length);
        if (next != 2) return next;
        sample = false;  // the wait is counted separately
    }
}

/// The same, copying the payload.
[[gnu::hot]] inline int submit_counted(HotPage& page, CallKind call, RecordKind kind, Stream stream,
                                       std::uint64_t ticks, const void* payload, std::size_t length,
                                       std::uint16_t flags = 0, std::uint32_t thread = 0,
                                       bool* is_sampled = nullptr) noexcept {
    return submit_counted(
        page, call, kind, stream, ticks, length,
        [&](std::byte* at) { std::memcpy(at, payload, length); }, flags, thread, is_sampled);
}

}  // namespace fastlog::bindings
