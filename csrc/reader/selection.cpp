#include "reader/selection.hpp"

#include <algorithm>
#include <cmath>

namespace fastlog::reader {
namespace {

/// Takes what no longer counts out of one chunk.
class Hiding {
  public:
    Hiding(Chunk& chunk, const Cutoffs* cutoffs, const Rewinds& rewinds, Marks& marks,
           Counts& left_out)
        : chunk_(chunk),
          cutoffs_(cutoffs != nullptr && !cutoffs->empty() ? cutoffs : nullptr),
          rewinds_(rewinds),
          marks_(marks),
          left_out_(left_out),
          epochs_(chunk.fields.find("epoch")) {}

    std::int64_t run() {
        for (const auto& drop : chunk_.drops) {
            if (drop.first < chunk_.rows())
                mark(drop.first, Mark::kMarker);  // else no rows are kept
        }
        if (cutoffs_ == nullptr && rewinds_.empty()) return hidden_;
        note_gone_back();
        if (const Column* const names = chunk_.fields.find("name")) {
            hide_blocks(*names);
        } else {
            hide_metrics();
        }
        return hidden_;
    }

  private:
    void mark(std::uint32_t row, Mark mark) {
        if (marks_.empty()) {
            marks_.resize(chunk_.rows());
            std::fill_n(marks_.data(), chunk_.rows(), Mark::kShown);
        }
        hidden_ += mark == Mark::kHidden;
        marks_[row] = mark;
    }

    /// Notes which rows their writer went back behind.
    void note_gone_back() {
        if (rewinds_.empty()) return;
        gone_back_.resize(chunk_.rows());
        for (std::uint32_t row = 0; row < chunk_.rows(); ++row) {
            const Rewind* const least = rewinds_.after(chunk_.seq[row]);
            gone_back_[row] = least != nullptr && is_behind(*least, row);
        }
    }

    bool is_behind(const Rewind& least, std::uint32_t row) const {
        if (chunk_.has_step[row] != 0) return chunk_.step[row] >= least.step;
        const auto epoch = epoch_of(row);
        return epoch && *epoch >= least.epoch;
    }

    std::optional<double> epoch_of(std::uint32_t row) const {
        if (epochs_ == nullptr) return std::nullopt;
        const std::size_t entry = epochs_->entry_at(row);
        if (entry == epochs_->size() || epochs_->row(entry) != row) return std::nullopt;
        const auto epoch = as_number(epochs_->value(entry));
        return epoch && std::isfinite(*epoch) ? epoch : std::nullopt;
    }

    bool is_gone(const Cutoff* cutoff, std::uint32_t row) const {
        if (!gone_back_.empty() && gone_back_[row] != 0) return true;
        if (cutoff == nullptr) return false;
        if (chunk_.has_step[row] != 0) return cutoff->step && chunk_.step[row] >= *cutoff->step;
        if (!cutoff->epoch) return false;
        const auto epoch = epoch_of(row);
        return epoch && *epoch >= *cutoff->epoch;
    }

    const Cutoff* cutoff_of(const std::string& name) const {
        if (cutoffs_ == nullptr) return nullptr;
        const auto found = cutoffs_->find(name);
        return found == cutoffs_->end() ? nullptr : &found->second;
    }

    void hide_blocks(const Column& names) {
        std::string name;
        for (std::size_t i = 0; i < names.size(); ++i) {
            const std::uint32_t row = names.row(i);
            name.assign(chunk_.text(names.value(i).bits));
            if (!is_gone(cutoff_of(name), row)) continue;
            mark(row, Mark::kHidden);
            left_out_.add(name, 1);
        }
    }

    void hide_metrics() {
        Buffer<std::uint8_t> lost;  // rows that lost a value
        for (Columns* columns : {&chunk_.metrics, &chunk_.summary}) {
            for (Column& column : *columns) {
                const Cutoff* const cutoff = cutoff_of(column.name);
                if (column.empty() || (cutoff == nullptr && gone_back_.empty())) continue;
                const std::size_t gone = column.erase_if([&](std::uint32_t row) {
                    if (!is_gone(cutoff, row)) return false;
                    if (lost.empty()) {
                        lost.resize(chunk_.rows());
                        std::fill_n(lost.data(), chunk_.rows(), std::uint8_t{0});
                    }
                    lost[row] = 1;
                    return true;
                });
                if (gone != 0) left_out_.add(column.name, static_cast<std::int64_t>(gone));
            }
        }
        if (lost.empty()) return;
        std::erase_if(chunk_.missing, [](const Missing& missing) {
            const std::size_t entry = missing.column->entry_at(missing.row);
            return entry == missing.column->size() || missing.column->row(entry) != missing.row;
        });
        for (const Columns* columns : {&chunk_.metrics, &chunk_.summary}) {
            for (const Column& column : *columns) {
                for (std::size_t i = 0; i < column.size(); ++i) lost[column.row(i)] = 0;
            }
        }
        for (std::uint32_t row = 0; row < chunk_.rows(); ++row) {
            if (lost[row] != 0) mark(row, Mark::kHidden);
        }
    }

    Chunk& chunk_;
    const Cutoffs* const cutoffs_;
    const Rewinds& rewinds_;
    Marks& marks_;
    Counts& left_out_;
    const Column* const epochs_;
    Buffer<std::uint8_t> gone_back_;  // by row, where there are rewinds
    std::int64_t hidden_ = 0;
};

}  // namespace

void Rewinds::close() {
    std::sort(rewinds_.begin(), rewinds_.end(),
              [](const Rewind& a, const Rewind& b) { return a.seq < b.seq; });
    for (std::size_t i = rewinds_.size(); i-- > 1;) {
        rewinds_[i - 1].step = std::min(rewinds_[i - 1].step, rewinds_[i].step);
        rewinds_[i - 1].epoch = std::min(rewinds_[i - 1].epoch, rewinds_[i].epoch);
    }
}

const Rewind* Rewinds::after(std::int64_t seq) const noexcept {
    const auto behind = std::upper_bound(
        rewinds_.begin(), rewinds_.end(), seq,
        [](std::int64_t wanted, const Rewind& rewind) { return wanted < rewind.seq; });
    return behind == rewinds_.end() ? nullptr : &*behind;
}

std::int64_t hide_values(Chunk& chunk, const Cutoffs* cutoffs, const Rewinds& rewinds, Marks& marks,
                         Counts& left_out) {
    return Hiding(chunk, cutoffs, rewinds, marks, left_out).run();
}

Selection::Selection(const std::vector<SourceRows>& sources) {
    for (const SourceRows& source : sources) {
        Rewinds rewinds;
        if (source.counts) {
            rewinds.add(source.rewinds);
            for (const auto& chunk : source.chunks) rewinds.add(chunk->rewinds);
        }
        rewinds.close();
        marks_.emplace_back();
        for (const auto& chunk : source.chunks) {
            Marks marks;
            hide_values(*chunk, source.cutoffs.get(), rewinds, marks, left_out_);
            shown_ += marks.empty() ? static_cast<std::int64_t>(chunk->rows())
                                    : std::count(marks.begin(), marks.end(), Mark::kShown);
            marks_.back().push_back(std::move(marks));
        }
    }
}

}  // namespace fastlog::reader
