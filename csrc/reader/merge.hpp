// The rows of several sources in the order of their times, each source's in its own order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "reader/selection.hpp"

namespace fastlog::reader {

class Merge {
  public:
    struct Place {
        std::size_t source;
        std::size_t chunk;
        std::uint32_t row;
    };

    Merge(const std::vector<SourceRows>& sources, const Selection& selection);

    bool done() const noexcept { return heap_.empty(); }
    /// The next row; it may be a marker.
    const Place& top() const noexcept { return heads_[heap_.front()].place; }
    void pop();

  private:
    struct Head {
        Place place;
        std::int64_t time;
    };

    bool settle(Head& head) const;
    bool before(std::size_t a, std::size_t b) const;
    bool before_slowly(const Head& a, const Head& b) const;
    void sift_down(std::size_t at);

    const std::vector<SourceRows>& sources_;
    const Selection& selection_;
    std::vector<Head> heads_;
    std::vector<std::size_t> heap_;  // of heads, by time and then by source
};

}  // namespace fastlog::reader
