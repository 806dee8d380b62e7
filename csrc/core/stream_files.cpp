#include "core/stream_files.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <new>
#include <set>
#include <utility>

#include "core/labels.hpp"

namespace fastlog {
namespace {

constexpr int kMakeFlags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW;

}  // namespace

StreamFiles::StreamFiles(StreamFilesOptions options)
    : options_(std::move(options)), renumbers_(options_.renumbers) {}

StreamFiles::StreamFiles(StreamFilesOptions options, std::string label, FileLedger* ledger)
    : options_(std::move(options)),
      label_(std::move(label)),
      claimed_(true),
      renumbers_(options_.renumbers),
      recovers_(true),
      ledger_(ledger) {}

StreamFiles::~StreamFiles() { close(); }

void StreamFiles::close() noexcept {
    for (auto& f : files_) close_file(f);
    if (disk_.id_of(directory_.get()) != directory_id_) directory_.release();
    directory_.reset();
}

std::string StreamFiles::name(Stream stream, std::uint32_t segment) const {
    return name(label_, stream, segment);
}

std::string StreamFiles::path(Stream stream, std::uint32_t segment) const {
    return options_.directory + "/" + name(stream, segment);
}

std::string StreamFiles::name(const std::string& label, Stream stream,
                              std::uint32_t segment) const {
    std::string text = kStreamNames[static_cast<std::size_t>(stream)] + options_.stamp;
    if (!label.empty()) text += "." + label;
    if (segment != 0) {
        char number[16];
        std::snprintf(number, sizeof number, ".%06u", segment);
        text += number;
    }
    return text + ".jsonl";
}

std::vector<std::string> StreamFiles::paths(const std::string& label,
                                            const std::uint32_t (&segments)[kStreamCount]) const {
    std::vector<std::string> all;
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        for (std::uint32_t n = 0; n < segments[s]; ++n) {
            all.push_back(options_.directory + "/" + name(label, static_cast<Stream>(s), n));
        }
    }
    return all;
}

std::uint32_t StreamFiles::segments(Stream stream) const noexcept {
    const File& f = file(stream);
    return f.segment + (f.id ? 1 : 0);
}

SinkError StreamFiles::open_directory() {
    if (directory_.get() >= 0 && disk_.id_of(directory_.get()) == directory_id_) return {};
    directory_.release();  // closed by other code, whose descriptor it may be now
    if (!recovers_) {
        if (SinkError error = make_directories(disk_, options_.directory)) return error;
    }
    Descriptor fd(disk_, disk_.open_to_keep(AT_FDCWD, options_.directory, O_RDONLY | O_DIRECTORY));
    if (fd.get() < 0) return failed("open directory", options_.directory);
    const FileId id = disk_.id_of(fd.get());
    if (!id) return failed("stat", options_.directory);
    directory_id_ = id;
    renumbers_ = renumbers_ || disk_.may_renumber(fd.get());
    directory_ = std::move(fd);
    return {};
}

int StreamFiles::own_directory() noexcept {
    if (disk_.id_of(directory_.get()) == directory_id_) return directory_.get();
    directory_.release();
    Descriptor again(disk_,
                     disk_.open_to_keep(AT_FDCWD, options_.directory, O_RDONLY | O_DIRECTORY));
    if (again.get() >= 0) errno = ENOENT;
    if (disk_.id_of(again.get()) == directory_id_) directory_ = std::move(again);
    return directory_.get();
}

std::string StreamFiles::candidate(unsigned n) const {
    if (n == 0) return options_.label;
    if (options_.worker) return options_.label + "x" + std::to_string(n);
    return options_.label + (options_.label.empty() ? "p" : "-p") + std::to_string(n);
}

SinkError StreamFiles::claim() {
    if (claimed_) return {};
    if (SinkError error = open_directory()) return error;
    const std::set<std::string> used = labels_in_use(disk_, directory_.get(), options_.stamp);
    for (unsigned n = 0;; ++n) {
        label_ = candidate(n);
        if (used.count(label_) != 0) continue;
        const std::string first = name(Stream::metrics, 0);
        const int fd = disk_.open_to_keep(directory_.get(), first, kMakeFlags);
        if (fd < 0 && errno == EEXIST) continue;
        if (fd < 0) {
            SinkError error = failed("create", path(Stream::metrics, 0));
            if (error.code == ENOENT) directory_.reset();  // removed a moment ago
            return error;
        }
        if (SinkError error = keep_made(Stream::metrics, fd, first)) return error;
        first_id_ = file(Stream::metrics).id;
        claimed_ = true;
        return keep_notes(ledger_);
    }
}

SinkError StreamFiles::keep_notes(FileLedger* ledger) {
    ledger_ = ledger;
    noted_ = false;
    if (!claimed_) return {};
    SinkError error;
    if (ledger != nullptr) {
        if (renumbered_) ledger->note_renumbering();
        error = ledger->note_home(options_.directory, directory_id_, label_, restarts_to_note_);
    }
    if (error) return error;
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        restarts_[s] = restarts_[s] || std::exchange(restarts_to_note_[s], false);
    }
    for (std::size_t s = 0; s < kStreamCount && !error; ++s) {
        error = note(static_cast<Stream>(s), files_[s].id);
    }
    noted_ = !error;
    return error;
}

SinkError StreamFiles::note(Stream stream, FileId id) {
    if (ledger_ == nullptr) return {};
    return ledger_->note_file(stream, file(stream).segment, id);
}

void StreamFiles::withdraw() noexcept {
    const File& f = file(Stream::metrics);
    struct stat info;
    if (f.fd < 0 || disk_.stat(f.fd, info) != 0 || id_of(info) != f.id || info.st_size != 0) return;
    try {
        unlink_own(Stream::metrics);
    } catch (const std::bad_alloc&) {
        // It stays: an empty file does no harm.
    }
}

// Removes the stream's segment, unless another file has the name now.
void StreamFiles::unlink_own(Stream stream) {
    const File& f = file(stream);
    const std::string segment = name(stream, f.segment);
    if (f.id && disk_.id_at(directory_.get(), segment) == f.id) {
        disk_.unlink(directory_.get(), segment);
    }
}

bool StreamFiles::wants_rotation(Stream stream, std::size_t pending,
                                 std::size_t next) const noexcept {
    const std::uint64_t filled = file(stream).offset + pending;
    return filled != 0 && filled + next > options_.segment_bytes &&
           file(stream).segment + 1 < kMostSegments;
}

void StreamFiles::rotate(Stream stream) noexcept {
    File& f = file(stream);
    close_file(f);
    File next;
    next.segment = f.segment + 1;
    next.lost = f.lost;
    next.gap = f.gap;
    next.has_trim = f.has_trim;
    next.trim_segment = f.trim_segment;
    next.trim_bytes = f.trim_bytes;
    next.trim_id = f.trim_id;
    f = next;
}

StreamCommit StreamFiles::state(Stream stream) const noexcept {
    const File& f = file(stream);
    StreamCommit state{};
    state.offset = f.offset;
    state.segment = f.segment;
    state.exists = f.id ? 1 : 0;
    state.has_trim = f.has_trim ? 1 : 0;
    state.trim_segment = f.trim_segment;
    state.trim_bytes = f.trim_bytes;
    return state;
}

SinkError StreamFiles::resume(const StreamPlace (&places)[kStreamCount]) {
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        const auto stream = static_cast<Stream>(s);
        File& f = files_[s];
        f.segment = places[s].segment;
        if (!places[s].id) continue;
        f.id = places[s].id;
        f.offset = f.synced = f.committed = places[s].offset;
        if (!open_by_name(stream)) return failed("open", path(stream, f.segment));
        struct stat info;
        if (disk_.stat(f.fd, info) != 0) return failed("stat", path(stream, f.segment));
        if (static_cast<std::uint64_t>(info.st_size) > f.offset && disk_.cut(f.fd, f.offset) != 0) {
            return failed("cut", path(stream, f.segment));
        }
        if (SinkError error = note(stream, f.id)) return error;
    }
    return {};
}

// ---- changes made by others ----------------------------------------------------------------------

// If other code closed this descriptor, its number may be in use again: then it is not closed.
void StreamFiles::close_file(File& f) noexcept {
    if (f.fd >= 0 && disk_.id_of(f.fd) == f.id) disk_.close(f.fd);
    f.fd = -1;
}

// The file is no longer where readers look for it: a new one has to be created.
void StreamFiles::forget(File& f) noexcept {
    close_file(f);
    f.lost += f.offset;
    f.gap = f.gap || f.committed != 0;
    f.offset = f.synced = f.committed = f.seen = 0;
    f.sync_failed = false;
    f.id = {};
}

SinkError StreamFiles::check_directory(Stream stream) {
    struct stat info;
    if (disk_.stat(directory_.get(), info) == 0 && id_of(info) == directory_id_) {
        // A writer that has claimed the label since owns the names of our next segments.
        const FileId first = info.st_nlink != 0 && !recovers_ && !renumbers_
                                 ? disk_.id_at(directory_.get(), name(Stream::metrics, 0))
                                 : FileId{};
        if (first && first != first_id_ &&
            (stream != Stream::metrics || file(stream).segment != 0)) {
            if (SinkError error = start_new_files(/*gone=*/false)) return error;
            return {EEXIST,
                    "keep its label in " + options_.directory +
                        " (another process has taken it; recording continues under a new one)"};
        }
        if (info.st_nlink != 0) return {};
        directory_.reset();
    } else {
        if (own_directory() >= 0) return {};
        if (errno != ENOENT && errno != ENOTDIR) {
            return failed("open directory", options_.directory);
        }
    }
    if (SinkError error = start_new_files(/*gone=*/true)) return error;
    return {ENOENT,
            "find the directory " + options_.directory +
                " (removed or replaced while open; recording continues in new files there)"};
}

// The lines of a batch that is not committed are written again, to another file.
SinkError StreamFiles::undo_uncommitted(File& f, const std::string& path) {
    if (f.offset <= f.committed) return {};
    if (disk_.id_of(f.fd) == f.id && disk_.cut(f.fd, f.committed) != 0) {
        return failed("cut", path);
    }
    f.lost += f.offset - f.committed;
    f.offset = f.committed;
    f.seen = std::min(f.seen, f.offset);
    return {};
}

// Creates new files under a free label: the directory is gone with everything in it, or one of its names
// belongs to somebody else.
SinkError StreamFiles::start_new_files(bool gone) {
    for (std::size_t s = 0; s < kStreamCount && !gone; ++s) {
        const std::string text = path(static_cast<Stream>(s), files_[s].segment);
        if (files_[s].has_trim) return {EBUSY, "leave " + text};  // after the cut
        if (SinkError error = undo_uncommitted(files_[s], text)) return error;
    }
    for (std::size_t s = 0; s < kStreamCount && !gone; ++s) {
        restarts_to_note_[s] = restarts_to_note_[s] || keeps_lines(static_cast<Stream>(s));
    }
    for (File& f : files_) {
        File next;
        next.lost = f.lost + (gone ? f.offset : 0);
        close_file(f);
        f = next;
    }
    claimed_ = false;
    return claim();
}

// Whether all committed lines at the stream's end are still in its files. A line missing earlier shows in
// those files.
bool StreamFiles::keeps_lines(Stream stream) const {
    const File& f = file(stream);
    if (f.gap || (!f.id && f.segment == 0)) return false;
    struct stat info;
    return disk_.stat_at(directory_.get(), name(stream, f.id ? f.segment : f.segment - 1), info) ==
               0 &&
           (!f.id || ((id_of(info) == f.id || renumbers_) &&
                      static_cast<std::uint64_t>(info.st_size) >= f.committed));
}

void StreamFiles::note_committed() noexcept {
    for (File& f : files_) {
        if (f.offset > f.committed) f.gap = false;  // the next line's number shows it
        f.committed = f.offset;
    }
}

SinkError StreamFiles::check(Stream stream, std::uint64_t* lost) {
    File& f = file(stream);
    SinkError found;
    if (claimed_) found = check_directory(stream);
    if (claimed_ && !found && f.id) found = check_file(stream, lost);
    if (lost != nullptr) *lost += std::exchange(f.lost, 0);
    return found;
}

SinkError StreamFiles::check_file(Stream stream, std::uint64_t* lost) {
    File& f = file(stream);
    const std::string text = path(stream, f.segment);
    struct stat info;
    if (disk_.stat(f.fd, info) != 0 || id_of(info) != f.id) {
        f.fd = -1;  // closed by other code, whose descriptor it may be now
        if (open_by_name(stream)) {
            return {EBADF,
                    "keep " + text + " open (the program closed its descriptor; it was reopened)"};
        }
        if (errno != ENOENT) return failed("open", text);  // perhaps no descriptor is free
        forget(f);
        return {ENOENT, "find " + text + " (a new one is created)"};
    }
    if (info.st_nlink == 0) {
        forget(f);
        return {ENOENT, "find " + text + " (removed while open; a new one is created)"};
    }
    const FileId named = disk_.id_at(directory_.get(), name(stream, f.segment));
    if (!named && errno != ENOENT) return failed("stat", text);
    bool ours = false;
    if (named == f.id) {
        ours = true;
    } else if (SinkError error = check_replaced(stream, text, ours)) {
        return error;
    }
    if (ours) return check_size(stream, static_cast<std::uint64_t>(info.st_size), lost);
    if (SinkError error = undo_uncommitted(f, text)) return error;
    disk_.sync(f.fd);  // it is not used again
    forget(f);
    return {ENOENT, "find " + text + " (renamed or replaced; a new one is created)"};
}

// ---- creating files -------------------------------------------------------------------------------

// Creates the stream's segment. If something already has its name, uses the next free number (readers find it
// after the one before). If that is another writer's first segment, readers would take ours for that
// writer's: then all streams continue under another label.
SinkError StreamFiles::create(Stream stream) {
    File& f = file(stream);
    for (;; ++f.segment) {
        const std::string segment = name(stream, f.segment);  // before: memory may run out
        const std::string text = path(stream, f.segment);
        if (!disk_.id_at(directory_.get(), segment)) {
            if (SinkError error = note(stream, {})) return error;
            const int fd = disk_.open_to_keep(directory_.get(), segment, kMakeFlags);
            if (fd < 0 && errno != EEXIST) return failed("open", text);
            if (fd >= 0) {
                if (SinkError error = keep_made(stream, fd, segment)) return error;
                if (stream == Stream::metrics && f.segment == 0) first_id_ = f.id;
                return note(stream, f.id);
            }
        }
        if (f.segment == 0 && !recovers_) return {EEXIST, "open " + text};
        if (f.segment + 1 >= kMostSegments) return {EEXIST, "open " + text};
    }
}

}  // namespace fastlog
