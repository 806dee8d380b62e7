// The durations of the blocks of one name: the latest ones, and statistics of all.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace fastlog::bindings {

class Durations {
  public:
    explicit Durations(std::size_t most) noexcept : most_(most) {}

    /// Adds finite seconds: Welford's update (1962), and Neumaier's sum (1974). Throws std::bad_alloc.
    void add(double seconds) {
        if (latest_.size() < most_) {
            latest_.push_back(seconds);
        } else {
            latest_[next_] = seconds;
            next_ = next_ + 1 == most_ ? 0 : next_ + 1;
        }
        ++count_;
        const double apart = seconds - mean_;
        mean_ += apart / static_cast<double>(count_);
        squares_ += apart * (seconds - mean_);
        const double sum = sum_ + seconds;
        rest_ +=
            std::abs(sum_) >= std::abs(seconds) ? (sum_ - sum) + seconds : (seconds - sum) + sum_;
        sum_ = sum;
        low_ = std::min(low_, seconds);
        high_ = std::max(high_, seconds);
    }

    std::uint64_t count() const noexcept { return count_; }
    double total() const noexcept { return sum_ + rest_; }
    double low() const noexcept { return low_; }
    double high() const noexcept { return high_; }
    /// Within the numbers that it is of, which rounding may have left.
    double mean() const noexcept { return std::min(high_, std::max(low_, mean_)); }
    /// Of a sample: n - 1. Zero for a single number.
    double deviation() const noexcept {
        return count_ > 1 ? std::sqrt(squares_ / static_cast<double>(count_ - 1)) : 0.0;
    }

    /// The latest ones, oldest first. Throws std::bad_alloc.
    std::vector<double> latest() const {
        std::vector<double> found(latest_.begin() + static_cast<std::ptrdiff_t>(next_),
                                  latest_.end());
        found.insert(found.end(), latest_.begin(),
                     latest_.begin() + static_cast<std::ptrdiff_t>(next_));
        return found;
    }

  private:
    // What an addition touches, in one cache line and a half.
    std::uint64_t count_ = 0;
    double mean_ = 0.0;
    double squares_ = 0.0;
    double sum_ = 0.0;
    double rest_ = 0.0;
    double low_ = std::numeric_limits<double>::infinity();
    double high_ = -std::numeric_limits<double>::infinity();
    std::size_t next_ = 0;
    std::size_t most_;
    std::vector<double> latest_;
};

}  // namespace fastlog::bindings
