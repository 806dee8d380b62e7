#include "core/file_sink.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

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

// Moves `end` back to behind the last "\n" before it. False with errno when the file cannot be read.
bool end_of_last_line(int fd, std::uint64_t& end) {
    char block[4096];
    while (end != 0) {
        const std::size_t want = std::min<std::uint64_t>(end, sizeof block);
        const ssize_t n = ::pread(fd, block, want, static_cast<off_t>(end - want));
        if (n < 0 && errno == EINTR) continue;
        if (n != static_cast<ssize_t>(want)) {
            if (n >= 0) errno = EIO;  // it shrinks again at this moment
            return false;
        }
        const std::size_t newline = std::string_view(block, want).rfind('\n');
        if (newline != std::string_view::npos) {
            end -= want - newline - 1;
            return true;
        }
        end -= want;
    }
    return true;
}

}  // namespace

FileSink::FileSink(FileSinkOptions options) : options_(std::move(options)) {}

FileSink::FileSink(FileSinkOptions options, std::string label, FileLedger* ledger)
    : options_(std::move(options)),
      label_(std::move(label)),
      claimed_(true),
      recovers_(true),
      ledger_(ledger) {}

FileSink::~FileSink() {
    for (auto& f : files_) close_file(f);
    if (id_of(directory_.get()) != directory_id_) directory_.release();
}

std::string FileSink::name(Stream stream, std::uint32_t segment) const {
    return name(label_, stream, segment);
}

std::string FileSink::path(Stream stream, std::uint32_t segment) const {
    return options_.directory + "/" + name(stream, segment);
}

std::string FileSink::name(const std::string& label, Stream stream, std::uint32_t segment) const {
    std::string text = kStreamNames[static_cast<std::size_t>(stream)] + options_.stamp;
    if (!label.empty()) text += "." + label;
    if (segment != 0) {
        char number[16];
        std::snprintf(number, sizeof number, ".%06u", segment);
        text += number;
    }
    return text + ".jsonl";
}

std::vector<std::string> FileSink::paths(const std::string& label,
                                         const std::uint32_t (&segments)[kStreamCount]) const {
    std::vector<std::string> all;
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        for (std::uint32_t n = 0; n < segments[s]; ++n) {
            all.push_back(options_.directory + "/" + name(label, static_cast<Stream>(s), n));
        }
    }
    return all;
}

std::uint32_t FileSink::segments(Stream stream) const noexcept {
    const File& f = file(stream);
    return f.segment + (f.id ? 1 : 0);
}

SinkError FileSink::open_directory() {
    if (directory_.get() >= 0 && id_of(directory_.get()) == directory_id_) return {};
    directory_.release();  // closed below us, and perhaps somebody else's now
    if (!recovers_) {
        if (SinkError error = make_directories(options_.directory)) return error;
    }
    Descriptor fd(open_to_keep(AT_FDCWD, options_.directory, O_RDONLY | O_DIRECTORY));
    if (fd.get() < 0) return failed("open directory", options_.directory);
    directory_id_ = id_of(fd.get());
    directory_ = std::move(fd);
    return {};
}

std::string FileSink::candidate(unsigned n) const {
    if (n == 0) return options_.label;
    if (options_.worker) return options_.label + "x" + std::to_string(n);
    return options_.label + (options_.label.empty() ? "a" : "-a") + std::to_string(n);
}

SinkError FileSink::claim() {
    if (claimed_) return {};
    if (SinkError error = open_directory()) return error;
    const std::set<std::string> used = labels_in_use(directory_.get(), options_.stamp);
    for (unsigned n = 0;; ++n) {
        label_ = candidate(n);
        if (used.count(label_) != 0) continue;
        const std::string first = name(Stream::metrics, 0);
        const int fd = open_to_keep(directory_.get(), first, kMakeFlags);
        if (fd < 0 && errno == EEXIST) continue;
        if (fd < 0) {
            SinkError error = failed("create", path(Stream::metrics, 0));
            if (error.code == ENOENT) directory_.reset();  // removed a moment ago
            return error;
        }
        File& f = file(Stream::metrics);
        f.fd = fd;
        f.id = first_id_ = id_of(fd);
        claimed_ = true;
        return keep_notes(ledger_);
    }
}

SinkError FileSink::keep_notes(FileLedger* ledger) {
    ledger_ = ledger;
    noted_ = false;
    if (!claimed_) return {};
    SinkError error;
    if (ledger != nullptr) {
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

SinkError FileSink::note(Stream stream, FileId id) {
    if (ledger_ == nullptr) return {};
    return ledger_->note_file(stream, file(stream).segment, id);
}

void FileSink::withdraw() noexcept {
    const File& f = file(Stream::metrics);
    struct stat info;
    if (f.fd < 0 || ::fstat(f.fd, &info) != 0 || id_of(info) != f.id || info.st_size != 0) return;
    try {
        unlink_own(Stream::metrics);
    } catch (const std::bad_alloc&) {
        // It stays: an empty file does no harm.
    }
}

// Removes the stream's segment, unless somebody else's file has the name by now.
void FileSink::unlink_own(Stream stream) {
    const File& f = file(stream);
    const std::string segment = name(stream, f.segment);
    if (f.id && id_at(directory_.get(), segment) == f.id) {
        ::unlinkat(directory_.get(), segment.c_str(), 0);
    }
}

bool FileSink::wants_rotation(Stream stream, std::size_t pending, std::size_t next) const noexcept {
    const std::uint64_t filled = file(stream).offset + pending;
    return filled != 0 && filled + next > options_.segment_bytes &&
           file(stream).segment + 1 < kMostSegments;
}

void FileSink::rotate(Stream stream) noexcept {
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

StreamCommit FileSink::state(Stream stream) const noexcept {
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

SinkError FileSink::resume(const StreamPlace (&places)[kStreamCount]) {
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        const auto stream = static_cast<Stream>(s);
        File& f = files_[s];
        f.segment = places[s].segment;
        if (!places[s].id) continue;
        f.id = places[s].id;
        f.offset = f.synced = f.committed = places[s].offset;
        if (!open_by_name(stream)) return failed("open", path(stream, f.segment));
        struct stat info;
        if (::fstat(f.fd, &info) != 0) return failed("stat", path(stream, f.segment));
        if (static_cast<std::uint64_t>(info.st_size) > f.offset &&
            ::ftruncate(f.fd, static_cast<off_t>(f.offset)) != 0) {
            return failed("cut", path(stream, f.segment));
        }
        if (SinkError error = note(stream, f.id)) return error;
    }
    return {};
}

// ---- what others may have done -------------------------------------------------------------------

// A number that was closed below us may be somebody else's by now: that is not closed.
void FileSink::close_file(File& f) noexcept {
    if (f.fd >= 0 && id_of(f.fd) == f.id) ::close(f.fd);
    f.fd = -1;
}

// The file is not where readers look for it any more: a new one is to be made.
void FileSink::forget(File& f) noexcept {
    close_file(f);
    f.lost += f.offset;
    f.gap = f.gap || f.committed != 0;
    f.offset = f.synced = f.committed = 0;
    f.sync_failed = false;
    f.id = {};
}

// Opens the segment if it is still the file that we made. Otherwise false, with errno.
bool FileSink::open_by_name(Stream stream) {
    File& f = file(stream);
    const int fd =
        open_to_keep(directory_.get(), name(stream, f.segment), O_RDWR | O_NOFOLLOW | O_NONBLOCK);
    if (fd >= 0 && id_of(fd) == f.id) {
        f.fd = fd;
        return true;
    }
    if (fd >= 0) ::close(fd);
    if (fd >= 0 || is_no_file(errno)) errno = ENOENT;  // another file, or none
    return false;
}

SinkError FileSink::check_directory(Stream stream) {
    struct stat info;
    if (::fstat(directory_.get(), &info) == 0 && id_of(info) == directory_id_) {
        // Whoever has claimed the label since makes our next segments' names its own.
        const FileId first = info.st_nlink != 0 && !recovers_
                                 ? id_at(directory_.get(), name(Stream::metrics, 0))
                                 : FileId{};
        if (first && first != first_id_ &&
            (stream != Stream::metrics || file(stream).segment != 0)) {
            if (SinkError error = move_house(/*gone=*/false)) return error;
            return {EEXIST, "keep its label in " + options_.directory +
                                " (another process has taken it; it goes on under a new one)"};
        }
        if (info.st_nlink != 0) return {};
        directory_.reset();
    } else {
        directory_.release();
        Descriptor again(open_to_keep(AT_FDCWD, options_.directory, O_RDONLY | O_DIRECTORY));
        if (id_of(again.get()) == directory_id_) {
            directory_ = std::move(again);
            return {};
        }
        if (again.get() < 0 && errno != ENOENT && errno != ENOTDIR) {
            return failed("open directory", options_.directory);
        }
    }
    if (SinkError error = move_house(/*gone=*/true)) return error;
    return {ENOENT,
            "find the directory " + options_.directory +
                " any more (removed or replaced while open; it goes on in new files there)"};
}

// The lines of a batch that is not committed are written again, elsewhere.
SinkError FileSink::take_back(File& f, const std::string& path) {
    if (f.offset <= f.committed) return {};
    if (id_of(f.fd) == f.id && ::ftruncate(f.fd, static_cast<off_t>(f.committed)) != 0) {
        return failed("cut", path);
    }
    f.lost += f.offset - f.committed;
    f.offset = f.committed;
    return {};
}

// New files under a label that is free: the directory is gone, with all that was in it, or a name in it
// is somebody else's.
SinkError FileSink::move_house(bool gone) {
    for (std::size_t s = 0; s < kStreamCount && !gone; ++s) {
        const std::string text = path(static_cast<Stream>(s), files_[s].segment);
        if (files_[s].has_trim) return {EBUSY, "leave " + text};  // once the cut is made
        if (SinkError error = take_back(files_[s], text)) return error;
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

// Whether the committed lines at the stream's end are all under its names. One that is missing before
// shows in its own files.
bool FileSink::keeps_lines(Stream stream) const {
    const File& f = file(stream);
    if (f.gap || (!f.id && f.segment == 0)) return false;
    struct stat info;
    return ::fstatat(directory_.get(), name(stream, f.id ? f.segment : f.segment - 1).c_str(), &info,
                     AT_SYMLINK_NOFOLLOW) == 0 &&
           (!f.id || (id_of(info) == f.id &&
                      static_cast<std::uint64_t>(info.st_size) >= f.committed));
}

void FileSink::note_committed() noexcept {
    for (File& f : files_) {
        if (f.offset > f.committed) f.gap = false;  // the next line's number tells of it
        f.committed = f.offset;
    }
}

SinkError FileSink::check(Stream stream, std::uint64_t* lost) {
    File& f = file(stream);
    SinkError found;
    if (claimed_) found = check_directory(stream);
    if (claimed_ && !found && f.id) found = check_file(stream, lost);
    if (lost != nullptr) *lost += std::exchange(f.lost, 0);
    return found;
}

SinkError FileSink::check_file(Stream stream, std::uint64_t* lost) {
    File& f = file(stream);
    const std::string text = path(stream, f.segment);
    struct stat info;
    if (::fstat(f.fd, &info) != 0 || id_of(info) != f.id) {
        f.fd = -1;  // closed below us, and perhaps somebody else's now
        if (open_by_name(stream)) {
            return {EBADF, "keep " + text +
                               " open (the program closed its descriptor; it was opened again)"};
        }
        if (errno != ENOENT) return failed("open", text);  // no descriptor is free, perhaps
        forget(f);
        return {ENOENT, "find " + text + " any more (a new one is made)"};
    }
    if (info.st_nlink == 0) {
        forget(f);
        return {ENOENT, "find " + text + " any more (removed while open; a new one is made)"};
    }
    const FileId named = id_at(directory_.get(), name(stream, f.segment));
    if (!named && errno != ENOENT) return failed("look at", text);
    if (named == f.id) {
        return check_size(stream, static_cast<std::uint64_t>(info.st_size), lost);
    }
    if (SinkError error = take_back(f, text)) return error;
    ::fdatasync(f.fd);  // it is not looked at again
    forget(f);
    return {ENOENT, "find " + text + " any more (renamed or replaced; a new one is made)"};
}

SinkError FileSink::check_size(Stream stream, std::uint64_t size, std::uint64_t* lost) {
    File& f = file(stream);
    if (size >= f.offset) return {};
    // Somebody cut the file, perhaps inside a line. What is left of that line goes too: a line
    // written behind it would be lost with it, and writing at the old offset would leave a hole.
    const std::string text = path(stream, f.segment);
    std::uint64_t end = size;
    if (!end_of_last_line(f.fd, end)) return failed("read", text);
    if (end != size && ::ftruncate(f.fd, static_cast<off_t>(end)) != 0) return failed("cut", text);
    SinkError found{EIO, "keep " + text +
                             " whole (truncated by somebody else; writing goes on at its new end)"};
    if (lost != nullptr) *lost += f.offset - end;  // behind what may lack memory
    f.gap = f.gap || end < f.committed;
    f.offset = end;
    f.synced = std::min(f.synced, end);
    f.committed = std::min(f.committed, end);
    return found;
}

// ---- writing --------------------------------------------------------------------------------------

// Makes the stream's segment. Where somebody has put something of its name, it is the next one that is
// free (readers find it behind the one before). Behind somebody else's first one readers would take ours
// for theirs: then all streams go on under another label.
SinkError FileSink::create(Stream stream) {
    File& f = file(stream);
    for (;; ++f.segment) {
        const std::string segment = name(stream, f.segment);  // before: memory may run out
        const std::string text = path(stream, f.segment);
        if (!id_at(directory_.get(), segment)) {
            if (SinkError error = note(stream, {})) return error;
            const int fd = open_to_keep(directory_.get(), segment, kMakeFlags);
            if (fd < 0 && errno != EEXIST) return failed("open", text);
            if (fd >= 0) {
                f.fd = fd;
                f.id = id_of(fd);
                if (stream == Stream::metrics && f.segment == 0) first_id_ = f.id;
                return note(stream, f.id);
            }
        }
        if (f.segment == 0 && !recovers_) return {EEXIST, "open " + text};
        if (f.segment + 1 >= kMostSegments) return {EEXIST, "open " + text};
    }
}

SinkError FileSink::write(Stream stream, std::string_view bytes, std::size_t& written) {
    written = 0;
    if (bytes.empty()) return {};
    if (SinkError error = claim()) return error;
    if (!noted_) {
        if (SinkError error = keep_notes(ledger_)) return error;
    }
    File& f = file(stream);
    if (!f.id) {
        SinkError error = create(stream);
        if (error.code == EEXIST && f.segment == 0 && !recovers_) {
            return move_house(/*gone=*/false);
        }
        if (error) return error;
    } else if (id_of(f.fd) != f.id) {
        return {EBADF, "open " + path(stream, f.segment)};  // check() could not
    }
    return write_at(f, stream, bytes, written);
}

SinkError FileSink::write_at(File& f, Stream stream, std::string_view bytes, std::size_t& written) {
    while (written < bytes.size()) {
        const ssize_t n = ::pwrite(f.fd, bytes.data() + written, bytes.size() - written,
                                   static_cast<off_t>(f.offset));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            if (n == 0) errno = ENOSPC;
            return failed("write", path(stream, f.segment));
        }
        written += static_cast<std::size_t>(n);
        f.offset += static_cast<std::uint64_t>(n);
    }
    return {};
}

SinkError FileSink::sync(Stream stream) {
    File& f = file(stream);
    if (!f.id || f.synced == f.offset) return {};
    // A file that is lost has nothing to force: check() tells.
    const std::string text = path(stream, f.segment);
    if (id_of(f.fd) != f.id) {
        f.fd = -1;
        if (!open_by_name(stream)) return errno == ENOENT ? SinkError{} : failed("open", text);
    }
    // After one failure the kernel may report success without the bytes being on the disk.
    if (f.sync_failed) return {EIO, "sync " + text};
    int result;
    do {
        result = ::fdatasync(f.fd);
    } while (result != 0 && errno == EINTR);
    if (result != 0) {
        SinkError error = failed("sync", text);
        f.sync_failed = true;
        return error;
    }
    f.synced = f.offset;
    return {};
}

SinkError FileSink::move_unsynced(Stream stream) {
    File& old = file(stream);
    if (old.has_trim) return {EBUSY, "cut " + path(stream, old.trim_segment)};
    // The page cache still has the bytes even where the disk does not.
    std::string bytes(old.offset - old.synced, '\0');
    std::size_t got = 0;
    while (got < bytes.size()) {
        const ssize_t n = ::pread(old.fd, bytes.data() + got, bytes.size() - got,
                                  static_cast<off_t>(old.synced + got));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return failed("read back", path(stream, old.segment));
        got += static_cast<std::size_t>(n);
    }
    // The old one stays in its place until all of it is in the new one, whatever is thrown on the way.
    const File before = old;
    struct Restore {
        FileSink& sink;
        Stream stream;
        const File& before;
        bool moved = false;
        ~Restore() {
            File& now = sink.file(stream);
            File left = moved ? before : now;
            close_file(left);
            if (!moved) now = before;
        }
    } restore{*this, stream, before};
    old = File{};
    old.segment = before.segment + 1;
    old.lost = before.lost;
    old.has_trim = true;
    old.trim_segment = before.segment;
    old.trim_bytes = before.synced;
    old.trim_id = before.id;
    SinkError error = create(stream);
    std::size_t written = 0;
    if (!error) error = write_at(old, stream, bytes, written);
    if (!error && ::fdatasync(old.fd) != 0) error = failed("sync", path(stream, old.segment));
    if (error) {
        unlink_own(stream);
        return error;
    }
    old.synced = old.offset;
    restore.moved = true;
    return {};
}

void FileSink::trim(Stream stream) {
    File& f = file(stream);
    if (!f.has_trim) return;
    const Descriptor fd(
        open_at(directory_.get(), name(stream, f.trim_segment), O_RDWR | O_NOFOLLOW | O_NONBLOCK));
    if (fd.get() < 0 && !is_no_file(errno)) return;  // tried again with the next commit
    struct stat info;
    const bool ours = fd.get() >= 0 && ::fstat(fd.get(), &info) == 0 && id_of(info) == f.trim_id;
    if (ours && static_cast<std::uint64_t>(info.st_size) > f.trim_bytes &&
        ::ftruncate(fd.get(), static_cast<off_t>(f.trim_bytes)) != 0) {
        return;
    }
    f.has_trim = false;
}

}  // namespace fastlog
