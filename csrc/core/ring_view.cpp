#include "core/ring_view.hpp"

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>

#include "core/fork_watch.hpp"
#include "core/machine.hpp"
#include "core/ring_home.hpp"
#include "core/ring_image.hpp"
#include "core/ring_memory.hpp"
#include "core/ring_pointer.hpp"

namespace fastlog {
namespace {

using Outcome = RecoveryReport::Outcome;

constexpr int kOpenFlags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK;

}  // namespace

RingView::RingView(const std::string& run_directory, const std::string& path,
                   const FileEdits& before, ShadowFiles::Limits limits, RunFiles& disk)
    : files_(run_directory, before, limits, disk),
      report_(recover_ring(run_directory, path, files_)) {
    if (report_.outcome == Outcome::live && report_.reason.empty()) {
        look_at_live(run_directory, path);
    } else if (report_.outcome == Outcome::failed && files_.is_full()) {
        report_.reason = report_.ring + " has more text than fits into memory. The ring is kept";
    } else if (report_.outcome == Outcome::failed && !files_.shattered().empty()) {
        report_.reason = files_.shattered() + " is damaged in too many places. The ring is kept";
    }
}

FileEdits RingView::edits() const {
    return report_.outcome == Outcome::recovered ? files_.edits() : FileEdits{};
}

void RingView::look_at_live(const std::string& run_directory, const std::string& path) {
    const bool by_pointer = path != report_.ring;
    std::string reason;
    const RingPointer pointer =
        by_pointer ? read_pointer(files_, AT_FDCWD, path, reason) : RingPointer{path, {}, false};
    const Descriptor fd(files_, files_.open(AT_FDCWD, pointer.ring, kOpenFlags, 0));
    const auto image = RingImage::look_at_commit(files_, fd.get());
    struct stat info;
    if (image == nullptr || files_.stat(fd.get(), info) != 0) return;
    // One may have taken the lock and not have said so yet.
    const RingFileHeader& of = image->header();
    at_work_ = image->has_recovery_mark() ||
               has_ended_here(of.pid, of.process_start, of.pid_namespace, of.boot_id);
    const RingHome home = RingHome::find(files_, run_directory, *image, fd.get(),
                                         by_pointer ? path : "", pointer.run);
    report_.same_boot = home.same_boot;
    report_.label = image->home().label;
    const bool own = home.of_this_run && (!image->has_notes() || home.is_ring(info));
    if (at_work_ || !own || !home.same_boot) return;
    Writing& writing = writing_.emplace();
    writing.label = report_.label;
    writing.stamp = image->header().stamp;
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        const auto stream = static_cast<Stream>(s);
        writing.streams[s] = image->slot().streams[s];
        if (!image->has_notes()) continue;
        for (const std::uint32_t segment : image->noted_segments(stream)) {
            const FileNote* const note = image->file_note(stream, segment);
            writing.files[s].push_back({segment, {note->device, note->inode}});
        }
    }
}

std::optional<std::uint64_t> dead_ring_epoch(const std::string& ring) {
    RunFiles& files = posix_files();
    const LockDescriptor fd(files, ring, kOpenFlags);
    struct stat info;
    if (fd.get() < 0 || files.lock(fd.get(), LOCK_SH | LOCK_NB) != 0) return {};
    const auto image = RingImage::look_at_commit(files, fd.get());
    if (image == nullptr || files.stat(fd.get(), info) != 0 || info.st_nlink == 0) return {};
    return image->slot().epoch;
}

std::optional<std::uint64_t> held_ring_epoch(const std::string& ring) {
    RunFiles& files = posix_files();
    const LockDescriptor fd(files, ring, kOpenFlags);
    if (fd.get() < 0 || files.lock(fd.get(), LOCK_SH | LOCK_NB) == 0 || errno != EWOULDBLOCK) {
        return {};
    }
    std::uint64_t epoch = 0;
    if (files.read_at(fd.get(), &epoch, sizeof epoch, kEpochOffset) != sizeof epoch) return {};
    return epoch;
}

}  // namespace fastlog
