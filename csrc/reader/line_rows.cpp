// What of a line that was read becomes a row of its chunk.
#include <bit>
#include <limits>

#include "reader/line_fields.hpp"
#include "reader/line_parser.hpp"

namespace fastlog::reader {
namespace {

Value nonfinite_value(std::string_view text) noexcept {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    if (text == "nan") return Value::of_double(std::numeric_limits<double>::quiet_NaN());
    if (text == "inf") return Value::of_double(kInfinity);
    if (text == "-inf") return Value::of_double(-kInfinity);
    return {};
}

}  // namespace

bool LineParser::finish() {
    note_seq();
    const bool rewound = (line_.has & flag(kRewind)) != 0;
    if (rewound) {
        const auto epoch = as_number(line_.epoch);
        chunk_.rewinds.push_back(
            {line_.seq, line_.rewind, epoch.value_or(std::numeric_limits<double>::infinity())});
        line_.dropped = Value::of_int(0);
    }
    const bool dropped = rewound || (line_.has & flag(kDropped)) != 0;
    if (options_.note_steps && !dropped) note_step();
    if (options_.note_firsts && !dropped) note_firsts();
    if (dropped) {
        chunk_.drops.emplace_back(static_cast<std::uint32_t>(chunk_.rows()), line_.dropped);
    }
    if (options_.list_names && !dropped) list_names();
    if (options_.only_count) return false;
    if (dropped) {
        metrics_.clear();
        summary_.clear();
        fields_.clear();
        missing_.clear();
        line_.epoch = {};
    } else {
        const bool has_step = (line_.has & flag(kStep)) != 0;
        if (options_.has_steps() &&
            (!has_step || line_.step < options_.first_step || line_.step > options_.last_step)) {
            return false;
        }
        if (line_.metrics == Body::kObject) summary_.clear();
        if (!options_.names.all && has_values()) {
            line_.is_wanted = !metrics_.empty() || !summary_.empty();
        }
        if (!line_.is_wanted) return false;
        if (!nonfinite_.empty()) {
            restore_nonfinite(chunk_.metrics, metrics_);
            restore_nonfinite(chunk_.summary, summary_);
        }
    }
    keep_row();
    return true;
}

void LineParser::keep_line(const char* begin, const char* end) {
    const std::optional<double> epoch = as_number(line_.epoch);
    const bool has_step = (line_.has & flag(kStep)) != 0;
    if (line_.time == kNoTime) {
        chunk_.odd_times.emplace(static_cast<std::uint32_t>(chunk_.time.size()), odd_time_);
    }
    chunk_.time.push_back(line_.time);
    chunk_.step.push_back(has_step ? line_.step : 0);
    chunk_.has_step.push_back(has_step);
    chunk_.epochs.push_back(epoch && !has_step ? *epoch : std::numeric_limits<double>::quiet_NaN());
    chunk_.texts.append(begin, static_cast<std::size_t>(end - begin));
    chunk_.line_ends.push_back(chunk_.texts.size());
}

void LineParser::list_names() {
    const auto& values = line_.metrics == Body::kObject ? metrics_ : summary_;
    for (const Found& found : values) found.column->is_listed = true;
    if (Column* const block = block_of_line()) block->is_listed = true;
}

void LineParser::restore_nonfinite(const Columns& columns, std::vector<Found>& found) {
    for (const Name& name : nonfinite_) {
        const Value value = nonfinite_value(name.text);
        if (name.name == "epoch" && (line_.has & flag(kEpoch)) != 0 &&
            line_.epoch.kind == Kind::kNull) {
            line_.epoch = value;
            continue;
        }
        const Column* const column = columns.find(name.name);
        if (column == nullptr || column->place >= found.size()) continue;
        Found& at = found[column->place];
        if (at.column == column && at.value.kind == Kind::kNull) at.value = value;
    }
}

void LineParser::keep_row() {
    const auto row = static_cast<std::uint32_t>(chunk_.rows());
    const bool has_step = (line_.has & flag(kStep)) != 0;
    if (chunk_.time.size() == chunk_.time.room()) grow_rows(chunk_.time.size() * 2 + 16);
    chunk_.time.put(line_.time);
    if (options_.seqs) chunk_.seq.put(line_.seq);
    chunk_.step.put(has_step ? line_.step : 0);
    chunk_.has_step.put(has_step);
    chunk_.steps += has_step;
    if (line_.time == kNoTime) chunk_.odd_times.emplace(row, odd_time_);
    if (line_.epoch.kind != Kind::kNull && epoch_field_->is_stored) {
        epoch_field_->put(row, line_.epoch);
    }
    for (const Found& found : metrics_) found.column->put(row, found.value);
    for (const Found& found : summary_) found.column->put(row, found.value);
    for (const Found& found : fields_) found.column->put(row, found.value);
    if (!missing_.empty()) keep_missing(row);
}

void LineParser::keep_missing(std::uint32_t row) {
    const auto keep = [&](const Name& name, Columns& columns, const std::vector<Found>& found) {
        const Column* const column = columns.find(name.name);
        if (column == nullptr || column->place >= found.size()) return;
        const Found& at = found[column->place];
        if (at.column == column && at.value.kind == Kind::kNull) {
            chunk_.missing.push_back({row, column, name.text});
        }
    };
    for (const Name& name : missing_) {
        if (has_values()) {
            keep(name, chunk_.metrics, metrics_);
            keep(name, chunk_.summary, summary_);
        } else if (name.name == "device_duration_s") {
            Column* const column = chunk_.fields.find(name.name);
            if (column != nullptr && (column->empty() || column->row(column->size() - 1) != row)) {
                chunk_.missing.push_back({row, column, name.text});
            }
        }
    }
}

void LineParser::note_seq() {
    const std::int64_t line = chunk_.lines;
    if (!chunk_.seqs.empty()) {
        SeqRun& last = chunk_.seqs.back();
        if (last.first + last.count == line_.seq && last.line + last.count == line) [[likely]] {
            ++last.count;
            return;
        }
    }
    chunk_.seqs.push_back({line_.seq, 1, line});
}

void LineParser::note_step() {
    if ((line_.has & flag(kStep)) == 0) return;
    const std::int64_t step = line_.step;
    if (!chunk_.recorded_steps.empty()) {
        StepRange& last = chunk_.recorded_steps.back();
        if (step >= last.first && step <= last.last) return;
        if (last.last != INT64_MAX && step == last.last + 1) {
            last.last = step;
            return;
        }
    }
    chunk_.recorded_steps.push_back({step, step});
}

void LineParser::note_firsts() {
    const bool has_step = (line_.has & flag(kStep)) != 0;
    const std::optional<double> epoch = has_step ? std::nullopt : as_number(line_.epoch);
    if (!has_step && !(epoch && *epoch == *epoch)) return;
    const auto note = [&](Column& column) {
        if (has_step) {
            if (!column.first_step || line_.step < *column.first_step)
                column.first_step = line_.step;
        } else if (!column.first_epoch || *epoch < *column.first_epoch) {
            column.first_epoch = epoch;
        }
    };
    for (const Found& found : line_.metrics == Body::kObject ? metrics_ : summary_) {
        note(*found.column);
    }
    if (Column* const block = block_of_line()) note(*block);
}

Column* LineParser::block_of_line() {
    if (stream_ != Stream::kPerformance) return nullptr;
    for (const Found& found : fields_) {
        if (found.column->role != kName) continue;
        return column_of(chunk_.text(found.value.bits), chunk_.metrics);
    }
    return nullptr;
}

}  // namespace fastlog::reader
