// Which lines of a stream are in a writer's files: asked after a power loss, when neither offsets nor
// the order in which pages reached the disk can be trusted.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "core/file_sink.hpp"

namespace fastlog {

/// A set of line numbers, kept as ranges.
class SeqSet {
  public:
    void add(std::uint64_t seq);
    bool contains(std::uint64_t seq) const;
    std::size_t ranges() const noexcept { return ends_.size(); }
    /// One past the largest; 0 when there is none.
    std::uint64_t end() const noexcept { return ends_.empty() ? 0 : ends_.rbegin()->second; }

  private:
    std::map<std::uint64_t, std::uint64_t> ends_;  // first -> one past last
};

/// The seq of a whole line (without its "\n") that this package has written; false for anything else:
/// torn, of NULs, or somebody else's.
bool parse_line(std::string_view line, std::uint64_t& seq);

/// What the first bytes of a file say, which may end anywhere in its first line.
struct LineHead {
    bool ours = false;      // lines of this package begin so
    bool numbered = false;  // `seq` is known
    std::uint64_t seq = 0;
};
LineHead parse_line_head(std::string_view bytes);

/// Removes the segments that a writer had begun and never noted: their records are still in its ring.
/// One that does not begin as they do is somebody else's and stays, and so does one with older lines: a
/// copy of another segment. `removed_bytes` counts what was in the others.
SinkError remove_begun(const FileSink& sink, Stream stream, const StreamCommit& noted,
                       std::uint64_t& removed_bytes);

/// Reads all files of a writer's stream, whatever their number: adds their lines' numbers, and sets
/// `at` behind the last whole line. Lines of NULs, torn ones and ones whose number came before are
/// taken out (the file is written anew as `scratch` and moved into place); `cut_bytes` counts what
/// goes, the tail behind `at` included. Memory is bounded by the longest line.
SinkError take_stock(const FileSink& sink, Stream stream, const std::string& scratch,
                     StreamCommit& at, SeqSet& seqs, std::uint64_t& cut_bytes);

}  // namespace fastlog
