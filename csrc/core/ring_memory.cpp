#include "core/ring_memory.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>
#include <system_error>
#include <utility>
#include <vector>

#include "core/clock.hpp"
#include "core/crc32c.hpp"
#include "core/kill_point.hpp"
#include "core/machine.hpp"
#include "core/ring_pointer.hpp"
#include "core/writer_mark.hpp"

namespace fastlog {
namespace {

// RFC 4122 version 4.
std::string random_uuid() {
    const std::uint64_t a = (random_u64() & ~0xF000ULL) | 0x4000ULL;
    const std::uint64_t b = (random_u64() & ~(3ULL << 62)) | (2ULL << 62);
    char text[40];
    std::snprintf(text, sizeof text, "%08x-%04x-%04x-%04x-%012llx", static_cast<unsigned>(a >> 32),
                  static_cast<unsigned>(a >> 16) & 0xFFFFu, static_cast<unsigned>(a) & 0xFFFFu,
                  static_cast<unsigned>(b >> 48),
                  static_cast<unsigned long long>(b & 0xFFFFFFFFFFFFULL));
    return text;
}

template <std::size_t N>
void put_text(char (&field)[N], const std::string& text) {
    const std::size_t n = std::min(text.size(), N - 1);
    std::memcpy(field, text.data(), n);
    std::memset(field + n, 0, N - n);
}

// Removes a file at the end of the scope, also after an exception, unless it is kept.
struct RemovedAtEnd {
    RunFiles& files;
    const std::string& path;
    bool keep = false;
    ~RemovedAtEnd() {
        if (!keep) files.unlink(AT_FDCWD, path);
    }
};

// Makes pages writable, if the system can do so for many at once.
void populate_pages(std::byte* begin, std::size_t bytes) noexcept {
#if defined(__linux__)
#ifndef MADV_POPULATE_WRITE
    constexpr int MADV_POPULATE_WRITE = 23;  // Linux 5.14
#endif
    ::madvise(begin, bytes, MADV_POPULATE_WRITE);
#else
    (void)begin;
    (void)bytes;
#endif
}

std::string private_path(const std::string& name) {
    return std::string(kPrivateDirectory) + "/" + name;
}

}  // namespace

std::uint32_t header_crc(const RingFileHeader& header) noexcept {
    return crc32c(0, &header, offsetof(RingFileHeader, crc));
}

std::uint32_t slot_crc(const CommitSlot& slot) noexcept {
    return crc32c(0, &slot, offsetof(CommitSlot, crc));
}

std::uint32_t slot_crc(const OldCommitSlot& slot) noexcept {
    return crc32c(0, &slot, offsetof(OldCommitSlot, crc));
}

OldCommitSlot to_old(const CommitSlot& slot) noexcept {
    OldCommitSlot old{slot.epoch,        slot.position,
                      slot.anchor_ticks, slot.anchor_wall_ns,
                      slot.ns_per_tick,  {},
                      slot.flags,        0};
    std::copy_n(slot.streams, OldCommitSlot::kStreams, old.streams);
    old.crc = slot_crc(old);
    return old;
}

CommitSlot from_old(const OldCommitSlot& old) noexcept {
    CommitSlot slot{old.epoch,       old.position, old.anchor_ticks, old.anchor_wall_ns,
                    old.ns_per_tick, {},           old.flags,        0};
    std::copy_n(old.streams, OldCommitSlot::kStreams, slot.streams);
    return slot;
}

std::uint32_t note_crc(const HomeNote& note) noexcept {
    return crc32c(0, &note, offsetof(HomeNote, crc));
}

std::uint32_t note_crc(const FileNote& note) noexcept {
    return crc32c(0, &note, offsetof(FileNote, crc));
}

RingMemory::Below::Below(const std::string& uuid)
    : mark(private_path(uuid + kMarkSuffix)),
      ring(private_path(uuid + kRingSuffix)),
      pointer(private_path(uuid + kPointerSuffix)) {}

RingMemory::RingMemory(std::size_t ring_bytes)
    : ring_bytes_(ring_bytes),
      key_table_bytes_(key_table_bytes_for(ring_bytes)),
      salt_(random_u64() | 1),
      files_(posix_files()),
      uuid_(random_uuid()) {
    size_ = kKeyTableOffset + key_table_bytes_ + ring_bytes_;
    map_anonymous();
}

RingMemory::RingMemory(const RingSpec& spec, SinkError& error)
    : ring_bytes_(spec.ring_bytes),
      key_table_bytes_(key_table_bytes_for(spec.ring_bytes)),
      salt_(random_u64() | 1),
      files_(*spec.files),
      fd_(files_),
      uuid_(random_uuid()) {
    size_ = kKeyTableOffset + key_table_bytes_ + ring_bytes_;
    if (spec.place != RingPlace::memory) {
        try {
            error = map_file(spec);
            if (base_ != nullptr) guard_.watch(base_, size_);
        } catch (const std::bad_alloc&) {
            unlink_file(-1);
            unmap();
            throw;
        }
        if (base_ != nullptr) return;
        id_ = {};
        path_.clear();
        pointer_.clear();
    }
    map_anonymous();
}

RingMemory::~RingMemory() {
    guard_.forget();
    unmap();
}

void RingMemory::unmap() noexcept {
    if (base_ != nullptr && in_file_) {
        files_.unmap(base_, size_);
    } else if (base_ != nullptr) {
        ::munmap(base_, size_);
    }
    base_ = nullptr;
    in_file_ = false;
    fd_.close();
}

void RingMemory::map_anonymous() {
    void* base = map_unforked(size_, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    if (base == MAP_FAILED) {
        throw std::system_error(errno, std::generic_category(),
                                "cannot map " + std::to_string(size_) + " bytes for the ring");
    }
    base_ = static_cast<std::byte*>(base);
    finish_mapping();
}

void RingMemory::finish_mapping() noexcept {
    new (base_ + kControlOffset) RingControl{};
    new (base_ + kEpochOffset) CommitEpoch{0};
    for (std::size_t s = 0; s < kStreamCount; ++s) new (drops() + s) DropCount{0};
    // Touch the data pages now, so that the first lap of record() has no page faults.
    for (std::size_t offset = 0; offset < ring_bytes_; offset += kPageBytes) {
        *reinterpret_cast<volatile std::byte*>(data() + offset) = std::byte{0};
    }
}

SinkError RingMemory::map_file(const RingSpec& spec) {
    const std::string own = spec.run_directory + "/" + kPrivateDirectory;
    if (SinkError error = make_directory(files_, own)) return error;
    std::vector<std::string> places = temporary_places();
    places.insert(places.begin(), own);
    SinkError error{ENOTSUP, "map a ring file below " + own};
    SinkError refused;  // from the requested place: reported even if another place works
    if (spec.place == RingPlace::shm) {
        places.insert(places.begin(), kSharedMemoryPlace);
        refused = {ENOTSUP, std::string("map a ring file in ") + kSharedMemoryPlace};
    }
    for (const std::string& place : places) {
        if (!files_.suits_mapping(place)) continue;
        error = make_file(spec, place);
        if (!error && place != own) error = point_from(own);
        const bool asked = place == kSharedMemoryPlace;
        if (!error) return asked ? SinkError{} : refused;
        if (asked) refused = error;
    }
    return error;
}

// Creates the run's pointer to the file, or removes the file again.
SinkError RingMemory::point_from(const std::string& own) {
    pointer_ = own + "/" + uuid_ + kPointerSuffix;
    SinkError error = write_pointer(files_, pointer_, path_);
    if (!error) return {};
    pointer_.clear();
    files_.unlink(AT_FDCWD, path_);
    unmap();
    return error;
}

// Creates, fills, locks and maps a file in `directory`, and gives it its name last: whoever finds a *.ring
// finds a complete one.
SinkError RingMemory::make_file(const RingSpec& spec, const std::string& directory) {
    const bool ours = directory == spec.run_directory + "/" + kPrivateDirectory;
    path_ = directory + "/" + (ours ? "" : kRingPrefix) + uuid_ + kRingSuffix;
    const std::string temporary = path_ + kTemporarySuffix;
    if (fd_.open(AT_FDCWD, temporary, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW,
                 ours ? kFileMode : 0600) < 0) {
        return failed("create", temporary);
    }
    RemovedAtEnd unfinished{files_, temporary};
    SinkError error;
    id_ = files_.id_of(fd_.get());
    if (files_.lock(fd_.get(), LOCK_EX | LOCK_NB) != 0) error = failed("lock", temporary);
    if (!error) error = fill_file(spec);
    if (!error && files_.rename(AT_FDCWD, temporary, AT_FDCWD, path_) != 0)
        error = failed("name", path_);
    if (!error) {
        unfinished.keep = true;
        if (files_.mapping_holds_lock(fd_.get())) {
            fd_.close();  // without a descriptor, no other code can close it
        } else {
            keeps_descriptor_ = true;
            fd_.keep();
        }
        return {};
    }
    unmap();
    return error;
}

SinkError RingMemory::fill_file(const RingSpec& spec) {
    // Allocated and filled with zeros: a store to a hole on a full disk would cause SIGBUS.
    if (files_.allocate(fd_.get(), size_) != 0) return failed("allocate", path_);
    const std::vector<char> zeros(std::min(size_, std::size_t{1} << 20));
    for (std::size_t offset = 0; offset < size_; offset += zeros.size()) {
        const std::size_t n = std::min(zeros.size(), size_ - offset);
        if (SinkError error = write_all(files_, fd_.get(), zeros.data(), n, offset, path_))
            return error;
    }
    KILL_POINT("ring_zeroed");
    struct stat run;
    if (files_.stat_path(spec.run_directory, run) != 0) return failed("stat", spec.run_directory);
    RingFileHeader header{};
    std::memcpy(header.magic, kRingMagic, sizeof header.magic);
    header.version = kRingVersion;
    header.flags = hot_line.use_tsc ? RingFileHeader::kTicksAreTsc : 0;
    header.file_bytes = size_;
    header.key_table_bytes = key_table_bytes_;
    header.ring_bytes = ring_bytes_;
    header.salt = salt_;
    header.run_device = static_cast<std::uint64_t>(run.st_dev);
    header.run_inode = static_cast<std::uint64_t>(run.st_ino);
    header.segment_bytes = spec.segment_bytes;
    header.process_start = process_start();
    header.pid = static_cast<std::uint32_t>(::getpid());
    header.pid_namespace = pid_namespace();
    header.rank = spec.rank;
    put_text(header.uuid, uuid_);
    put_text(header.boot_id, boot_id());
    put_text(header.host, host_name());
    put_text(header.label, spec.label);
    put_text(header.stamp, spec.stamp);
    header.crc = header_crc(header);
    if (SinkError error = write_all(files_, fd_.get(), &header, sizeof header, 0, path_))
        return error;

    void* base = files_.map(fd_.get(), size_);
    if (base == nullptr) return failed("map", path_);
    base_ = static_cast<std::byte*>(base);
    in_file_ = true;
    populate_pages(base_, size_);
    finish_mapping();
    KILL_POINT("ring_mapped");
    return {};
}

// ---- notes: which files are ours -------------------------------------------------------------------

SinkError RingMemory::note_home(const std::string& directory, FileId id, const std::string& label,
                                const StreamFlags& restarts) {
    run_ = directory;
    if (!mapped()) {
        mark(directory, label);
        return {};
    }
    // A ring stored elsewhere is found through a pointer, which may have been removed with the directory. A
    // new pointer may have the old one's inode.
    if (!pointer_.empty() && home_.epoch != 0) {
        const std::string own = directory + "/" + kPrivateDirectory;
        const std::string pointer = own + pointer_.substr(pointer_.rfind('/'));
        if (SinkError error = make_directory(files_, own)) return error;
        SinkError error = write_pointer(files_, pointer, path_);
        if (error && error.code != EEXIST) return error;
    }
    if (home_.epoch != 0) leave_files({});
    home_.ring_device = id_.device;
    home_.ring_inode = id_.inode;
    home_.run_device = id.device;
    home_.run_inode = id.inode;
    put_text(home_.label, label);
    put_home();
    KILL_POINT("home_noted");
    // Not earlier: under the previous label, lines with these numbers are other lines.
    if (std::find(restarts.begin(), restarts.end(), true) != restarts.end()) leave_files(restarts);
    mark(directory, label);
    return {};
}

// Failure is not an error: without a mark, nobody would notice if the ring was removed.
void RingMemory::mark(const std::string& directory, const std::string& label) {
    mark_writer(files_, directory, uuid_, !mapped(), label);
    KILL_POINT("writer_marked");
}

void RingMemory::mark_unclaimed(const std::string& directory) {
    run_ = directory;
    mark(directory, "");
}

void RingMemory::put_home() noexcept {
    ++home_.epoch;
    home_.crc = note_crc(home_);
    *at<HomeNote>(kHomeOffsets[home_.epoch & 1]) = home_;
}

void RingMemory::note_renumbering() noexcept {
    if (!mapped() || (home_.flags & HomeNote::kRenumbers) != 0) return;
    home_.flags |= HomeNote::kRenumbers;
    if (home_.epoch != 0) put_home();
}

// The last commit refers to files that were abandoned: from now on to new ones, which are empty.
void RingMemory::leave_files(const StreamFlags& restarts) noexcept {
    const std::uint64_t last = epoch()->load(std::memory_order_relaxed);
    CommitSlot next = *slot(last);
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        const StreamCommit before = std::exchange(next.streams[s], {});
        next.streams[s].seq = restarts[s] ? 0 : before.seq;
        next.streams[s].ahead = before.ahead;
    }
    next.epoch = last + 1;
    next.crc = slot_crc(next);
    *slot(next.epoch) = next;
    epoch()->store(next.epoch, std::memory_order_release);
    KILL_POINT("files_left");
}

SinkError RingMemory::note_file(Stream stream, std::uint32_t segment, FileId id) {
    if (!mapped()) return {};
    FileNote note{};
    note.device = id.device;
    note.inode = id.inode;
    note.segment = segment;
    note.home = static_cast<std::uint32_t>(home_.epoch);
    note.used = 1;
    note.crc = note_crc(note);
    *at<FileNote>(file_note_offset(stream, segment)) = note;
    KILL_POINT("file_noted");
    return {};
}

void RingMemory::remove_file(int run_directory) noexcept {
    if (files_.unlink(run_directory, below_.mark) != 0 && errno != ENOENT &&
        (run_directory >= 0 || unmark_writer(files_, run_, uuid_))) {
        return;
    }
    KILL_POINT("writer_unmarked");
    unlink_file(run_directory);
}

void RingMemory::unlink_file(int run_directory) const noexcept {
    if (path_.empty()) return;
    const std::string& own = pointer_.empty() ? path_ : pointer_;
    if (!pointer_.empty()) files_.unlink(AT_FDCWD, path_);
    // The run may have been renamed. What has our uuid is ours.
    const std::string& below = pointer_.empty() ? below_.ring : below_.pointer;
    if (files_.unlink(run_directory, below) != 0) files_.unlink(AT_FDCWD, own);
}

// While the lock was lost, another process may have taken the ring for a dead one: a reader, which holds a
// shared lock for a moment, or a recovery, which removes the file.
void RingMemory::keep_lock(int run_directory) noexcept {
    if (!mapped() || !keeps_descriptor_ || fd_.good()) return;
    constexpr int kFlags = O_RDWR | O_NOFOLLOW | O_NONBLOCK;
    fd_.close();
    if (!pointer_.empty() || fd_.open(run_directory, below_.ring, kFlags, 0) < 0) {
        fd_.open(AT_FDCWD, path_, kFlags, 0);
    }
    if (files_.id_of(fd_.get()) != id_ || files_.lock(fd_.get(), LOCK_EX | LOCK_NB) != 0) {
        fd_.close();  // next time
        return;
    }
    fd_.keep();
}

// Pages in the file are older than the ring claims: nobody must recover that.
void RingMemory::leave_file(int run_directory) noexcept {
    left_.store(true, std::memory_order_relaxed);
    unlink_file(run_directory);
    try {
        mark(run_, home_.label);
    } catch (const std::bad_alloc&) {
        // The existing mark says that a ring is missing, which is also true.
    }
}

void RingMemory::release() noexcept {
    fd_.close();
#if defined(__linux__)
    void* const fresh = map_unforked(size_, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
    if (fresh == MAP_FAILED) return;  // it then stays until the end
    auto* const words = new (static_cast<std::byte*>(fresh) + kControlOffset) RingControl{};
    words->tail.store(control()->tail.load(std::memory_order_relaxed), std::memory_order_relaxed);
    words->head.store(control()->head.load(std::memory_order_relaxed), std::memory_order_relaxed);
    guard_.forget();
    if (::mremap(fresh, size_, size_, MREMAP_MAYMOVE | MREMAP_FIXED, base_) == MAP_FAILED) {
        ::munmap(fresh, size_);
    }
#endif
}

void RingMemory::populate(std::uint64_t position, std::size_t bytes) noexcept {
    if (!mapped()) return;
    const std::size_t offset = position & (ring_bytes_ - 1) & ~(kPageBytes - 1);
    const std::size_t here = std::min(bytes, ring_bytes_ - offset);
    populate_pages(data() + offset, here);
    if (here < bytes) populate_pages(data(), std::min(bytes - here, offset));
}

}  // namespace fastlog
