// The time of a call, taken as cheaply as the machine allows and converted to wall time later.
//
// record() stores raw ticks. If the processor's time stamp counter runs at a constant rate and the kernel
// itself uses it to keep time, a tick is one rdtsc (about 8 ns instead of 18 for clock_gettime); otherwise a
// tick is a nanosecond of CLOCK_REALTIME. The flush thread converts ticks to wall time with pairs of both
// clocks ("anchors") that it takes at each drain: it interpolates between two anchors, and a stepped wall
// clock affects later lines only.
#pragma once

#include <time.h>

#include <cstdint>

#include "core/hot_line.hpp"

#if defined(__x86_64__) && defined(__linux__)
#include <x86intrin.h>
#define FASTLOG_HAS_TSC 1
#else
#define FASTLOG_HAS_TSC 0
#endif

namespace fastlog {

namespace detail {
bool tsc_is_reliable() noexcept;  // asks the processor and the kernel, once
}  // namespace detail

inline std::int64_t clock_ns(clockid_t id) noexcept {
    timespec ts;
    ::clock_gettime(id, &ts);
    return static_cast<std::int64_t>(ts.tv_sec) * 1'000'000'000 + ts.tv_nsec;
}

inline std::int64_t monotonic_ns() noexcept { return clock_ns(CLOCK_MONOTONIC); }

namespace detail {
/// Ticks without the counter.
[[gnu::cold]] std::uint64_t wall_ticks() noexcept;
[[gnu::cold]] std::uint64_t monotonic_ticks() noexcept;
}  // namespace detail

/// The current ticks. Comparable within one process only.
inline std::uint64_t now_ticks(const HotLine& facts = hot_line) noexcept {
#if FASTLOG_HAS_TSC
    if (facts.use_tsc) [[likely]]
        return __rdtsc();
#endif
    static_cast<void>(facts);
    return detail::wall_ticks();
}

/// Ticks for measuring a span: the same counter, or CLOCK_MONOTONIC if ticks are wall time.
inline std::uint64_t span_ticks() noexcept {
#if FASTLOG_HAS_TSC
    if (hot_line.use_tsc) [[likely]]
        return __rdtsc();
#endif
    return detail::monotonic_ticks();
}

/// The ticks of the moment whose span_ticks() have just been taken.
inline std::uint64_t ticks_at(std::uint64_t span) noexcept {
#if FASTLOG_HAS_TSC
    if (hot_line.use_tsc) [[likely]]
        return span;
#endif
    static_cast<void>(span);
    return now_ticks();
}

/// Converts ticks to wall time and durations. Used by one thread at a time (the flush thread owns one;
/// stats() creates its own).
class TickConverter {
  public:
    /// Takes the first anchor.
    TickConverter() noexcept;
    /// Converts another process's ticks from the values of its describe(); refresh() then does nothing.
    TickConverter(bool tsc, std::uint64_t anchor_ticks, std::int64_t anchor_wall_ns,
                  double ns_per_tick) noexcept;
    /// The same moment in both clocks, and the rate.
    void describe(std::uint64_t& anchor_ticks, std::int64_t& anchor_wall_ns,
                  double& ns_per_tick) const noexcept {
        anchor_ticks = last_.ticks;
        anchor_wall_ns = last_.wall_ns;
        ns_per_tick = ns_per_tick_;
    }
    /// Takes a new anchor; call it before converting what was recorded since the last one.
    void refresh() noexcept;
    /// Nanoseconds since the epoch (UTC).
    std::int64_t wall_ns(std::uint64_t ticks) const noexcept;
    /// The length of `ticks` in nanoseconds.
    double duration_ns(std::uint64_t ticks) const noexcept;

  private:
    struct Anchor {
        std::uint64_t ticks;
        std::int64_t wall_ns;
        std::int64_t mono_ns;
    };
    static Anchor take() noexcept;

    Anchor first_;   // durations use the longest baseline available
    Anchor before_;  // wall times are interpolated between the last two anchors
    Anchor last_;
    double ns_per_tick_ = 1.0;
    bool tsc_ = hot_line.use_tsc;
    bool fixed_ = false;
};

}  // namespace fastlog
