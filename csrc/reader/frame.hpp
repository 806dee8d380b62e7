// The rows of a stream as columns of one type each, in batches.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "reader/merge.hpp"
#include "reader/selection.hpp"

namespace fastlog::reader {

/// The type of a column of a frame.
enum class Type : std::uint8_t { kNull, kBool, kInt64, kDouble, kText, kTime };

/// The type for values of these kinds: integers are int64; with floats among them, or where one
/// does not fit, float64; what else is mixed becomes text, as it stands in JSON.
Type type_of(Kinds kinds) noexcept;

/// The values of a column in a batch: buffers as Arrow has them, and who owns them.
struct ColumnPart {
    std::size_t rows = 0;
    std::size_t nulls = 0;
    std::array<const void*, 3> buffers{};  // validity or none; values, or offsets; text
    std::array<std::shared_ptr<const void>, 3> owners{};
};

struct Batch {
    std::size_t rows = 0;
    std::vector<ColumnPart> columns;
};

struct FrameColumn {
    std::string name;
    Type type = Type::kNull;
};

// Where the columns are that every frame has: the first two, and from the end.
constexpr std::uint32_t kTimeColumn = 0;
constexpr std::uint32_t kSeqColumn = 1;
constexpr std::uint32_t kRankFromEnd = 3;
constexpr std::uint32_t kStartFromEnd = 2;
constexpr std::uint32_t kLabelFromEnd = 1;

class Frame {
  public:
    Frame(Stream stream, std::vector<SourceRows> sources);

    const std::vector<FrameColumn>& columns() const noexcept { return columns_; }
    std::int64_t rows() const noexcept { return selection_.shown(); }
    std::uint32_t step_column() const noexcept { return step_column_; }
    /// Zeros for each row of the largest batch and one more, for columns that hold nothing else.
    const std::shared_ptr<const Buffer<std::int64_t>>& zeros() const noexcept { return zeros_; }
    const std::vector<SourceRows>& sources() const noexcept { return sources_; }
    const Selection& selection() const noexcept { return selection_; }

    /// Hands out the batches in order. The frame must outlive it.
    class Batches {
      public:
        explicit Batches(const Frame& frame);
        /// The next batch, or none.
        std::unique_ptr<Batch> next();

      private:
        std::unique_ptr<Batch> next_chunk();
        std::unique_ptr<Batch> next_merged();

        const Frame& frame_;
        std::size_t chunk_ = 0;  // of the only source
        std::unique_ptr<Merge> merge_;
    };

  private:
    void name_columns(Stream stream);

    std::vector<SourceRows> sources_;
    Selection selection_;
    std::vector<FrameColumn> columns_;
    std::uint32_t step_column_ = 0;
    std::shared_ptr<const Buffer<std::int64_t>> zeros_;
};

}  // namespace fastlog::reader
