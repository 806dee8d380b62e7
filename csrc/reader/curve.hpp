// A metric over its steps, in few points.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace fastlog::reader {

/// Means over steps that lie together: 1, 2, 4, ... of them, as many as keep the points few. In which
/// order values come makes no difference.
class Curve {
  public:
    explicit Curve(std::size_t limit = 2048) : limit_(limit) {}

    void add(std::int64_t step, double value) {
        const std::int64_t place = step >> shift_;
        if (last_ < points_.size() && points_[last_].place == place) [[likely]] {
            points_[last_].add(step, value);
        } else {
            add_slowly(place, step, value);
        }
    }
    void add(const Curve& other);

    /// Step and value of each point, by step.
    std::vector<std::pair<double, double>> points() const;

  private:
    static constexpr double kScale = 0x1p-40;  // sums of the largest values do not overflow

    struct Point {
        std::int64_t place;  // step >> shift_
        double count;
        double steps;   // scaled
        double values;  // likewise

        void add(std::int64_t step, double value) noexcept {
            count += 1;
            steps += static_cast<double>(step) * kScale;
            values += value * kScale;
        }
    };

    void add_slowly(std::int64_t place, std::int64_t step, double value);
    std::size_t find(std::int64_t place) const;
    void widen();

    std::size_t limit_;
    int shift_ = 0;
    std::size_t last_ = 0;       // where the last value went
    std::vector<Point> points_;  // by place
};

}  // namespace fastlog::reader
