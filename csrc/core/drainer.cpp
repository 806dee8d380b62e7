#include "core/drainer.hpp"

#include <algorithm>
#include <utility>

#include "core/kill_point.hpp"

namespace fastlog {

void Drainer::Batch::clear() noexcept {
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        bytes[s].clear();
        written[s] = 0;
        records[s] = 0;
    }
    size = 0;
}

Drainer::Drainer(RecordSource& source, FileSink& sink, LineRenderer& renderer,
                 const CommitSlot& start, Fsync fsync, Fault fault)
    : source_(source),
      sink_(sink),
      renderer_(renderer),
      fsync_(fsync),
      fault_(std::move(fault)),
      cursor_(start.position),
      committed_(start.position) {
    for (std::size_t s = 0; s < kStreamCount; ++s) seq_[s] = start.streams[s].seq;
}

Drainer::Step Drainer::step() {
    if (batch_.size == 0 && !dirty_) {
        renderer_.refresh_clock();
        fill();
        if (batch_.size == 0) {
            if (cursor_ == committed_) return Step::idle;
            return commit() ? Step::idle : Step::refused;  // a pad alone, or lines not wanted
        }
    }
    KILL_POINT("batch_filled");
    if (!dirty_ && !write()) return Step::refused;
    if (!dirty_) {
        for (std::size_t s = 0; s < kStreamCount; ++s) {
            counters_.written[s] += batch_.records[s];
            counters_.bytes[s] += batch_.bytes[s].size();
        }
        dirty_ = true;
    }
    KILL_POINT("batch_written");
    bool moved = false;
    if (fsync_ == Fsync::every_flush && !sync_all(moved)) return Step::refused;
    if (!commit()) return Step::refused;
    batch_.clear();
    dirty_ = false;
    return Step::wrote;
}

void Drainer::fill() {
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        if (std::exchange(rotate_[s], false)) rotate(static_cast<Stream>(s));
    }
    while (batch_.size < kBatchBytes) {
        std::uint64_t position = cursor_;
        const RecordHeader* record = source_.next(position);
        if (record == nullptr) {
            cursor_ = position;
            return;
        }
        const Stream stream = record->stream;
        const auto s = static_cast<std::size_t>(stream);
        if (source_.wanted(stream, seq_[s])) {
            line_.clear();
            renderer_.render(*record, seq_[s], line_);
            if (sink_.wants_rotation(stream, batch_.bytes[s].size(), line_.size())) {
                if (batch_.size != 0) {
                    rotate_[s] = true;   // first write what belongs before it
                    cursor_ = position;  // holes before it are not met (and counted) again
                    return;
                }
                rotate(stream);
            }
            batch_.bytes[s].append(line_);
            batch_.size += line_.size();
            if (record->kind != RecordKind::drops) ++batch_.records[s];
        }
        ++seq_[s];
        if (first_ticks_ == 0) first_ticks_ = record->ticks;
        cursor_ = MpscRing::after(position, *record);
    }
}

void Drainer::reserve_line(Stream stream) {
    constexpr std::size_t kDropsLine = 256;
    std::string& bytes = batch_.bytes[static_cast<std::size_t>(stream)];
    bytes.reserve(bytes.size() + kDropsLine);
}

// A segment that is left is not opened again: what is to be forced to the disk has to be now. One that
// cannot be is written on, beyond its size, or has gone on in a new one already.
void Drainer::rotate(Stream stream) {
    bool moved = false;
    if (fsync_ != Fsync::none && (!sync(stream, moved) || moved)) return;
    sink_.rotate(stream);
    KILL_POINT("rotated");
}

void Drainer::add_drops(Stream stream, std::uint64_t dropped, std::uint64_t ticks) {
    const auto s = static_cast<std::size_t>(stream);
    const std::size_t before = batch_.bytes[s].size();
    if (source_.wanted(stream, seq_[s])) {
        renderer_.render_drops(dropped, ticks, seq_[s], batch_.bytes[s]);
    }
    ++seq_[s];
    batch_.size += batch_.bytes[s].size() - before;
}

bool Drainer::write() {
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        if (batch_.written[s] < batch_.bytes[s].size() && !write_stream(static_cast<Stream>(s))) {
            return false;
        }
    }
    return true;
}

bool Drainer::write_stream(Stream stream) {
    const auto s = static_cast<std::size_t>(stream);
    std::uint64_t lost = 0;
    if (SinkError found = sink_.check(stream, &lost)) {
        // What was written of this batch lay at the file's end, so it was lost first.
        batch_.written[s] -= std::min<std::uint64_t>(batch_.written[s], lost);
        fault_(found);
    }
    std::size_t written = 0;
    const auto rest = std::string_view(batch_.bytes[s]).substr(batch_.written[s]);
    const SinkError error = sink_.write(stream, rest, written);
    batch_.written[s] += written;
    KILL_POINT("stream_written");
    if (error) fault_(error);
    return !error;
}

bool Drainer::sync(Stream stream, bool& moved) {
    const SinkError error = sink_.sync(stream);
    if (!error) return true;
    fault_(error);
    if (const SinkError again = sink_.move_unsynced(stream)) {
        fault_(again);
        return false;
    }
    moved = true;
    KILL_POINT("unsynced_moved");
    return true;
}

bool Drainer::sync_all(bool& moved) {
    bool ok = true;
    for (std::size_t s = 0; s < kStreamCount; ++s) ok = sync(static_cast<Stream>(s), moved) && ok;
    return ok;
}

bool Drainer::sync_committed() {
    if (batch_.size != 0 || dirty_) return false;
    bool moved = false;
    const bool ok = sync_all(moved);
    return (!moved || commit()) && ok;
}

bool Drainer::commit() {
    CommitSlot slot{};
    slot.position = cursor_;
    renderer_.clock().describe(slot.anchor_ticks, slot.anchor_wall_ns, slot.ns_per_tick);
    bool trims = false;
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        slot.streams[s] = sink_.state(static_cast<Stream>(s));
        slot.streams[s].seq = seq_[s];
        trims = trims || slot.streams[s].has_trim != 0;
    }
    if (const SinkError error = source_.commit(slot)) {
        fault_(error);
        return false;
    }
    committed_ = cursor_;
    KILL_POINT("committed");
    if (trims) {
        for (std::size_t s = 0; s < kStreamCount; ++s) sink_.trim(static_cast<Stream>(s));
    }
    return true;
}

}  // namespace fastlog
