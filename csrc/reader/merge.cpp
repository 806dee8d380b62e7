#include "reader/merge.hpp"

#include <string>
#include <utility>

#include "reader/moment.hpp"

namespace fastlog::reader {

Merge::Merge(const std::vector<SourceRows>& sources, const Selection& selection)
    : sources_(sources), selection_(selection) {
    for (std::size_t s = 0; s < sources.size(); ++s) {
        heads_.push_back({{s, 0, 0}, 0});
        if (settle(heads_.back())) heap_.push_back(s);
    }
    for (std::size_t at = heap_.size() / 2; at-- > 0;) sift_down(at);
}

/// Goes on to a row that is not hidden; false where there is none.
bool Merge::settle(Head& head) const {
    Place& place = head.place;
    const auto& chunks = sources_[place.source].chunks;
    for (; place.chunk < chunks.size(); ++place.chunk, place.row = 0) {
        const Chunk& chunk = *chunks[place.chunk];
        const Marks& marks = selection_.marks(place.source, place.chunk);
        if (!marks.empty()) {
            while (place.row < chunk.rows() && marks[place.row] == Mark::kHidden) ++place.row;
        }
        if (place.row < chunk.rows()) {
            head.time = chunk.time[place.row];
            return true;
        }
    }
    return false;
}

bool Merge::before(std::size_t a, std::size_t b) const {
    const Head& left = heads_[a];
    const Head& right = heads_[b];
    if (left.time == kNoTime || right.time == kNoTime) [[unlikely]] {
        return before_slowly(left, right);
    }
    return left.time != right.time ? left.time < right.time : a < b;
}

bool Merge::before_slowly(const Head& a, const Head& b) const {
    const auto text = [this](const Head& head) {
        if (head.time != kNoTime) return moment_text(head.time);
        const Chunk& chunk = *sources_[head.place.source].chunks[head.place.chunk];
        return chunk.odd_times.at(head.place.row);
    };
    const int order = text(a).compare(text(b));
    return order != 0 ? order < 0 : a.place.source < b.place.source;
}

void Merge::pop() {
    Head& head = heads_[heap_.front()];
    ++head.place.row;
    if (!settle(head)) {
        heap_.front() = heap_.back();
        heap_.pop_back();
        if (heap_.empty()) return;
    }
    sift_down(0);
}

void Merge::sift_down(std::size_t at) {
    const std::size_t size = heap_.size();
    const std::size_t head = heap_[at];
    for (;;) {
        std::size_t child = 2 * at + 1;
        if (child >= size) break;
        if (child + 1 < size && before(heap_[child + 1], heap_[child])) ++child;
        if (!before(heap_[child], head)) break;
        heap_[at] = heap_[child];
        at = child;
    }
    heap_[at] = head;
}

}  // namespace fastlog::reader
