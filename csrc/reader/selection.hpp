// Which values count: docs/format.md. This is the one place that knows: frames and statistics ask it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "reader/chunk.hpp"

namespace fastlog::reader {

/// From where on later starts took over a name: from a step, and from an epoch for lines without one.
struct Cutoff {
    std::optional<std::int64_t> step;
    std::optional<double> epoch;
};
using Cutoffs = std::unordered_map<std::string, Cutoff>;

/// What was read of a stream of a writer.
struct SourceRows {
    std::vector<std::shared_ptr<Chunk>> chunks;
    std::int64_t rank = 0;
    std::int64_t start = 0;
    std::string label;
    bool counts = false;                     // leave out what no longer counts
    std::shared_ptr<const Cutoffs> cutoffs;  // or none
    std::vector<Rewind> rewinds{};           // known from lines that are not among the chunks
};

/// Counts by text, in the order in which the texts came.
class Counts {
  public:
    void add(const std::string& text, std::int64_t count) {
        const auto [found, is_new] = places_.try_emplace(text, counts_.size());
        if (is_new) counts_.emplace_back(text, 0);
        counts_[found->second].second += count;
    }
    const std::vector<std::pair<std::string, std::int64_t>>& get() const noexcept {
        return counts_;
    }

  private:
    std::vector<std::pair<std::string, std::int64_t>> counts_;
    std::unordered_map<std::string, std::size_t> places_;
};

enum class Mark : std::uint8_t {
    kShown,
    kMarker,  // tells of drops or of a rewind: has its place in time, and no values
    kHidden,  // nothing of it counts
};

/// The marks of a chunk's rows; none where all are shown.
using Marks = Buffer<Mark>;

/// The steps that a writer went back to.
class Rewinds {
  public:
    void add(const std::vector<Rewind>& rewinds) {
        rewinds_.insert(rewinds_.end(), rewinds.begin(), rewinds.end());
    }
    /// Sorts what was added.
    void close();
    bool empty() const noexcept { return rewinds_.empty(); }
    /// The least step, and epoch, that it went back to behind a line; null for none.
    const Rewind* after(std::int64_t seq) const noexcept;

  private:
    std::vector<Rewind> rewinds_;  // each with the least of its own and of those behind it
};

/// Takes out of a chunk the values that no longer count, and marks its rows. Counts the values by name.
/// With rewinds the chunk must have its numbers. Returns how many rows are hidden.
std::int64_t hide_values(Chunk& chunk, const Cutoffs* cutoffs, const Rewinds& rewinds, Marks& marks,
                         Counts& left_out);

class Selection {
  public:
    /// Takes out of the chunks what no longer counts.
    explicit Selection(const std::vector<SourceRows>& sources);

    const Marks& marks(std::size_t source, std::size_t chunk) const {
        return marks_[source][chunk];
    }
    std::int64_t shown() const noexcept { return shown_; }
    const Counts& left_out() const noexcept { return left_out_; }

  private:
    std::vector<std::vector<Marks>> marks_;
    std::int64_t shown_ = 0;
    Counts left_out_;
};

}  // namespace fastlog::reader
