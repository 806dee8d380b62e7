// Statistics of a stream, without keeping its rows.
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "reader/curve.hpp"
#include "reader/scan.hpp"
#include "reader/selection.hpp"

namespace fastlog::reader {

/// A sum with the digits that a double loses: of any finite numbers, to the last place but for luck.
class ExactSum {
  public:
    void add(double number) noexcept {
        if (std::abs(number) < 1) {
            small_.add(number);
        } else {
            large_.add(number * kScale);
        }
    }
    void add(const ExactSum& other) noexcept {
        small_.add(other.small_);
        large_.add(other.large_);
    }
    /// The sum, infinite where no double holds it.
    double total() const noexcept { return small_.value() + large_.value() / kScale; }
    double mean(double count) const noexcept {
        return small_.value() / count + large_.value() / count / kScale;
    }

  private:
    struct Part {
        void add(double number) noexcept {
            const double sum = high + number;
            const double part = sum - high;
            low += (high - (sum - part)) + (number - part);
            high = sum;
        }
        void add(const Part& other) noexcept {
            add(other.high);
            low += other.low;
        }
        double value() const noexcept { return high + low; }
        double high = 0;
        double low = 0;
    };

    // Sums of the largest numbers do not overflow. The smallest would lose digits by it.
    static constexpr double kScale = 0x1p-40;
    Part small_;
    Part large_;
};

/// Where something stands: writers are compared by time.
struct Place {
    std::int64_t time = 0;
    std::size_t source = 0;
    std::uint64_t row = 0;
    std::size_t column = 0;
    auto operator<=>(const Place&) const = default;
};

/// A value that outlives its chunk.
struct Kept {
    Value value;
    std::string text;
};

struct MetricSum {
    std::int64_t count = 0;
    std::int64_t numbers = 0;
    std::int64_t nonfinite = 0;
    Place first_place;
    Place last_place;
    Kept first;
    Kept last;
    Value min;
    Value max;
    Place min_place;
    Place max_place;
    std::optional<std::int64_t> min_step;
    std::optional<std::int64_t> max_step;
    ExactSum sum;
    Curve curve;
    Counts missing;

    void add(const MetricSum& other);
};

struct TimerSum {
    std::int64_t count = 0;
    std::int64_t errors = 0;
    double max = 0;
    ExactSum sum;
    Place first_place;
    std::vector<double> samples;  // all durations, or so many of them, each as likely
    std::uint64_t random = 1;
    Counts missing;
    double in_step = 0;  // seconds within blocks named "step"

    void add(double duration);
};

/// What is known of a source besides.
struct SourceSum {
    std::string first;  // timestamps, the earliest and the latest
    std::string last;
    std::int64_t begun = INT64_MAX;  // when the earliest block did, in microseconds since 1970
    std::optional<std::int64_t> first_step;
    std::optional<std::int64_t> last_step;
};

class Sums {
  public:
    /// `first` is, by source, the earliest time that is known of its writer, or empty.
    Sums(Stream stream, std::vector<std::string> first);

    /// Reads all sources. `note` gets each part when it has been taken in; `begin_anew` says that those
    /// before do not count.
    void read(const std::vector<Source>& sources, const std::vector<SourceRows>& rows,
              const ScanLimits& limits, const std::function<void(Part&&)>& note,
              const std::function<void()>& begin_anew, const std::function<void()>& go_on);

    /// Durations per timer that are kept; past this, a sample of them.
    static constexpr std::size_t kMostSamples = std::size_t{1} << 17;
    /// The timer whose blocks are the steps.
    static constexpr std::string_view kStepTimer = "step";

    using Metrics = std::unordered_map<std::string, MetricSum>;
    /// Those of steps, and those of epochs.
    const Metrics& metrics() const noexcept { return metrics_[0]; }
    const Metrics& summaries() const noexcept { return metrics_[1]; }
    const std::unordered_map<std::string, TimerSum>& timers() const noexcept { return timers_; }
    const std::vector<SourceSum>& sources() const noexcept { return sources_; }
    const Counts& left_out() const noexcept { return left_out_; }

  private:
    using Times = std::vector<std::pair<TimerSum*, double>>;
    /// Blocks that have ended, with all within them, whose parent has not.
    struct Ended {
        std::string parent;
        Times times;
    };
    using Depths = std::vector<std::vector<Ended>>;

    void clear();
    void take(const Part& part, const SourceRows& of, const Rewinds& rewinds);
    void take_times(const Chunk& chunk, const Marks& marks, SourceSum& source);
    void take_column(const Chunk& chunk, const Column& column, const Marks& marks, MetricSum& sum,
                     std::size_t source, std::size_t place);
    void take_timings(const Chunk& chunk, const Marks& marks, std::size_t source);
    void nest(std::int64_t thread, std::uint64_t depth, std::string_view name,
              std::string_view parent, const Times& own, bool counts);
    void close_source();

    const Stream stream_;
    std::size_t source_ = SIZE_MAX;  // that is read
    std::uint64_t rows_ = 0;         // of it
    Metrics of_source_[2];
    Metrics metrics_[2];
    std::unordered_map<std::string, TimerSum> timers_;
    std::unordered_map<std::int64_t, Depths> ended_;  // of the source, by thread
    std::vector<SourceSum> sources_;
    Counts left_out_;
    const std::vector<std::string> first_;
};

}  // namespace fastlog::reader
