#include "core/dead_ring.hpp"

#include <algorithm>

#include "core/batch_writer.hpp"
#include "core/kill_point.hpp"
#include "core/ring_memory.hpp"

namespace fastlog {
namespace {

// The records of a dead ring. Works on a copy in memory: if the file shrinks, the result is a read error, not
// a SIGBUS. Commits and notes are written to the file itself.
class DeadRing final : public RecordSource, public FileLedger {
  public:
    DeadRing(RunFiles& files, int fd, const RingImage& image, const Provenance& provenance,
             LineRenderer& renderer, RecoveryReport& report)
        : files_(files),
          fd_(fd),
          image_(image),
          provenance_(provenance),
          renderer_(renderer),
          report_(report),
          epoch_(image.slot().epoch),
          flags_(image.slot().flags) {}

    const RecordHeader* next(std::uint64_t& position) override {
        for (;;) {
            const RecordHeader* record = image_.next(position, report_.holes, report_.hole_bytes);
            if (record == nullptr || is_written(*record, position) ||
                (image_.has(record->stream) && renderer_.check(*record))) {
                return record;
            }
            ++report_.damaged;
            position = MpscRing::after(position, *record);
        }
    }

    bool wanted(Stream stream, std::uint64_t seq) override {
        const auto s = static_cast<std::size_t>(stream);
        note_lost_records();
        const bool skip =
            present_[s].contains(seq) || (numbers_unsure() && seq < present_[s].end());
        // A line that has to wait for a new segment is checked twice.
        if (seq >= counted_[s]) {
            ++(skip ? skipped_ : emitted_);
            counted_[s] = seq + 1;
        }
        return !skip;
    }

    SinkError commit(CommitSlot& slot) override {
        // Shared: existing lines are found by number.
        if (files_.is_view() || provenance_.shared ||
            (provenance_.certain() && !passed_all(slot))) {
            report_counts();
            return {};
        }
        slot.epoch = epoch_ + 1;
        slot.anchor_ticks = image_.slot().anchor_ticks;
        slot.anchor_wall_ns = image_.slot().anchor_wall_ns;
        slot.ns_per_tick = image_.slot().ns_per_tick;
        slot.flags = flags_;
        if (SinkError error = put_slot(slot)) return error;
        KILL_POINT("recovery_slot_written");
        if (SinkError error = put(&slot.epoch, sizeof slot.epoch, kEpochOffset)) return error;
        KILL_POINT("recovery_epoch_written");
        epoch_ = slot.epoch;
        report_counts();
        return {};
    }

    SinkError note_home(const std::string&, FileId, const std::string&,
                        const StreamFlags&) override {
        return {};
    }
    // A ring copied by someone else, or of a version without notes, is matched against the files' contents.
    SinkError note_file(Stream stream, std::uint32_t segment, FileId id) override {
        if (!image_.has_notes() || !provenance_.own_ring || files_.is_view()) return {};
        FileNote note{id.device, id.inode, segment, static_cast<std::uint32_t>(image_.home().epoch),
                      1,         0};
        note.crc = note_crc(note);
        SinkError error = put(&note, sizeof note, file_note_offset(stream, segment));
        KILL_POINT("recovery_file_noted");
        return error;
    }

    /// Reports what is in the files; nothing of a refused batch is.
    void report_counts() noexcept {
        report_.emitted = emitted_;
        report_.skipped = skipped_;
    }

    /// The next commit says that the drops without a marker now have one.
    void mark_drops() noexcept { flags_ |= CommitSlot::kDropsWritten; }

    /// The lines that are already in the files.
    SeqSet& present(Stream stream) noexcept { return present_[static_cast<std::size_t>(stream)]; }

  private:
    // A record of a stream that was ahead: already in its file, and skipped.
    bool is_written(const RecordHeader& record, std::uint64_t position) const noexcept {
        return image_.has(record.stream) && position < image_.slot().stream_position(record.stream);
    }

    // Returns whether all lines after the noted positions have been met. Until then they must be searched for
    // there again: a new position after them would not say that they belong to records still to come.
    bool passed_all(const CommitSlot& slot) const noexcept {
        for (std::size_t s = 0; s < kStreamCount; ++s) {
            if (slot.streams[s].seq < present_[s].end()) return false;
        }
        return true;
    }

    // A power loss (or a copy of a ring in use) may have removed records from the middle of the ring: then
    // the number counted for the next record is too low, and if the files hold a line with that number or a
    // higher one, they may already hold this record. A power loss may lose it; it must not be written twice.
    bool numbers_unsure() const noexcept {
        return !provenance_.certain() && (flags_ & CommitSlot::kRecordsLost) != 0;
    }
    void note_lost_records() noexcept {
        if (report_.holes + report_.damaged != 0) flags_ |= CommitSlot::kRecordsLost;
    }
    SinkError put_slot(CommitSlot& slot) {
        const std::size_t offset = kSlotOffsets[slot.epoch & 1];
        if (!image_.has(Stream::system)) {
            const OldCommitSlot old = to_old(slot);
            return put(&old, sizeof old, offset);
        }
        slot.crc = slot_crc(slot);
        return put(&slot, sizeof slot, offset);
    }
    SinkError put(const void* bytes, std::size_t size, std::size_t offset) {
        return write_all(files_, fd_, bytes, size, offset, report_.ring);
    }

    RunFiles& files_;
    const int fd_;
    const RingImage& image_;
    const Provenance& provenance_;
    LineRenderer& renderer_;
    RecoveryReport& report_;
    std::uint64_t epoch_;
    std::uint32_t flags_;
    std::uint64_t emitted_ = 0;
    std::uint64_t skipped_ = 0;
    std::uint64_t counted_[kStreamCount]{};  // lines below these numbers are counted
    SeqSet present_[kStreamCount];
};

// A hostile ring with tiny segments would create a file for each of its records.
std::uint64_t segment_bytes_of(const RingFileHeader& header) {
    return std::max({header.segment_bytes, header.ring_bytes / 64, std::uint64_t{kPageBytes}});
}

// Returns whether the run was removed, or another one has its name, since its ring was found: then these
// files must not be written to.
bool is_left_behind(RunFiles& files, const StreamFiles& sink, int fd, const RingImage& image,
                    const Provenance& provenance) {
    struct stat ring;
    return files.stat(fd, ring) != 0 || ring.st_nlink == 0 ||
           (provenance.own_ring && sink.directory_id().inode != image.home().run_inode);
}

}  // namespace

void drain_dead_ring(RunFiles& files, const std::string& run, int fd, RingImage& image,
                     Provenance provenance, RecoveryReport& report) {
    const RingFileHeader& header = image.header();
    StreamFilesOptions options;
    options.disk = &files;
    options.directory = run;
    options.label = report.label;
    options.stamp = header.stamp;
    options.segment_bytes = segment_bytes_of(header);
    options.renumbers = (image.home().flags & HomeNote::kRenumbers) != 0;

    CommitSlot start = image.slot();
    const TickConverter clock((header.flags & RingFileHeader::kTicksAreTsc) != 0,
                              start.anchor_ticks, start.anchor_wall_ns, start.ns_per_tick);
    LineRenderer renderer(image.key_table(), header.key_table_bytes, clock);
    DeadRing source(files, fd, image, provenance, renderer, report);
    StreamFiles sink(options, report.label, &source);
    const std::string scratch =
        run + "/" + kPrivateDirectory + report.ring.substr(report.ring.rfind('/')) + kScratchSuffix;
    StreamPlace places[kStreamCount];
    SinkError error = sink.open_directory();
    if (!error && is_left_behind(files, sink, fd, image, provenance)) {
        report.outcome = RecoveryReport::Outcome::gone;
        return;
    }
    if (!error && provenance.certain()) {
        bool outdated = false;
        error = is_outdated(files, sink, image, outdated);
        provenance.own_ring = !outdated;
        image.trust_tail(provenance.certain());
    }
    KILL_POINT("recovery_before_cut");
    for (std::size_t s = 0; s < kStreamCount && !error; ++s) {
        const auto stream = static_cast<Stream>(s);
        error = take_inventory(files, sink, stream, image, provenance, scratch, places[s],
                               source.present(stream), report.cut_bytes);
    }
    if (!error) error = sink.resume(places);
    KILL_POINT("recovery_after_cut");

    SinkError fault;
    // Everything is synced before the ring is removed: closed segments here, and the last ones below.
    BatchWriter writer(source, sink, renderer, start, Fsync::interval,
                       [&](const SinkError& found) { fault = found; });
    bool drops_added = false;
    while (!error) {
        const BatchWriter::Step step = writer.step();
        if (step == BatchWriter::Step::refused) error = fault;
        if (step != BatchWriter::Step::idle) continue;
        if (drops_added) break;
        drops_added = true;
        for (std::size_t s = 0; s < kStreamCount; ++s) {
            if (image.drops(static_cast<Stream>(s)) == 0) continue;
            writer.add_drops(static_cast<Stream>(s), image.drops(static_cast<Stream>(s)),
                             start.anchor_ticks);
        }
        source.mark_drops();
    }
    if (!error && !writer.sync_committed()) error = fault;
    KILL_POINT("recovery_synced");
    if (error) {
        report.outcome = RecoveryReport::Outcome::failed;
        report.reason = describe(error) + ". The ring is kept";
        if (!files.is_view()) {
            report.reason += std::string("; ") + remedy(error.code) + " and recover again";
        }
        return;
    }
    source.report_counts();
    report.outcome = RecoveryReport::Outcome::recovered;
}

}  // namespace fastlog
