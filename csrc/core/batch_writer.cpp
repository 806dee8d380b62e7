#include "core/batch_writer.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

#include "core/kill_point.hpp"

namespace fastlog {

void BatchWriter::Batch::clear() noexcept {
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        bytes[s].clear();
        written[s] = 0;
        records[s] = 0;
    }
    missing = 0;
    size = 0;
}

BatchWriter::BatchWriter(RecordSource& source, StreamFiles& sink, LineRenderer& renderer,
                         const CommitSlot& start, Fsync fsync, Fault fault)
    : source_(source), sink_(sink), renderer_(renderer), fsync_(fsync), fault_(std::move(fault)) {
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        cursors_[s] = committed_[s] = start.stream_position(static_cast<Stream>(s));
        seq_[s] = committed_seq_[s] = start.streams[s].seq;
    }
}

std::uint64_t BatchWriter::position() const noexcept {
    return *std::min_element(std::begin(cursors_), std::end(cursors_));
}

BatchWriter::Step BatchWriter::step() {
    if (batch_.size == 0 && !dirty_) {
        renderer_.refresh_clock();
        fill();
        if (batch_.size == 0) {
            if (std::equal(std::begin(cursors_), std::end(cursors_), committed_)) return Step::idle;
            return commit() ? Step::idle
                            : Step::refused;  // only padding, or lines that are not wanted
        }
    }
    KILL_POINT("batch_filled");
    if (!dirty_ && !write()) return Step::refused;
    if (!dirty_) {
        for (std::size_t s = 0; s < kStreamCount; ++s) {
            counters_.written[s] += batch_.records[s];
            counters_.bytes[s] += batch_.bytes[s].size();
        }
        counters_.missing += batch_.missing;
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

// Starts at the stream that is furthest behind: records before another stream's cursor are done there. A
// stream whose next record waits for a device stays where it is, so that its lines keep their order and
// numbers; the others go on.
void BatchWriter::fill() {
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        if (std::exchange(rotate_[s], false)) rotate(static_cast<Stream>(s));
    }
    DeviceValues* device = source_.device();
    if (device != nullptr) device->begin_round();
    bool waiting[kStreamCount]{};
    std::uint64_t position = this->position();
    while (batch_.size < kBatchBytes) {
        const RecordHeader* record = source_.next(position);
        if (record == nullptr) break;
        const Stream stream = record->stream;
        const auto s = static_cast<std::size_t>(stream);
        const std::uint64_t end = MpscRing::after(position, *record);
        if (position < cursors_[s] || waiting[s]) {
            position = end;
            continue;
        }
        if (device == nullptr && record->flags != 0) {
            // The first one ever: it was set after this round began, but before this record was committed.
            device = source_.device();
            if (device != nullptr) device->begin_round();
        }
        if (waits(*record, position, device)) {
            waiting[s] = true;
            cursors_[s] = position;
            position = end;
            continue;
        }
        if (source_.wanted(stream, seq_[s])) {
            line_.clear();
            renderer_.render(*record, seq_[s], line_, device);
            if (sink_.wants_rotation(stream, batch_.bytes[s].size(), line_.size())) {
                if (batch_.size != 0) {
                    rotate_[s] = true;  // first write what belongs before it
                    break;              // and continue here: earlier holes are not visited again
                }
                rotate(stream);
            }
            batch_.bytes[s].append(line_);
            batch_.size += line_.size();
            if (record->kind != RecordKind::drops) ++batch_.records[s];
            batch_.missing += renderer_.missing_of_devices();
            if (record->kind == RecordKind::metrics) source_.rendered_metrics(*record, renderer_);
        }
        if (device != nullptr && record->flags != 0) device->release(ticket_of(*record));
        ++seq_[s];
        if (first_ticks_ == 0) first_ticks_ = record->ticks;
        cursors_[s] = position = end;
    }
    scanned_to(position, waiting);
}

bool BatchWriter::waits(const RecordHeader& record, std::uint64_t position, DeviceValues* device) {
    if (device == nullptr || record.flags == 0) return false;
    const std::uint16_t ticket = ticket_of(record);
    if (device->poll(ticket) == DeviceValues::State::settled) return false;
    MissingReason why = MissingReason::timeout;
    if (!source_.must_settle(position, device->made_ns(ticket), why)) return true;
    device->give_up(ticket, why);
    return false;
}

void BatchWriter::scanned_to(std::uint64_t position, const bool (&waiting)[kStreamCount]) noexcept {
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        if (!waiting[s]) cursors_[s] = std::max(cursors_[s], position);
    }
}

void BatchWriter::reserve_line(Stream stream) {
    constexpr std::size_t kDropsLine = 256;
    std::string& bytes = batch_.bytes[static_cast<std::size_t>(stream)];
    bytes.reserve(bytes.size() + kDropsLine);
}

// A closed segment is never reopened, so sync it before rotating. If the sync fails, the segment is continued
// beyond its size, or its unsynced lines have already been moved to a new one.
void BatchWriter::rotate(Stream stream) {
    bool moved = false;
    if (fsync_ != Fsync::none && (!sync(stream, moved) || moved)) return;
    sink_.rotate(stream);
    KILL_POINT("rotated");
}

void BatchWriter::add_drops(Stream stream, std::uint64_t dropped, std::uint64_t ticks) {
    const auto s = static_cast<std::size_t>(stream);
    const std::size_t before = batch_.bytes[s].size();
    if (source_.wanted(stream, seq_[s])) {
        renderer_.render_drops(dropped, ticks, seq_[s], batch_.bytes[s]);
    }
    ++seq_[s];
    batch_.size += batch_.bytes[s].size() - before;
}

bool BatchWriter::write() {
    // Rewrite lost lines at once, since a waiter may find that the rest was lost in the meantime. But not
    // forever.
    constexpr int kTries = 8;
    for (int tries = 0; tries < kTries; ++tries) {
        if (!write_streams()) return false;
        if (is_whole()) return true;
    }
    return false;
}

bool BatchWriter::write_streams() {
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        while (batch_.written[s] < batch_.bytes[s].size()) {
            if (!write_stream(static_cast<Stream>(s))) return false;
        }
    }
    return true;
}

// A file may have lost its name since the last check: then these lines are lost with it.
bool BatchWriter::is_whole() {
    bool whole = true;
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        if (batch_.bytes[s].empty()) continue;
        look_at_file(static_cast<Stream>(s));
        whole = whole && batch_.written[s] == batch_.bytes[s].size();
    }
    return whole;
}

// What was written of this batch is at the end of the file, so it is lost first.
void BatchWriter::look_at_file(Stream stream) {
    std::size_t& written = batch_.written[static_cast<std::size_t>(stream)];
    std::uint64_t lost = 0;
    const SinkError found = sink_.check(stream, &lost);
    written -= std::min<std::uint64_t>(written, lost);
    restart_numbers();
    if (found) fault_(found);
}

// Renumber the lines of the batch for their files. None of them is in those files yet.
void BatchWriter::restart_numbers() noexcept {
    const StreamFlags& restarts = sink_.restarts();
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        if (!restarts[s]) continue;
        batch_.written[s] = 0;
        LineRenderer::renumber(batch_.bytes[s], committed_seq_[s]);
        seq_[s] -= std::exchange(committed_seq_[s], 0);
    }
    sink_.note_restarted();
}

bool BatchWriter::write_stream(Stream stream) {
    const auto s = static_cast<std::size_t>(stream);
    look_at_file(stream);
    struct Count {  // also after an exception
        std::size_t& all;
        std::size_t now = 0;
        ~Count() { all += now; }
    };
    SinkError error;
    {
        const auto rest = std::string_view(batch_.bytes[s]).substr(batch_.written[s]);
        Count written{batch_.written[s]};
        error = sink_.write(stream, rest, written.now);
    }
    KILL_POINT("stream_written");
    if (error) fault_(error);
    return !error;
}

bool BatchWriter::sync(Stream stream, bool& moved) {
    const SinkError error = sink_.sync(stream);
    if (!error) return true;
    fault_(error);
    if (!sink_.sync_failed(stream)) return false;
    // First complete the cut left over from an earlier failure, or these lines would be in two segments.
    if (sink_.trim_due(stream) && !commit()) return false;
    if (const SinkError again = sink_.move_unsynced(stream)) {
        fault_(again);
        return false;
    }
    moved = true;
    KILL_POINT("unsynced_moved");
    return true;
}

bool BatchWriter::sync_all(bool& moved) {
    bool ok = true;
    for (std::size_t s = 0; s < kStreamCount; ++s) ok = sync(static_cast<Stream>(s), moved) && ok;
    return ok;
}

bool BatchWriter::sync_committed() {
    if (batch_.size != 0 || dirty_) return false;
    bool moved = false;
    const bool ok = sync_all(moved);
    return (!moved || commit()) && cut_moved() && ok;
}

bool BatchWriter::cut_moved() {
    bool ok = true;
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        const SinkError error = sink_.trim(static_cast<Stream>(s));
        if (error) fault_(error);
        ok = ok && !error;
    }
    return ok;
}

bool BatchWriter::commit() {
    CommitSlot slot{};
    slot.position = position();
    renderer_.clock().describe(slot.anchor_ticks, slot.anchor_wall_ns, slot.ns_per_tick);
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        slot.streams[s] = sink_.state(static_cast<Stream>(s));
        slot.streams[s].seq = seq_[s];
        slot.streams[s].ahead =
            static_cast<std::uint32_t>((cursors_[s] - slot.position) / kRecordAlign);
    }
    if (const SinkError error = source_.commit(slot)) {
        fault_(error);
        return false;
    }
    std::copy(std::begin(cursors_), std::end(cursors_), committed_);
    std::copy(std::begin(seq_), std::end(seq_), committed_seq_);
    sink_.note_committed();
    KILL_POINT("committed");
    cut_moved();  // what cannot be cut now is retried
    return true;
}

}  // namespace fastlog
