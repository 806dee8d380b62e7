// Makes the columns of a batch out of pieces of chunks.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "reader/frame.hpp"

namespace fastlog::reader {

constexpr std::uint32_t kSkipped = UINT32_MAX;

/// Some rows of a chunk, and where in a batch they go.
struct Piece {
    std::size_t source = 0;
    std::shared_ptr<const Chunk> chunk;
    std::uint32_t begin = 0;
    std::uint32_t end = 0;
    Buffer<std::uint32_t> at;  // per row its place, or kSkipped; where none, it is row - begin

    std::uint32_t place(std::uint32_t row) const noexcept {
        return at.empty() ? row - begin : at[row - begin];
    }
    bool is_whole() const noexcept { return at.empty() && begin == 0 && end == chunk->rows(); }
};

std::unique_ptr<Batch> make_batch(const Frame& frame, const std::vector<Piece>& pieces,
                                  std::size_t rows);

}  // namespace fastlog::reader
