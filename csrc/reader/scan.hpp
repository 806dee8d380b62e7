// Reads the segments of a run, several parts at a time.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "reader/chunk.hpp"
#include "reader/chunk_reader.hpp"
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

/// A part that is to be read.
struct ScanTask {
    std::size_t source;
    std::size_t segment;
    std::uint64_t begin;
    std::uint64_t end;
    int error;  // why the segment cannot be read
};

struct SegmentSize {
    std::uint64_t bytes;     // kUnknownSize of a compressed one
    std::uint64_t expected;  // the same, guessed where it is not known
    int error;               // why it cannot be read
};

/// The sizes of all segments, source by source.
std::vector<SegmentSize> measure(const std::vector<Source>& sources);

/// Cuts sources into parts of so many bytes, by source and in the order of their lines. A compressed segment is
/// one part.
std::vector<ScanTask> cut(const std::vector<Source>& sources, const std::vector<SegmentSize>& sizes,
                          std::uint64_t part);

/// Reads a part; of a compressed segment not on when `cancelled` is set.
std::unique_ptr<Chunk> read_part(const Segment& segment, Stream stream, const ScanTask& task,
                                 const Options& options, ChunkReader& reader,
                                 const std::atomic<bool>* cancelled = nullptr);
std::unique_ptr<Chunk> read_part(const std::vector<Source>& sources, const ScanTask& task,
                                 const Options& options, ChunkReader& reader,
                                 const std::atomic<bool>* cancelled = nullptr);

/// Reads all sources and hands out their parts: those of a source in order, one source after the
/// other, in the caller's thread. A segment that cannot be opened has one part, with the error; a
/// compressed one is one part, which is read in another thread.
/// `go_on` is asked about ten times a second, in the caller's thread; what it throws, and what
/// `take` throws, ends the reading. Throws std::bad_alloc, and std::length_error for a run with more
/// names than a run can have.
void scan(const std::vector<Source>& sources, const Options& options, const ScanLimits& limits,
          const std::function<void(Part&&)>& take, const std::function<void()>& go_on);

}  // namespace fastlog::reader
