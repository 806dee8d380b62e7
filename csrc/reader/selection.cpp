#include "reader/selection.hpp"

#include <algorithm>
#include <bit>
#include <map>
#include <optional>
#include <utility>

namespace fastlog::reader {
namespace {

std::optional<double> epoch_of(const Column* epochs, std::uint32_t row) {
    const std::size_t entry = epochs->entry_at(row);
    if (entry == epochs->size() || epochs->row(entry) != row) return std::nullopt;
    const Value value = epochs->value(entry);
    switch (value.kind) {
        case Kind::kInt:
            return static_cast<double>(static_cast<std::int64_t>(value.bits));
        case Kind::kBig:
            return static_cast<double>(value.bits);
        case Kind::kDouble:
            return std::bit_cast<double>(value.bits);
        default:
            return std::nullopt;
    }
}

}  // namespace

void Recorded::add(const Chunk& chunk) {
    steps_.insert(steps_.end(), chunk.recorded_steps.begin(), chunk.recorded_steps.end());
    epochs_.insert(epochs_.end(), chunk.recorded_epochs.begin(), chunk.recorded_epochs.end());
}

void Recorded::close() {
    std::sort(steps_.begin(), steps_.end(),
              [](const StepRange& a, const StepRange& b) { return a.first < b.first; });
    std::size_t kept = 0;
    for (const StepRange& range : steps_) {
        if (kept != 0 &&
            (steps_[kept - 1].last == INT64_MAX || range.first <= steps_[kept - 1].last + 1)) {
            steps_[kept - 1].last = std::max(steps_[kept - 1].last, range.last);
        } else {
            steps_[kept++] = range;
        }
    }
    steps_.resize(kept);
    std::erase_if(epochs_, [](double epoch) { return epoch != epoch; });
    std::sort(epochs_.begin(), epochs_.end());
    epochs_.erase(std::unique(epochs_.begin(), epochs_.end()), epochs_.end());
}

bool Recorded::has_step(std::int64_t step) const noexcept {
    if (steps_.empty()) return false;
    const StepRange& near = steps_[last_];
    if (step >= near.first && step <= near.last) return true;
    const auto behind =
        std::upper_bound(steps_.begin(), steps_.end(), step,
                         [](std::int64_t s, const StepRange& range) { return s < range.first; });
    if (behind == steps_.begin()) return false;
    last_ = static_cast<std::size_t>(behind - steps_.begin()) - 1;
    return step <= steps_[last_].last;
}

bool Recorded::has_epoch(double epoch) const noexcept {
    return std::binary_search(epochs_.begin(), epochs_.end(), epoch);
}

std::vector<Recorded> recorded_again(const std::vector<SourceRows>& sources) {
    // What the starts behind each one recorded, from the last one on.
    std::map<std::pair<int, int>, std::vector<const SourceRows*>> by_start;
    for (const SourceRows& source : sources) {
        by_start[{source.group, source.start}].push_back(&source);
    }
    std::map<std::pair<int, int>, Recorded> later;
    Recorded behind;
    for (auto start = by_start.rbegin(); start != by_start.rend(); ++start) {
        const auto next = std::next(start);
        later.emplace(start->first, behind).first->second.close();
        for (const SourceRows* source : start->second) {
            for (const auto& chunk : source->chunks) behind.add(*chunk);
        }
        if (next == by_start.rend() || next->first.first != start->first.first) behind = {};
    }
    std::vector<Recorded> out;
    for (const SourceRows& source : sources) out.push_back(later.at({source.group, source.start}));
    return out;
}

std::int64_t mark_rows(const Chunk& chunk, const Recorded& again, Marks& marks) {
    const auto rows = chunk.rows();
    const auto set = [&](std::uint32_t row, Mark mark) {
        if (marks.empty()) {
            marks.resize(rows);
            std::fill_n(marks.data(), rows, Mark::kShown);
        }
        marks[row] = mark;
    };
    for (const auto& drop : chunk.drops) {
        if (drop.first < rows) set(drop.first, Mark::kDrops);  // else no rows are kept
    }
    std::int64_t hidden = 0;
    if (again.empty()) return hidden;
    const Column* const epochs = chunk.fields.find("epoch");
    for (std::uint32_t row = 0; row < rows; ++row) {
        if (!marks.empty() && marks[row] != Mark::kShown) continue;
        bool hides;
        if (chunk.has_step[row] != 0) {
            hides = again.has_step(chunk.step[row]);
        } else {
            const auto epoch = epochs == nullptr ? std::nullopt : epoch_of(epochs, row);
            hides = epoch.has_value() && again.has_epoch(*epoch);
        }
        if (!hides) continue;
        set(row, Mark::kHidden);
        ++hidden;
    }
    return hidden;
}

Selection::Selection(const std::vector<SourceRows>& sources) {
    const std::vector<Recorded> again = recorded_again(sources);
    for (std::size_t s = 0; s < sources.size(); ++s) {
        marks_.emplace_back();
        hidden_.push_back(0);
        for (const auto& chunk : sources[s].chunks) {
            Marks marks;
            hidden_[s] += mark_rows(*chunk, again[s], marks);
            shown_ += marks.empty() ? static_cast<std::int64_t>(chunk->rows())
                                    : std::count(marks.begin(), marks.end(), Mark::kShown);
            marks_[s].push_back(std::move(marks));
        }
    }
}

}  // namespace fastlog::reader
