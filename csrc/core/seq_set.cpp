#include "core/seq_set.hpp"

#include <iterator>

namespace fastlog {

void SeqSet::add(std::uint64_t seq) {
    auto next = ends_.upper_bound(seq);
    if (next != ends_.begin()) {
        auto before = std::prev(next);
        if (seq < before->second) return;
        if (seq == before->second) {
            ++before->second;
            if (next != ends_.end() && next->first == before->second) {
                before->second = next->second;
                ends_.erase(next);
            }
            return;
        }
    }
    if (next != ends_.end() && next->first == seq + 1) {
        const std::uint64_t end = next->second;
        ends_.erase(next);
        ends_.emplace(seq, end);
        return;
    }
    ends_.emplace(seq, seq + 1);
}

bool SeqSet::contains(std::uint64_t seq) const {
    auto next = ends_.upper_bound(seq);
    return next != ends_.begin() && seq < std::prev(next)->second;
}

}  // namespace fastlog
