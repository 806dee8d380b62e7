// Lines that were read, by columns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "reader/buffer.hpp"
#include "reader/column.hpp"
#include "reader/value.hpp"

namespace fastlog::reader {

enum class Stream : std::uint8_t { kMetrics, kPerformance, kErrors, kLog, kSystem };

/// Columns by their names, in the order in which they appeared.
class Columns {
  public:
    Column* find(std::string_view name) const {
        const auto found = by_name_.find(name);
        return found == by_name_.end() ? nullptr : found->second;
    }
    Column& add(std::string_view name, bool stored) {
        Column& column = columns_.emplace_back(name, stored);
        by_name_.emplace(column.name, &column);
        return column;
    }
    std::size_t size() const noexcept { return columns_.size(); }
    auto begin() const noexcept { return columns_.begin(); }
    auto end() const noexcept { return columns_.end(); }
    auto begin() noexcept { return columns_.begin(); }
    auto end() noexcept { return columns_.end(); }

    Column* first = nullptr;  // with which key the last line began

  private:
    std::deque<Column> columns_;
    std::unordered_map<std::string_view, Column*> by_name_;
};

/// Lines that follow each other with numbers that follow each other.
struct SeqRun {
    std::int64_t first;
    std::int64_t count;
    std::int64_t line;  // of the first one, from 0 within the chunk
};

/// A line that is none.
struct Damage {
    std::int64_t line;
    std::uint64_t offset;  // in the segment
    std::uint64_t size;    // without the newline
};

/// A null that stands for a value that never arrived.
struct Missing {
    std::uint32_t row;
    const Column* column;
    std::string reason;
};

/// A line that says that its writer went back to a step, and with which epoch's summary it goes on.
struct Rewind {
    std::int64_t seq;
    std::int64_t step;
    double epoch = std::numeric_limits<double>::infinity();
};

struct StepRange {
    std::int64_t first;
    std::int64_t last;  // included
};

/// The lines of a part of a segment. A line that is no JSON, or that a filter leaves out, has no row.
struct Chunk {
    std::size_t rows() const noexcept { return time.size(); }
    bool has_all_steps() const noexcept { return steps == rows(); }
    std::string_view text(std::uint64_t bits) const noexcept {
        return {texts.data() + text_offset(bits), text_size(bits)};
    }

    // Per row.
    Buffer<std::int64_t> time;  // microseconds since 1970, or kNoTime
    Buffer<std::int64_t> seq;
    Buffer<std::int64_t> step;
    Buffer<std::uint8_t> has_step;
    std::size_t steps = 0;  // rows that have one

    std::unordered_map<std::uint32_t, std::string> odd_times;  // what stands in the place of a time
    // Rows of lines without values: how many records were dropped, or 0 for a rewind.
    std::vector<std::pair<std::uint32_t, Value>> drops;

    Columns fields;   // of the stream itself
    Columns metrics;  // of a step
    Columns summary;  // of an epoch
    std::vector<Missing> missing;
    Buffer<char> texts;

    // Where lines are kept as they stand: where each row's ends in `texts`, and its epoch if it has no step.
    Buffer<std::uint64_t> line_ends;
    Buffer<double> epochs;  // NaN for none

    // Of all lines, those without a row among them.
    std::int64_t lines = 0;
    std::vector<SeqRun> seqs;
    std::vector<Damage> damages;
    std::vector<Rewind> rewinds;
    std::vector<StepRange> recorded_steps;  // where asked for: neighbours together, in no order
    std::uint64_t tail = 0;                 // bytes behind the last newline of the segment
    int error = 0;                          // of the system: the rest could not be read
};

}  // namespace fastlog::reader
