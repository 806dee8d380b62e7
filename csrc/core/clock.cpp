#include "core/clock.hpp"

#include <cmath>

namespace fastlog {
namespace {

const bool asked_for_tsc = (hot_line.use_tsc = detail::tsc_is_reliable());

}  // namespace

std::uint64_t detail::wall_ticks() noexcept {
    return static_cast<std::uint64_t>(clock_ns(CLOCK_REALTIME));
}
std::uint64_t detail::monotonic_ticks() noexcept {
    return static_cast<std::uint64_t>(monotonic_ns());
}

TickConverter::Anchor TickConverter::take() noexcept {
    // The tightest of a few tries: an interruption between the readings would distort the mapping, by
    // more than the blocks it shifts are long if it fell into every one of the first three.
    constexpr std::uint64_t kTight = 5'000;  // ticks, 1 to 5 us: an interruption takes longer
    Anchor best{};
    std::uint64_t best_width = UINT64_MAX;
    for (int i = 0; i < 3 || (best_width > kTight && i < 20); ++i) {
        const std::uint64_t a = now_ticks();
        const std::int64_t wall = clock_ns(CLOCK_REALTIME);
        const std::int64_t mono = monotonic_ns();
        const std::uint64_t width = now_ticks() - a;
        if (width < best_width) {
            best_width = width;
            best = {a + width / 3, wall, mono};
        }
    }
    return best;
}

TickConverter::TickConverter() noexcept : first_(take()), before_(first_), last_(first_) {
    if (hot_line.use_tsc) {
        // A first rate after 200 us; each refresh() has a longer baseline and a better rate.
        while (monotonic_ns() - first_.mono_ns < 200'000) {
        }
        refresh();
    }
}

TickConverter::TickConverter(bool tsc, std::uint64_t anchor_ticks, std::int64_t anchor_wall_ns,
                             double ns_per_tick) noexcept
    : first_{anchor_ticks, anchor_wall_ns, 0},
      before_(first_),
      last_(first_),
      ns_per_tick_(tsc ? ns_per_tick : 1.0),
      tsc_(tsc),
      fixed_(true) {}

void TickConverter::refresh() noexcept {
    if (!tsc_ || fixed_) return;
    const Anchor now = take();
    const auto ticks = static_cast<double>(now.ticks) - static_cast<double>(last_.ticks);
    const auto ns = static_cast<double>(now.mono_ns - last_.mono_ns);
    const bool known_rate = last_.ticks != first_.ticks;
    if (ticks <= 0 || (known_rate && std::abs(ticks * ns_per_tick_ - ns) > 0.01 * ns + 1e6)) {
        // The machine slept: the counter was reset, or kept running while the clock stood still. Start over.
        first_ = before_ = last_ = now;
        return;
    }
    before_ = last_;
    last_ = now;
    ns_per_tick_ = static_cast<double>(last_.mono_ns - first_.mono_ns) /
                   static_cast<double>(last_.ticks - first_.ticks);
}

std::int64_t TickConverter::wall_ns(std::uint64_t ticks) const noexcept {
    if (!tsc_) return static_cast<std::int64_t>(ticks);
    // From the nearer anchor, at the measured rate: a stepped wall clock does not distort the mapping.
    const auto to_last = static_cast<std::int64_t>(ticks - last_.ticks);
    const auto to_before = static_cast<std::int64_t>(ticks - before_.ticks);
    const bool before = to_last < 0 && (to_before < 0 || to_before + to_last < 0);
    const Anchor& near = before ? before_ : last_;
    const auto delta = static_cast<std::int64_t>(ticks - near.ticks);
    const double ns = static_cast<double>(delta) * ns_per_tick_;
    constexpr double kCentury = 3.2e18;  // a damaged tick must not overflow
    if (!(std::abs(ns) < kCentury)) return near.wall_ns;
    // Nor must a damaged anchor: unsigned numbers wrap around.
    return static_cast<std::int64_t>(static_cast<std::uint64_t>(near.wall_ns) +
                                     static_cast<std::uint64_t>(std::llround(ns)));
}

double TickConverter::duration_ns(std::uint64_t ticks) const noexcept {
    return static_cast<double>(ticks) * ns_per_tick_;
}

}  // namespace fastlog
