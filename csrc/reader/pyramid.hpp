// A metric over its steps at all scales: buckets of 2^k steps, from which any window is drawn in few points.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "reader/frame.hpp"

namespace fastlog::reader {

/// The steps from `index << level` on, 2^level of them: what a line through all of their values shows (M4).
/// `first` is of the lowest step, `last` of the highest; where these have several values, it is the smallest
/// and the largest. Of equal extremes the lowest step is told. So the order in which values come makes no
/// difference. Without finite values the steps are 0 and the values NaN. As it is in files.
struct Bucket {
    std::int64_t index = 0;
    std::int64_t first_step = 0;
    std::int64_t last_step = 0;
    std::int64_t min_step = 0;
    std::int64_t max_step = 0;
    double first = kNone;
    double last = kNone;
    double min = kNone;
    double max = kNone;
    std::int64_t count = 0;  // finite values
    std::int64_t nonfinite = 0;

    static constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

    void add(std::int64_t step, double value) noexcept;
    void add(const Bucket& other) noexcept;
};
static_assert(sizeof(Bucket) == 88);

using Buckets = std::vector<Bucket>;  // by index

/// The buckets of twice as many steps, in place.
void widen(Buckets& buckets);
/// Adds buckets of the same level.
void merge(Buckets& into, const Buckets& other);

/// The finest level of a metric that is kept; all others are made of it. It rises by itself where there
/// would be more buckets than the limit.
class Pyramid {
  public:
    /// Only steps of different sign are apart here: a step's sign is all that is left of it.
    static constexpr int kTopLevel = 63;

    void add(std::int64_t step, double value, std::size_t limit) {
        const std::int64_t index = step >> level_;
        if (last_ < buckets_.size() && buckets_[last_].index == index) [[likely]] {
            buckets_[last_].add(step, value);
        } else {
            add_slowly(step, value, limit);
        }
    }
    /// Rises until there are no more buckets than that.
    void fit(std::size_t limit);

    int level() const noexcept { return level_; }
    const Buckets& buckets() const noexcept { return buckets_; }
    /// Whether these were buckets of this level; then they are taken.
    bool load(int level, Buckets buckets);

  private:
    void add_slowly(std::int64_t step, double value, std::size_t limit);

    int level_ = 0;
    std::size_t last_ = 0;  // where the last value went
    Buckets buckets_;
};

/// A part of a curve.
struct Drawn {
    int level = 0;
    Buckets buckets;
    /// The finest kept level has so few buckets there that values are to be looked at instead: those from
    /// `first` to `last`, which are whole buckets of that level.
    bool is_coarse = false;
    std::int64_t first = 0;
    std::int64_t last = 0;
};

/// The metrics of a run: those of each rank and, where there are several, those of all ranks together.
class Pyramids {
  public:
    /// Stands for all ranks.
    static constexpr std::int64_t kAllRanks = -1;
    using Key = std::pair<std::int64_t, std::string>;  // rank and name

    /// `bytes` is how large all may become together, each of the two kinds; `most` and `least` are how many
    /// buckets a metric has at its finest level, whatever that says.
    Pyramids(bool several_ranks, std::size_t bytes, std::size_t most, std::size_t least)
        : several_(several_ranks), bytes_(bytes), most_(most), least_(least) {}

    /// Takes in the values of steps that a frame shows.
    void add(const Frame& frame);
    /// Draws the steps from `first` to `last` in at most so many buckets, two at least: those of the finest
    /// level that has no more. All buckets are whole.
    Drawn draw(const std::vector<std::int64_t>& ranks, const std::string& name, std::int64_t first,
               std::int64_t last, std::size_t points) const;

    const std::map<Key, Pyramid>& all() const noexcept { return pyramids_; }
    bool load(Key key, int level, Buckets buckets);

  private:
    std::size_t limit(bool of_all_ranks) const noexcept;
    Pyramid& find(std::int64_t rank, const std::string& name);
    void add_column(const Chunk& chunk, const Column& column, const Marks& marks, Pyramid& to,
                    std::size_t limit);

    const bool several_;
    const std::size_t bytes_;
    const std::size_t most_;
    const std::size_t least_;
    std::size_t counts_[2] = {};  // of single ranks, and of all
    std::map<Key, Pyramid> pyramids_;
};

}  // namespace fastlog::reader
