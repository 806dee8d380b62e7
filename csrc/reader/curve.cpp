#include "reader/curve.hpp"

#include <algorithm>

namespace fastlog::reader {

std::size_t Curve::find(std::int64_t place) const {
    if (points_.empty() || points_.back().place < place) return points_.size();
    const auto at = std::lower_bound(
        points_.begin(), points_.end(), place,
        [](const Point& point, std::int64_t wanted) { return point.place < wanted; });
    return static_cast<std::size_t>(at - points_.begin());
}

void Curve::add_slowly(std::int64_t place, std::int64_t step, double value) {
    last_ = find(place);
    if (last_ == points_.size() || points_[last_].place != place) {
        points_.insert(points_.begin() + static_cast<std::ptrdiff_t>(last_), {place, 0, 0, 0});
    }
    points_[last_].add(step, value);
    while (points_.size() > limit_) widen();
}

void Curve::widen() {
    ++shift_;
    std::size_t kept = 0;
    for (const Point& point : points_) {
        const std::int64_t place = point.place >> 1;
        if (kept != 0 && points_[kept - 1].place == place) {
            Point& to = points_[kept - 1];
            to.count += point.count;
            to.steps += point.steps;
            to.values += point.values;
        } else {
            points_[kept] = point;
            points_[kept++].place = place;
        }
    }
    points_.resize(kept);
    last_ = kept;  // nowhere
}

void Curve::add(const Curve& other) {
    while (shift_ < other.shift_) widen();
    for (const Point& point : other.points_) {
        const std::int64_t place = point.place >> (shift_ - other.shift_);
        const std::size_t at = find(place);
        if (at == points_.size() || points_[at].place != place) {
            points_.insert(points_.begin() + static_cast<std::ptrdiff_t>(at), {place, 0, 0, 0});
        }
        points_[at].count += point.count;
        points_[at].steps += point.steps;
        points_[at].values += point.values;
    }
    last_ = points_.size();
    while (points_.size() > limit_) widen();
}

std::vector<std::pair<double, double>> Curve::points() const {
    std::vector<std::pair<double, double>> out;
    for (const Point& point : points_) {
        out.emplace_back(point.steps / point.count / kScale, point.values / point.count / kScale);
    }
    return out;
}

}  // namespace fastlog::reader
