// Reads a part of a segment into a chunk.
#pragma once

#include <cstddef>
#include <cstdint>

#include "reader/buffer.hpp"
#include "reader/chunk.hpp"
#include "reader/line_parser.hpp"
#include "reader/segment.hpp"

namespace fastlog::reader {

/// A longer line is damage: no record is that large, and a reader must not fill memory.
constexpr std::uint64_t kMaxLineBytes = std::uint64_t{64} << 20;

/// Reads the lines that begin within a part of a segment. Parts know nothing of each other, so they
/// can be read at the same time: a line belongs to the part in which it begins.
class ChunkReader {
  public:
    /// `window` is how many bytes are read at a time, which stay in the processor's cache.
    explicit ChunkReader(std::size_t window = std::size_t{256} << 10,
                         std::uint64_t longest = kMaxLineBytes);

    /// Reads the lines that begin at `begin` or behind, and before `end`. Those behind `begin`
    /// follow a newline.
    void read(const SegmentFile& file, std::uint64_t begin, std::uint64_t end, Stream stream,
              const Options& options, Chunk& chunk);

  private:
    bool fill(const SegmentFile& file, Chunk& chunk);
    bool skip_to_line(const SegmentFile& file, std::uint64_t end, Chunk& chunk);
    bool skip_long_line(const SegmentFile& file, Chunk& chunk);
    void damaged(Chunk& chunk, std::size_t size) const;

    const std::size_t window_;
    const std::uint64_t longest_;
    Buffer<char> buffer_;
    std::size_t at_ = 0;        // where in the buffer the next line begins
    std::size_t filled_ = 0;    // bytes in the buffer
    std::uint64_t offset_ = 0;  // of the buffer in the segment
};

}  // namespace fastlog::reader
