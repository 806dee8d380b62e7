#include "core/recovery.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <ctime>
#include <memory>
#include <new>
#include <system_error>
#include <thread>

#include "core/batch_writer.hpp"
#include "core/fork_watch.hpp"
#include "core/kill_point.hpp"
#include "core/labels.hpp"
#include "core/line_inventory.hpp"
#include "core/quarantine.hpp"
#include "core/ring_home.hpp"
#include "core/ring_image.hpp"
#include "core/ring_memory.hpp"
#include "core/ring_pointer.hpp"
#include "core/unfinished.hpp"
#include "core/writer_mark.hpp"

namespace fastlog {
namespace {

using Outcome = RecoveryReport::Outcome;

std::string describe(const SinkError& error) {
    return error.what + ": " + std::system_category().message(error.code);
}

std::string private_directory(const std::string& run) { return run + "/" + kPrivateDirectory; }

// The records of a dead ring. Works on a copy in memory: a file that shrinks meanwhile is a read
// error, not a SIGBUS. Commits and notes go into the file itself.
class DeadRing final : public RecordSource, public FileLedger {
  public:
    DeadRing(int fd, const RingImage& image, const Provenance& provenance, LineRenderer& renderer,
             RecoveryReport& report)
        : fd_(fd),
          image_(image),
          provenance_(provenance),
          renderer_(renderer),
          report_(report),
          epoch_(image.slot().epoch),
          flags_(image.slot().flags) {}

    const RecordHeader* next(std::uint64_t& position) override {
        for (;;) {
            const RecordHeader* record = image_.next(position, report_.holes, report_.hole_bytes);
            if (record == nullptr || is_written(*record, position) || renderer_.check(*record)) {
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
        // A line that has to wait for a new segment is asked for twice.
        if (seq >= counted_[s]) {
            ++(skip ? skipped_ : emitted_);
            counted_[s] = seq + 1;
        }
        return !skip;
    }

    SinkError commit(CommitSlot& slot) override {
        // Shared: what is there is found again by number.
        if (provenance_.shared || (provenance_.certain() && !passed_all(slot))) {
            report_counts();
            return {};
        }
        slot.epoch = epoch_ + 1;
        slot.anchor_ticks = image_.slot().anchor_ticks;
        slot.anchor_wall_ns = image_.slot().anchor_wall_ns;
        slot.ns_per_tick = image_.slot().ns_per_tick;
        slot.flags = flags_;
        slot.crc = slot_crc(slot);
        if (SinkError error = put(&slot, sizeof slot, kSlotOffsets[slot.epoch & 1])) return error;
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
    // A ring that is somebody else's copy, or of a version without notes, goes by what the files say.
    SinkError note_file(Stream stream, std::uint32_t segment, FileId id) override {
        if (!image_.has_notes() || !provenance_.own_ring) return {};
        FileNote note{id.device, id.inode, segment, static_cast<std::uint32_t>(image_.home().epoch),
                      1,         0};
        note.crc = note_crc(note);
        SinkError error = put(&note, sizeof note, file_note_offset(stream, segment));
        KILL_POINT("recovery_file_noted");
        return error;
    }

    /// What is in the files is in the report; of a batch that was refused nothing is.
    void report_counts() noexcept {
        report_.emitted = emitted_;
        report_.skipped = skipped_;
    }

    /// The next commit says that the drops that had no marker have one now.
    void mark_drops() noexcept { flags_ |= CommitSlot::kDropsWritten; }

    /// The lines that are in the files already.
    SeqSet& present(Stream stream) noexcept { return present_[static_cast<std::size_t>(stream)]; }

  private:
    // A record of a stream that was ahead: in its file already, and passed over.
    bool is_written(const RecordHeader& record, std::uint64_t position) const noexcept {
        return static_cast<std::size_t>(record.stream) < kStreamCount &&
               position < image_.slot().stream_position(record.stream);
    }

    // Whether all lines that lay behind the noted places have been met. Until then they must be looked for
    // there again: a new place behind them would not say that they are those of records still to come.
    bool passed_all(const CommitSlot& slot) const noexcept {
        for (std::size_t s = 0; s < kStreamCount; ++s) {
            if (slot.streams[s].seq < present_[s].end()) return false;
        }
        return true;
    }

    // A power loss (or a copy of a ring in use) may have taken records out of the middle of the ring:
    // then the number that is counted for the next one is too low, and where the files hold a line of
    // that number or of a higher one, they may hold this record as well. Losing it is what a power loss
    // may do; writing it twice is not.
    bool numbers_unsure() const noexcept {
        return !provenance_.certain() && (flags_ & CommitSlot::kRecordsLost) != 0;
    }
    void note_lost_records() noexcept {
        if (report_.holes + report_.damaged != 0) flags_ |= CommitSlot::kRecordsLost;
    }
    SinkError put(const void* bytes, std::size_t size, std::size_t offset) {
        return write_all(fd_, bytes, size, offset, report_.ring);
    }

    int fd_;
    const RingImage& image_;
    const Provenance& provenance_;
    LineRenderer& renderer_;
    RecoveryReport& report_;
    std::uint64_t epoch_;
    std::uint32_t flags_;
    std::uint64_t emitted_ = 0;
    std::uint64_t skipped_ = 0;
    std::uint64_t counted_[kStreamCount]{};  // lines below are in these
    SeqSet present_[kStreamCount];
};

// A hostile ring that wants tiny segments would make a file of each of its records.
std::uint64_t segment_bytes_of(const RingFileHeader& header) {
    return std::max({header.segment_bytes, header.ring_bytes / 64, std::uint64_t{kPageBytes}});
}

void drain_dead_ring(const std::string& run, int fd, RingImage& image, Provenance provenance,
                     RecoveryReport& report) {
    const RingFileHeader& header = image.header();
    StreamFilesOptions options;
    options.directory = run;
    options.label = report.label;
    options.stamp = header.stamp;
    options.segment_bytes = segment_bytes_of(header);
    options.renumbers = (image.home().flags & HomeNote::kRenumbers) != 0;

    CommitSlot start = image.slot();
    const TickConverter clock((header.flags & RingFileHeader::kTicksAreTsc) != 0,
                              start.anchor_ticks, start.anchor_wall_ns, start.ns_per_tick);
    LineRenderer renderer(image.key_table(), header.key_table_bytes, clock);
    DeadRing source(fd, image, provenance, renderer, report);
    StreamFiles sink(options, report.label, &source);
    const std::string scratch =
        private_directory(run) + report.ring.substr(report.ring.rfind('/')) + kScratchSuffix;
    StreamPlace places[kStreamCount];
    SinkError error = sink.open_directory();
    if (!error && provenance.certain()) {
        bool outdated = false;
        error = is_outdated(sink, image, outdated);
        provenance.own_ring = !outdated;
        image.trust_tail(provenance.certain());
    }
    KILL_POINT("recovery_before_cut");
    for (std::size_t s = 0; s < kStreamCount && !error; ++s) {
        const auto stream = static_cast<Stream>(s);
        error = take_stock(sink, stream, image, provenance, scratch, places[s],
                           source.present(stream), report.cut_bytes);
    }
    if (!error) error = sink.resume(places);
    KILL_POINT("recovery_after_cut");

    SinkError fault;
    // All of it is on the disk before the ring goes: segments that are left, and the last ones below.
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
        report.outcome = Outcome::failed;
        report.reason =
            describe(error) + ". The ring stays; " + remedy(error.code) + " and recover again";
        return;
    }
    source.report_counts();
    report.outcome = Outcome::recovered;
}

// False when there are records, but nothing tells what their ticks mean.
bool is_dated(const RingImage& image) {
    std::uint64_t position = image.slot().position;
    std::uint64_t holes = 0;
    return image.slot().epoch != 0 || image.next(position, holes, holes) == nullptr;
}

// Locks a ring that no process writes. A reader that shows what is in the ring shares a lock for as
// long as it takes to read it: that is waited for, it does not make the ring a live one.
bool lock_dead(int fd) {
    constexpr int kTries = 200;
    for (int i = 0; i < kTries; ++i) {
        if (::flock(fd, LOCK_EX | LOCK_NB) == 0) return true;
        if (errno != EWOULDBLOCK || ::flock(fd, LOCK_SH | LOCK_NB) != 0) return false;
        ::flock(fd, LOCK_UN);
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    errno = EWOULDBLOCK;
    return false;
}

void move_to_quarantine(const std::string& run, const std::string& path, RecoveryReport& report) {
    struct stat info;
    if (::lstat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) && info.st_size == 0 &&
        is_young(info) && !is_marked(run, uuid_in(path))) {
        report.outcome = Outcome::live;
        report.reason = "it is empty, and so new that it may be in the making";
        return;
    }
    report.outcome = Outcome::quarantined;
    if (const SinkError error = quarantine(private_directory(run), path, report.reason)) {
        report.outcome = Outcome::failed;
        report.reason += " (and could not be moved aside: " + describe(error) + ")";
        return;
    }
    unmark_writer(run, uuid_in(path));  // it is told of as long as it lies there
}

// True for the ring of another directory: nothing is moved, as it may be anybody's, and the pointer good.
bool tell_elsewhere(const RingHome& home, const std::string& pointer, RecoveryReport& report) {
    if (home.of_this_run) return false;
    report.outcome = Outcome::elsewhere;
    report.same_boot = home.same_boot;
    report.reason = home.elsewhere(report.ring, pointer);
    return true;
}

}  // namespace

const char* outcome_name(Outcome outcome) noexcept {
    switch (outcome) {
        case Outcome::live:
            return "live";
        case Outcome::recovered:
            return "recovered";
        case Outcome::quarantined:
            return "quarantined";
        case Outcome::elsewhere:
            return "elsewhere";
        case Outcome::gone:
            return "gone";
        default:
            return "failed";
    }
}

bool is_young(const struct stat& info) noexcept {
    constexpr std::time_t kYoungSeconds = 600;
    const std::time_t age = std::time(nullptr) - info.st_mtime;
    return age < kYoungSeconds && age > -kYoungSeconds;
}

RecoveryReport recover_ring(const std::string& run_directory, const std::string& path) {
    RecoveryReport report;
    report.ring = path;
    const bool by_pointer = path.ends_with(kPointerSuffix);
    RingPointer pointer{path, {}};
    const std::string& ring = pointer.ring;
    if (by_pointer) {
        pointer = read_pointer(AT_FDCWD, path, report.reason);
        if (ring.empty()) {
            const int code = errno;
            if (code == 0) {
                move_to_quarantine(run_directory, path, report);
            } else if (code == ENOENT) {
                report.outcome = Outcome::gone;
            }
            return report;
        }
        report.ring = ring;
    }
    const LockDescriptor fd(ring.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd.get() < 0) {
        const int code = errno;
        report.outcome = code != ENOENT ? Outcome::failed
                         : by_pointer   ? Outcome::elsewhere
                                        : Outcome::gone;
        report.reason = describe({code, "open " + ring});
        if (by_pointer && code == ENOENT) {
            report.reason +=
                ". It is on another host, or was lost with this one's restart: recover "
                "there, or remove the pointer " +
                path;
        }
        return report;
    }
    const auto find_home = [&](const RingImage& image) {
        return RingHome::find(run_directory, image, fd.get(), by_pointer ? path : "", pointer.run);
    };
    if (!lock_dead(fd.get())) {
        report.outcome = errno == EWOULDBLOCK ? Outcome::live : Outcome::failed;
        if (report.outcome == Outcome::failed) report.reason = describe({errno, "lock " + ring});
        const auto living =
            report.outcome == Outcome::live && by_pointer ? RingImage::look(fd.get()) : nullptr;
        if (living != nullptr) tell_elsewhere(find_home(*living), path, report);
        return report;
    }
    struct stat info;
    if (::fstat(fd.get(), &info) != 0 || info.st_nlink == 0) {
        report.outcome = Outcome::gone;
        return report;
    }
    std::unique_ptr<RingImage> image =
        S_ISREG(info.st_mode) ? RingImage::read(fd.get(), report.reason) : nullptr;
    if (S_ISREG(info.st_mode) && image == nullptr && report.reason.empty()) {
        report.outcome = Outcome::failed;
        report.reason = "no memory to read " + ring;
        return report;
    }
    if (image == nullptr && report.reason == RingImage::kNewerVersion) {
        report.outcome = Outcome::failed;
        return report;
    }
    if (image == nullptr) {
        if (!S_ISREG(info.st_mode)) report.reason = ring + " is no regular file";
        // What a pointer leads to may be anybody's: only the pointer is moved.
        move_to_quarantine(run_directory, path, report);
        return report;
    }
    const RingHome home = find_home(*image);
    report.same_boot = home.same_boot;
    if (by_pointer && tell_elsewhere(home, path, report)) return report;
    report.label = image->home().label;
    Provenance provenance;
    const bool of_this_run = home.of_this_run;
    provenance.own_ring = of_this_run && (!image->has_notes() || home.is_ring(info));
    provenance.same_boot = report.same_boot;
    provenance.shared = info.st_nlink > 1;
    if (!provenance.own_ring) {
        const Descriptor directory(open_at(AT_FDCWD, run_directory, O_RDONLY | O_DIRECTORY));
        provenance.rival =
            has_rival(directory.get(), image->header().stamp, report.label, id_of(info));
    }
    image->trust_tail(provenance.certain());
    if (!provenance.certain() && !is_dated(*image)) {
        report.reason = "neither of its commit slots reached the disk: its records have no time";
        move_to_quarantine(run_directory, path, report);
        return report;
    }
    const std::uint64_t begun = 1;
    if (SinkError error =
            write_all(fd.get(), &begun, sizeof begun, kRecoveryMarkOffset, report.ring)) {
        report.reason = describe(error);
        return report;
    }
    KILL_POINT("recovery_marked");
    try {
        drain_dead_ring(run_directory, fd.get(), *image, provenance, report);
    } catch (const std::bad_alloc&) {
        report.outcome = Outcome::failed;
        report.reason = "no memory to recover " + ring;
    }
    if (report.outcome != Outcome::recovered) return report;
    // What stays is known as written: it does no harm, and goes at the next recovery that may remove it.
    if (const SinkError error = unmark_writer(run_directory, uuid_in(path))) {
        report.reason = "all of it is written, but it stays: " + describe(error);
        return report;
    }
    KILL_POINT("recovery_unmarked");
    if ((::unlink(ring.c_str()) != 0 && errno != ENOENT) ||
        (by_pointer && ::unlink(path.c_str()) != 0 && errno != ENOENT)) {
        report.reason =
            "all of it is written, but it stays: " + describe({errno, "remove " + ring});
    }
    KILL_POINT("recovery_ring_removed");
    return report;
}

std::vector<RecoveryReport> recover_run(const std::string& run_directory,
                                        const std::function<bool()>& go_on) {
    std::vector<RecoveryReport> reports;
    sweep_ring_places();
    const std::string directory = private_directory(run_directory);
    std::vector<std::string> names;
    if (!list_names(AT_FDCWD, directory, names)) return reports;
    std::sort(names.begin(), names.end());
    for (const std::string& name : names) {
        if (!go_on()) break;
        const std::string path = directory + "/" + name;
        if (name.ends_with(kRingSuffix) || name.ends_with(kPointerSuffix)) {
            reports.push_back(recover_ring(run_directory, path));
        } else if (name.ends_with(kTemporarySuffix)) {
            sweep_unfinished(
                path, /*locked=*/name.ends_with(std::string(kRingSuffix) + kTemporarySuffix));
        }
    }
    return reports;
}

}  // namespace fastlog
