// Reads the segments of a run, several parts at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "reader/chunk.hpp"
#include "reader/line_parser.hpp"
#include "reader/segment.hpp"

namespace fastlog::reader {

/// A stream of a writer.
struct Source {
    Stream stream = Stream::kMetrics;
    std::vector<Segment> segments;  // in the order of their lines
};

/// What was read of a part of a source, in the order of its lines.
struct Part {
    std::size_t source;
    std::size_t segment;
    std::unique_ptr<Chunk> chunk;
};

struct ScanLimits {
    unsigned threads = 0;  // 0: as many as there are processors
    std::uint64_t part_bytes = std::uint64_t{32} << 20;
    std::size_t ahead = SIZE_MAX;  // parts that are read before they are taken
};

/// Reads all sources and hands out their parts: those of a source in order, one source after the
/// other, in the caller's thread. A segment that cannot be opened has one part, with the error; a
/// compressed one is one part, which is read in another thread.
/// `go_on` is asked about ten times a second, in the caller's thread; what it throws, and what
/// `take` throws, ends the reading. Throws std::bad_alloc, and std::length_error for a run with more
/// names than a run can have.
void scan(const std::vector<Source>& sources, const Options& options, const ScanLimits& limits,
          const std::function<void(Part&&)>& take, const std::function<void()>& go_on);

}  // namespace fastlog::reader
