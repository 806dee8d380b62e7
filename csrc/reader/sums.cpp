#include "reader/sums.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "reader/moment.hpp"

namespace fastlog::reader {
namespace {

/// Whether a number is less than another; integers are not rounded to be compared.
bool is_less(Value a, Value b) noexcept {
    if (a.kind == Kind::kInt && b.kind == Kind::kInt) {
        return static_cast<std::int64_t>(a.bits) < static_cast<std::int64_t>(b.bits);
    }
    if (a.kind == Kind::kBig && b.kind == Kind::kBig) return a.bits < b.bits;
    return as_double(a) < as_double(b);
}

Kept keep(Value value, const Chunk& chunk) {
    if (value.kind != Kind::kText && value.kind != Kind::kJson) return {value, {}};
    return {value, std::string(chunk.text(value.bits))};
}

bool is_shown(const Marks& marks, std::uint32_t row) noexcept {
    return marks.empty() || marks[row] == Mark::kShown;
}

std::uint64_t next_random(std::uint64_t& state) noexcept {  // xorshift64
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/// The entry of a row, or none. Rows are asked for in ascending order.
class Cursor {
  public:
    explicit Cursor(const Column* column) : column_(column) {}
    std::optional<Value> at(std::uint32_t row) {
        if (column_ == nullptr) return std::nullopt;
        while (entry_ < column_->size() && column_->row(entry_) < row) ++entry_;
        if (entry_ == column_->size() || column_->row(entry_) != row) return std::nullopt;
        return column_->value(entry_);
    }

  private:
    const Column* column_;
    std::size_t entry_ = 0;
};

}  // namespace

void MetricSum::add(const MetricSum& other) {
    if (other.count == 0) return;
    if (count == 0 || other.first_place < first_place) {
        first_place = other.first_place;
        first = other.first;
    }
    if (count == 0 || last_place < other.last_place) {
        last_place = other.last_place;
        last = other.last;
    }
    const auto better = [&](bool less, bool more, const Place& mine, const Place& theirs) {
        return numbers == 0 || less || (!more && theirs < mine);
    };
    if (other.numbers != 0) {
        if (better(is_less(other.min, min), is_less(min, other.min), min_place, other.min_place)) {
            min = other.min;
            min_place = other.min_place;
            min_step = other.min_step;
        }
        if (better(is_less(max, other.max), is_less(other.max, max), max_place, other.max_place)) {
            max = other.max;
            max_place = other.max_place;
            max_step = other.max_step;
        }
    }
    count += other.count;
    numbers += other.numbers;
    nonfinite += other.nonfinite;
    sum.add(other.sum);
    curve.add(other.curve);
    for (const auto& [reason, times] : other.missing.get()) missing.add(reason, times);
}

void TimerSum::add(double duration) {
    ++count;
    sum.add(duration);
    max = std::max(max, duration);
    if (samples.size() < Sums::kMostSamples) {
        samples.push_back(duration);
        return;
    }
    // Reservoir sampling: each of all durations stays with the same likelihood.
    const std::uint64_t place = next_random(random) % static_cast<std::uint64_t>(count);
    if (place < samples.size()) samples[place] = duration;
}

Sums::Sums(Stream stream, std::vector<std::string> first)
    : stream_(stream), first_(std::move(first)) {
    clear();
}

void Sums::clear() {
    source_ = SIZE_MAX;
    for (const int epoch : {0, 1}) {
        of_source_[epoch].clear();
        metrics_[epoch].clear();
    }
    timers_.clear();
    ended_.clear();
    left_out_ = {};
    sources_.clear();
    for (const std::string& time : first_) {
        sources_.emplace_back();
        sources_.back().first = time;
    }
}

void Sums::read(const std::vector<Source>& sources, const std::vector<SourceRows>& rows,
                const ScanLimits& limits, const std::function<void(Part&&)>& note,
                const std::function<void()>& begin_anew, const std::function<void()>& go_on) {
    struct WentBack {};  // a writer did: what it took back is not known in time
    std::vector<Rewinds> rewinds(sources.size());
    Options options;
    options.seqs = false;
    const auto take_all = [&] {
        scan(
            sources, options, limits,
            [&](Part&& part) {
                const SourceRows& of = rows[part.source];
                if (!options.seqs && of.counts && !part.chunk->rewinds.empty()) throw WentBack{};
                take(part, of, rewinds[part.source]);
                note(std::move(part));
            },
            go_on);
        close_source();
    };
    try {
        return take_all();
    } catch (const WentBack&) {
        clear();
        begin_anew();
    }
    options.only_count = true;
    scan(
        sources, options, limits,
        [&](Part&& part) {
            if (rows[part.source].counts) rewinds[part.source].add(part.chunk->rewinds);
        },
        go_on);
    for (Rewinds& of_source : rewinds) of_source.close();
    options.only_count = false;
    options.seqs = true;
    take_all();
}

void Sums::take(const Part& part, const SourceRows& of, const Rewinds& rewinds) {
    if (part.source != source_) {
        close_source();
        source_ = part.source;
        rows_ = 0;
    }
    Chunk& chunk = *part.chunk;
    Marks marks;
    hide_values(chunk, of.cutoffs.get(), rewinds, marks, left_out_);
    take_times(chunk, marks, sources_[source_]);
    if (stream_ == Stream::kPerformance) {
        take_timings(chunk, marks, source_);
    } else {
        std::size_t place = 0;
        for (const bool epoch : {false, true}) {
            for (const Column& column : epoch ? chunk.summary : chunk.metrics) {
                ++place;
                if (column.empty()) continue;
                take_column(chunk, column, marks, of_source_[epoch][column.name], source_, place);
            }
        }
        for (const Missing& gone : chunk.missing) {
            if (!is_shown(marks, gone.row)) continue;
            const bool epoch = chunk.summary.find(gone.column->name) == gone.column;
            of_source_[epoch][gone.column->name].missing.add(gone.reason, 1);
        }
    }
    rows_ += chunk.rows();
}

void Sums::take_times(const Chunk& chunk, const Marks& marks, SourceSum& source) {
    MomentReader moments;
    const auto known = [&moments](const std::string& text) {
        const std::string padded = text + '"' + std::string(kPadding, '\0');
        return text.size() == MomentReader::kSize ? moments.read(padded.data()) : kNoTime;
    };
    std::int64_t first = source.first.empty() ? INT64_MAX : known(source.first);
    std::int64_t last = source.last.empty() ? INT64_MIN + 1 : known(source.last);
    for (std::uint32_t row = 0; row < chunk.rows(); ++row) {
        if (!marks.empty() && marks[row] == Mark::kHidden) continue;
        const std::int64_t time = chunk.time[row];
        const bool plain = time != kNoTime && first != kNoTime && last != kNoTime;
        if (plain && time >= first && time <= last) continue;
        const std::string text = time != kNoTime ? moment_text(time) : chunk.odd_times.at(row);
        if (source.first.empty() || text < source.first) {
            source.first = text;
            first = time;
        }
        if (text > source.last) {
            source.last = text;
            last = time;
        }
    }
    if (stream_ != Stream::kMetrics) return;
    for (std::uint32_t row = 0; row < chunk.rows(); ++row) {
        if (chunk.has_step[row] == 0 || !is_shown(marks, row)) continue;
        const std::int64_t step = chunk.step[row];
        if (!source.first_step || step < *source.first_step) source.first_step = step;
        if (!source.last_step || step > *source.last_step) source.last_step = step;
    }
}

void Sums::take_column(const Chunk& chunk, const Column& column, const Marks& marks, MetricSum& sum,
                       std::size_t source, std::size_t place) {
    std::size_t last = SIZE_MAX;
    for (std::size_t i = 0; i < column.size(); ++i) {
        const std::uint32_t row = column.row(i);
        if (!is_shown(marks, row)) continue;
        const Value value = column.value(i);
        last = i;
        if (sum.count++ == 0) {
            sum.first = keep(value, chunk);
            sum.first_place = {chunk.time[row], source, rows_ + row, place};
        }
        const auto summand = as_summand(value);
        if (!summand) continue;
        const double number = as_double(*summand);
        if (!std::isfinite(number)) {
            ++sum.nonfinite;
            continue;
        }
        const bool has_step = chunk.has_step[row] != 0;
        const auto note = [&](Value& extreme, Place& where, std::optional<std::int64_t>& step) {
            extreme = *summand;
            where = {chunk.time[row], source, rows_ + row, place};
            step = has_step ? std::optional(chunk.step[row]) : std::nullopt;
        };
        if (sum.numbers == 0 || is_less(*summand, sum.min))
            note(sum.min, sum.min_place, sum.min_step);
        if (sum.numbers == 0 || is_less(sum.max, *summand))
            note(sum.max, sum.max_place, sum.max_step);
        ++sum.numbers;
        sum.sum.add(number);
        if (has_step) sum.curve.add(chunk.step[row], number);
    }
    if (last == SIZE_MAX) return;
    sum.last = keep(column.value(last), chunk);
    sum.last_place = {chunk.time[column.row(last)], source, rows_ + column.row(last), place};
}

void Sums::take_timings(const Chunk& chunk, const Marks& marks, std::size_t source) {
    Cursor names(chunk.fields.find("name"));
    Cursor durations(chunk.fields.find("duration_s"));
    Cursor errors(chunk.fields.find("error"));
    Cursor parents(chunk.fields.find("parent"));
    Cursor depths(chunk.fields.find("depth"));
    Cursor threads(chunk.fields.find("thread"));
    Cursor devices(chunk.fields.find("device"));
    Cursor taken(chunk.fields.find("device_duration_s"));
    auto gone = chunk.missing.begin();
    std::string key;
    const auto timer = [&](std::uint32_t row, std::size_t place) -> TimerSum& {
        const auto [found, is_new] = timers_.try_emplace(key);
        const Place here{chunk.time[row], source, rows_ + row, place};
        if (is_new || here < found->second.first_place) found->second.first_place = here;
        return found->second;
    };
    Times times;
    const auto take = [&](std::uint32_t row, std::string_view name, double duration) {
        key.assign(name);
        TimerSum& block = timer(row, 0);
        block.add(duration);
        times.emplace_back(&block, duration);
        // The line has the time of the block's end.
        const double begun = static_cast<double>(chunk.time[row]) - 1e6 * duration;
        std::int64_t& earliest = sources_[source].begun;
        if (begun >= 0 && begun < static_cast<double>(earliest))
            earliest = static_cast<std::int64_t>(begun);
        if (errors.at(row)) ++block.errors;
        const auto device = devices.at(row);
        if (!device) return;
        key.append(" (").append(chunk.text(device->bits)).append(")");
        if (const auto on_device = taken.at(row)) {
            TimerSum& there = timer(row, 1);
            there.add(as_double(*on_device));
            times.emplace_back(&there, as_double(*on_device));
        } else if (gone != chunk.missing.end() && gone->row == row) {
            timer(row, 1).missing.add(gone->reason, 1);
        }
    };
    for (std::uint32_t row = 0; row < chunk.rows(); ++row) {
        while (gone != chunk.missing.end() && gone->row < row) ++gone;
        const auto name = names.at(row);
        const auto duration = durations.at(row);
        if (!name || !duration) continue;
        times.clear();
        const bool counts = is_shown(marks, row);
        if (counts) take(row, chunk.text(name->bits), as_double(*duration));
        const auto depth = depths.at(row);
        if (!depth || depth->kind != Kind::kInt) continue;
        const auto thread = threads.at(row);
        const auto parent = parents.at(row);
        nest(thread ? static_cast<std::int64_t>(thread->bits) : 0, depth->bits,
             chunk.text(name->bits),
             parent && parent->kind == Kind::kText ? chunk.text(parent->bits) : std::string_view(),
             times, counts);
    }
}

/// Takes in a block. Blocks within it have ended before it: those one deeper of whose lines it is the parent. It
/// may not count itself, since a later start recorded it again.
void Sums::nest(std::int64_t thread, std::uint64_t depth, std::string_view name,
                std::string_view parent, const Times& own, bool counts) {
    // More than programs have, which files may say.
    constexpr std::uint64_t kDeepest = 255;
    constexpr std::size_t kMostThreads = 4096;
    constexpr std::size_t kMostEnded = 256;
    if (depth > kDeepest) return;
    if (ended_.size() >= kMostThreads && !ended_.contains(thread)) ended_.clear();
    Depths& depths = ended_[thread];
    if (depths.size() < depth + 2) depths.resize(depth + 2);
    const auto named = [](std::vector<Ended>& all, std::string_view of) {
        return std::find_if(all.begin(), all.end(),
                            [of](const Ended& e) { return e.parent == of; });
    };
    const auto add = [](Times& times, const Times& more) {
        for (const auto& [timer, seconds] : more) {
            const auto same = [timer](const auto& time) { return time.first == timer; };
            const auto at = std::find_if(times.begin(), times.end(), same);
            if (at != times.end()) {
                at->second += seconds;
            } else {
                times.emplace_back(timer, seconds);
            }
        }
    };
    Times times = own;
    std::vector<Ended>& inner = depths[depth + 1];
    if (const auto at = named(inner, name); at != inner.end()) {
        add(times, at->times);
        inner.erase(at);
    }
    if (name == kStepTimer) {
        for (const auto& [timer, seconds] : times) timer->in_step += counts ? seconds : 0;
        return;
    }
    if (depth == 0) return;
    std::vector<Ended>& here = depths[depth];
    const auto at = named(here, parent);
    if (at != here.end()) {
        add(at->times, times);
    } else if (here.size() < kMostEnded) {
        here.push_back({std::string(parent), std::move(times)});
    }
}

void Sums::close_source() {
    ended_.clear();
    for (const int epoch : {0, 1}) {
        for (auto& [name, sum] : of_source_[epoch]) metrics_[epoch][name].add(sum);
        of_source_[epoch].clear();
    }
}

}  // namespace fastlog::reader
