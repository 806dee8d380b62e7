// Sets of line numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>

namespace fastlog {

/// A set of line numbers, kept as ranges.
class SeqSet {
  public:
    void add(std::uint64_t seq);
    bool contains(std::uint64_t seq) const;
    std::size_t ranges() const noexcept { return ends_.size(); }
    /// One past the largest; 0 if the set is empty.
    std::uint64_t end() const noexcept { return ends_.empty() ? 0 : ends_.rbegin()->second; }

  private:
    std::map<std::uint64_t, std::uint64_t> ends_;  // first -> one past last
};

}  // namespace fastlog
