// Which rows count. This is the one place that knows: frames, statistics and curves ask it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "reader/chunk.hpp"

namespace fastlog::reader {

/// What was read of a stream of a writer.
struct SourceRows {
    std::vector<std::shared_ptr<Chunk>> chunks;
    std::int64_t rank = 0;
    std::int64_t attempt = 0;
    std::string label;
    int group = 0;  // those of one group take each other's place: a rank's
    int start = 0;  // a later one takes over; equal ones stand side by side
};

enum class Mark : std::uint8_t {
    kShown,
    kDrops,   // tells of dropped records: has its place in time, and no row
    kHidden,  // of a step that a later start recorded again
};

/// The marks of a chunk's rows; none where all are shown.
using Marks = Buffer<Mark>;

/// Steps and epochs that some sources have, to be looked up.
class Recorded {
  public:
    void add(const Chunk& chunk);
    /// Sorts what was added.
    void close();
    bool empty() const noexcept { return steps_.empty() && epochs_.empty(); }
    bool has_step(std::int64_t step) const noexcept;
    bool has_epoch(double epoch) const noexcept;
    const std::vector<StepRange>& steps() const noexcept { return steps_; }

  private:
    std::vector<StepRange> steps_;
    std::vector<double> epochs_;
    mutable std::size_t last_ = 0;  // where the last step was found
};

/// What of each source is hidden: what starts behind it in its group recorded again. The sources that
/// are not the first of theirs have noted their steps.
std::vector<Recorded> recorded_again(const std::vector<SourceRows>& sources);

/// Marks the rows of a chunk; returns how many are hidden.
std::int64_t mark_rows(const Chunk& chunk, const Recorded& again, Marks& marks);

class Selection {
  public:
    explicit Selection(const std::vector<SourceRows>& sources);

    const Marks& marks(std::size_t source, std::size_t chunk) const {
        return marks_[source][chunk];
    }
    std::int64_t hidden(std::size_t source) const { return hidden_[source]; }
    std::int64_t shown() const noexcept { return shown_; }

  private:
    std::vector<std::vector<Marks>> marks_;
    std::vector<std::int64_t> hidden_;
    std::int64_t shown_ = 0;
};

}  // namespace fastlog::reader
