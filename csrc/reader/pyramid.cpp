#include "reader/pyramid.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <tuple>

namespace fastlog::reader {
namespace {

Buckets::iterator find_place(Buckets& buckets, std::int64_t index) {
    if (buckets.empty() || buckets.back().index < index) return buckets.end();
    return std::lower_bound(
        buckets.begin(), buckets.end(), index,
        [](const Bucket& bucket, std::int64_t wanted) { return bucket.index < wanted; });
}

}  // namespace

void Bucket::add(std::int64_t step, double value) noexcept {
    if (!std::isfinite(value)) {
        ++nonfinite;
        return;
    }
    add({index, step, step, step, step, value, value, value, value, 1, 0});
}

void Bucket::add(const Bucket& other) noexcept {
    nonfinite += other.nonfinite;
    if (other.count == 0) return;
    const bool is_first = count == 0;
    count += other.count;
    if (is_first || std::tie(other.first_step, other.first) < std::tie(first_step, first)) {
        first_step = other.first_step;
        first = other.first;
    }
    if (is_first || std::tie(last_step, last) < std::tie(other.last_step, other.last)) {
        last_step = other.last_step;
        last = other.last;
    }
    if (is_first || std::tie(other.min, other.min_step) < std::tie(min, min_step)) {
        min = other.min;
        min_step = other.min_step;
    }
    if (is_first || other.max > max || (other.max == max && other.max_step < max_step)) {
        max = other.max;
        max_step = other.max_step;
    }
}

void widen(Buckets& buckets) {
    std::size_t kept = 0;
    for (Bucket& bucket : buckets) {
        bucket.index >>= 1;
        if (kept != 0 && buckets[kept - 1].index == bucket.index) {
            buckets[kept - 1].add(bucket);
        } else {
            buckets[kept++] = bucket;
        }
    }
    buckets.resize(kept);
}

void merge(Buckets& into, const Buckets& other) {
    Buckets out;
    out.reserve(into.size() + other.size());
    auto a = into.begin();
    auto b = other.begin();
    while (a != into.end() || b != other.end()) {
        if (b == other.end() || (a != into.end() && a->index < b->index)) {
            out.push_back(*a++);
        } else if (a == into.end() || b->index < a->index) {
            out.push_back(*b++);
        } else {
            out.push_back(*a++);
            out.back().add(*b++);
        }
    }
    into = std::move(out);
}

void Pyramid::add_slowly(std::int64_t step, double value, std::size_t limit) {
    for (;;) {
        const std::int64_t index = step >> level_;
        auto place = find_place(buckets_, index);
        if (place == buckets_.end() || place->index != index) {
            if (buckets_.size() >= limit && level_ < kTopLevel) {
                widen(buckets_);
                ++level_;
                continue;
            }
            place = buckets_.insert(place, Bucket{.index = index});
        }
        place->add(step, value);
        last_ = static_cast<std::size_t>(place - buckets_.begin());
        return;
    }
}

void Pyramid::fit(std::size_t limit) {
    while (buckets_.size() > limit && level_ < kTopLevel) {
        widen(buckets_);
        ++level_;
        last_ = buckets_.size();  // nowhere
    }
}

bool Pyramid::load(int level, Buckets buckets) {
    const auto in_order = [](const Bucket& a, const Bucket& b) { return a.index >= b.index; };
    if (level < 0 || level > kTopLevel ||
        std::adjacent_find(buckets.begin(), buckets.end(), in_order) != buckets.end()) {
        return false;
    }
    level_ = level;
    buckets_ = std::move(buckets);
    last_ = buckets_.size();
    return true;
}

std::size_t Pyramids::limit(bool of_all_ranks) const noexcept {
    const std::size_t count = std::max<std::size_t>(1, counts_[of_all_ranks]);
    return std::bit_floor(std::clamp(bytes_ / sizeof(Bucket) / count, least_, most_));
}

Pyramid& Pyramids::find(std::int64_t rank, const std::string& name) {
    const auto [found, is_new] = pyramids_.try_emplace({rank, name});
    if (is_new) {
        const bool of_all = rank == kAllRanks;
        const std::size_t before = limit(of_all);
        ++counts_[of_all];
        if (limit(of_all) != before) {
            for (auto& [key, pyramid] : pyramids_) {
                if ((key.first == kAllRanks) == of_all) pyramid.fit(limit(of_all));
            }
        }
    }
    return found->second;
}

void Pyramids::add_column(const Chunk& chunk, const Column& column, const Marks& marks, Pyramid& to,
                          std::size_t limit) {
    for (std::size_t i = 0; i < column.size(); ++i) {
        const std::uint32_t row = column.row(i);
        if (chunk.has_step[row] == 0) continue;
        if (!marks.empty() && marks[row] != Mark::kShown) continue;
        if (const auto summand = as_summand(column.value(i)))
            to.add(chunk.step[row], as_double(*summand), limit);
    }
}

void Pyramids::add(const Frame& frame) {
    const auto& sources = frame.sources();
    for (std::size_t s = 0; s < sources.size(); ++s) {
        for (std::size_t c = 0; c < sources[s].chunks.size(); ++c) {
            const Chunk& chunk = *sources[s].chunks[c];
            const Marks& marks = frame.selection().marks(s, c);
            for (const Column& column : chunk.metrics) {
                if (column.empty()) continue;
                Pyramid& of_rank = find(sources[s].rank, column.name);
                add_column(chunk, column, marks, of_rank, limit(false));
                if (!several_) continue;
                add_column(chunk, column, marks, find(kAllRanks, column.name), limit(true));
            }
        }
    }
}

Drawn Pyramids::draw(const std::vector<std::int64_t>& ranks, const std::string& name,
                     std::int64_t first, std::int64_t last, std::size_t points) const {
    std::vector<const Pyramid*> chosen;
    Drawn out;
    for (const std::int64_t rank : ranks) {
        const auto found = pyramids_.find({rank, name});
        if (found == pyramids_.end()) continue;
        chosen.push_back(&found->second);
        out.level = std::max(out.level, found->second.level());
    }
    const auto in_window = [&](const Bucket& bucket) {
        return bucket.index >= first >> out.level && bucket.index <= last >> out.level;
    };
    for (const Pyramid* pyramid : chosen) {
        Buckets buckets = pyramid->buckets();
        for (int level = pyramid->level(); level < out.level; ++level) widen(buckets);
        if (out.buckets.empty()) {
            out.buckets = std::move(buckets);
        } else {
            merge(out.buckets, buckets);
        }
    }
    const auto count = [&] {
        return static_cast<std::size_t>(
            std::count_if(out.buckets.begin(), out.buckets.end(), in_window));
    };
    std::size_t shown = count();
    out.is_coarse = out.level > 0 && shown <= points / 2;
    out.first = first >> out.level << out.level;
    out.last = last | static_cast<std::int64_t>((std::uint64_t{1} << out.level) - 1);
    while (shown > points && out.level < Pyramid::kTopLevel) {
        widen(out.buckets);
        ++out.level;
        shown = count();
    }
    std::erase_if(out.buckets, [&](const Bucket& bucket) { return !in_window(bucket); });
    return out;
}

bool Pyramids::load(Key key, int level, Buckets buckets) {
    return find(key.first, key.second).load(level, std::move(buckets));
}

}  // namespace fastlog::reader
