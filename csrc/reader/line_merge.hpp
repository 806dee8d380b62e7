// The lines of several sources as they stand in their files, merged by time, in little memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "reader/chunk_reader.hpp"
#include "reader/scan.hpp"

namespace fastlog::reader {

/// From which step on, and which epoch for lines without one, it is to be asked what of a line counts.
struct Asked {
    std::optional<std::int64_t> step;
    std::optional<double> epoch;
};

class LineMerge {
  public:
    struct Line {
        std::size_t source;
        std::string_view text;  // without its newline
        bool is_asked;
    };

    /// `note` gets each part when its lines have been handed out. The sources must outlive this.
    LineMerge(const std::vector<Source>& sources, std::vector<Asked> asked,
              std::function<void(Part&&)> note);

    /// Hands out the next lines, about so many bytes of them. False when there were none.
    bool read(std::size_t bytes, const std::function<void(const Line&)>& take);

  private:
    struct Head {
        std::vector<ScanTask> tasks;
        std::size_t next = 0;  // of them
        std::unique_ptr<Chunk> chunk;
        std::uint32_t row = 0;
    };

    bool settle(std::size_t source);
    std::unique_ptr<Chunk> read(const ScanTask& task);
    bool is_asked(std::size_t source) const;
    bool is_behind(std::size_t a, std::size_t b) const;
    bool is_behind_by_text(std::size_t a, std::size_t b) const;

    const std::vector<Source>& sources_;
    const std::vector<Asked> asked_;
    const std::function<void(Part&&)> note_;
    Options options_;
    ChunkReader reader_;
    std::vector<Head> heads_;
    std::vector<std::size_t> heap_;  // of sources
};

}  // namespace fastlog::reader
