#include "reader/line_merge.hpp"

#include <algorithm>
#include <cerrno>
#include <exception>
#include <string>
#include <utility>

#include "core/quiet_thread.hpp"
#include "reader/moment.hpp"

namespace fastlog::reader {
namespace {

constexpr std::uint64_t kMostBytes = std::uint64_t{64}
                                     << 20;  // of the parts of all sources together
constexpr std::uint64_t kPart = std::uint64_t{1} << 20;
constexpr std::uint64_t kLeastPart = std::uint64_t{64} << 10;

}  // namespace

LineMerge::LineMerge(const std::vector<Source>& sources, std::vector<Asked> asked,
                     std::function<void(Part&&)> note)
    : sources_(sources),
      asked_(std::move(asked)),
      note_(std::move(note)),
      reader_(kLeastPart),
      heads_(sources.size()) {
    options_.only_count = true;
    options_.keep_lines = true;
    const std::uint64_t each = kMostBytes / std::max<std::size_t>(1, sources.size());
    for (const ScanTask& task :
         cut(sources, measure(sources), std::clamp(each, kLeastPart, kPart))) {
        heads_[task.source].tasks.push_back(task);
    }
    for (std::size_t source = 0; source < sources.size(); ++source) {
        if (settle(source)) heap_.push_back(source);
    }
    std::make_heap(heap_.begin(), heap_.end(),
                   [this](std::size_t a, std::size_t b) { return is_behind(a, b); });
}

bool LineMerge::read(std::size_t bytes, const std::function<void(const Line&)>& take) {
    const auto behind = [this](std::size_t a, std::size_t b) { return is_behind(a, b); };
    std::size_t taken = 0;
    while (!heap_.empty() && taken < bytes) {
        std::pop_heap(heap_.begin(), heap_.end(), behind);
        const std::size_t source = heap_.back();
        heap_.pop_back();
        // A source goes on as long as its lines are the next ones.
        bool more = true;
        do {
            Head& head = heads_[source];
            const std::uint64_t begin = head.row == 0 ? 0 : head.chunk->line_ends[head.row - 1];
            const std::uint64_t end = head.chunk->line_ends[head.row];
            const std::string_view text(head.chunk->texts.data() + begin, end - begin);
            take({source, text, is_asked(source)});
            taken += text.size() + 1;
            ++head.row;
            more = settle(source);
        } while (more && taken < bytes && (heap_.empty() || is_behind(heap_.front(), source)));
        if (!more) continue;
        heap_.push_back(source);
        std::push_heap(heap_.begin(), heap_.end(), behind);
    }
    return taken != 0;
}

/// Goes on to a line; false at the end of the source.
bool LineMerge::settle(std::size_t source) {
    Head& head = heads_[source];
    for (;;) {
        if (head.chunk != nullptr) {
            if (head.row < head.chunk->line_ends.size()) return true;
            note_({source, head.tasks[head.next - 1].segment, std::move(head.chunk)});
        }
        if (head.next == head.tasks.size()) return false;
        head.chunk = read(head.tasks[head.next++]);
        head.row = 0;
    }
}

std::unique_ptr<Chunk> LineMerge::read(const ScanTask& task) {
    const Source& source = sources_[task.source];
    const Segment* segment = &source.segments[task.segment];
    Segment moved;
    ScanTask part = task;
    if (!segment->read_on) {
        auto chunk = read_part(*segment, source.stream, task, options_, reader_);
        if (chunk->error != ENOENT || !segment->read_moved) return chunk;
        moved = *segment;
        moved.path.clear();
        moved.read_on = moved.read_moved;
        segment = &moved;
        if (task.error != 0) part = {task.source, task.segment, 0, kUnknownSize, 0};
    }
    // Somebody else's code does not run in the caller's thread, where signals may raise into it.
    std::unique_ptr<Chunk> chunk;
    std::exception_ptr error;
    start_quiet_thread([&] {
        try {
            chunk = read_part(*segment, source.stream, part, options_, reader_);
        } catch (...) {
            error = std::current_exception();
        }
    }).join();
    if (error) std::rethrow_exception(error);
    return chunk;
}

bool LineMerge::is_asked(std::size_t source) const {
    const Chunk& chunk = *heads_[source].chunk;
    const std::uint32_t row = heads_[source].row;
    const Asked& asked = asked_[source];
    if (chunk.has_step[row] != 0) return asked.step && chunk.step[row] >= *asked.step;
    return asked.epoch && chunk.epochs[row] >= *asked.epoch;
}

/// Whether the line of `a` comes later than that of `b`.
bool LineMerge::is_behind(std::size_t a, std::size_t b) const {
    const std::int64_t left = heads_[a].chunk->time[heads_[a].row];
    const std::int64_t right = heads_[b].chunk->time[heads_[b].row];
    if (left == kNoTime || right == kNoTime) [[unlikely]]
        return is_behind_by_text(a, b);
    return left != right ? left > right : a > b;
}

bool LineMerge::is_behind_by_text(std::size_t a, std::size_t b) const {
    const auto text = [this](std::size_t source) {
        const Head& head = heads_[source];
        const std::int64_t time = head.chunk->time[head.row];
        return time != kNoTime ? moment_text(time) : head.chunk->odd_times.at(head.row);
    };
    const int order = text(a).compare(text(b));
    return order != 0 ? order > 0 : a > b;
}

}  // namespace fastlog::reader
