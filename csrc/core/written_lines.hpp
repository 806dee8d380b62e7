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

  private:
    std::map<std::uint64_t, std::uint64_t> ends_;  // first -> one past last
};

/// The seq of a whole line (without its "\n") that this package has written; false for anything else:
/// torn, of NULs, or somebody else's.
bool parse_line(std::string_view line, std::uint64_t& seq);

/// Reads one file: adds its lines' numbers, and tells where its last whole line ends. A file that is
/// not there has no lines. Memory is bounded by the longest line.
SinkError scan_lines(const std::string& path, SeqSet& seqs, std::uint64_t& end_of_last_line,
                     std::uint64_t& size, bool& exists);

}  // namespace fastlog
