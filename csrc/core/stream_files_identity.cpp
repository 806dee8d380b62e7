// Decides whether a file is the one that a StreamFiles created, with or without stable inodes, and whether it
// is complete.
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "core/machine.hpp"
#include "core/stream_files.hpp"

namespace fastlog {
namespace {

// Moves `end` back to just after the last "\n" before it. False with errno if the file cannot be read.
bool end_of_last_line(RunFiles& disk, int fd, std::uint64_t& end) {
    char block[4096];
    while (end != 0) {
        const std::size_t want = std::min<std::uint64_t>(end, sizeof block);
        const ssize_t n = disk.read_at(fd, block, want, end - want);
        if (n != static_cast<ssize_t>(want)) {
            if (n >= 0) errno = EIO;  // it is shrinking again right now
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

// Keeps a newly created file: if inodes are stable, its name must lead to the same file. A file that could
// not be recognised again is not used.
SinkError StreamFiles::keep_made(Stream stream, int fd, const std::string& name) {
    Descriptor made(disk_, fd);
    struct stat info;
    if (disk_.stat(fd, info) != 0) {
        const int code = errno;
        disk_.unlink(directory_.get(), name);
        errno = code;
        return failed("stat", options_.directory + "/" + name);
    }
    const FileId id = id_of(info);
    const FileId named = disk_.id_at(directory_.get(), name);
    const bool fresh = S_ISREG(info.st_mode) && info.st_size == 0;
    if (named && named != id && fresh && (renumbers_ || shows_size(fd, name))) note_renumbering();
    file(stream).fd = made.release();
    file(stream).id = id;
    return {};
}

// Whether a name refers to the empty file that is open here, whatever inodes are shown: both must show the
// same random size. Since its creation the file may have been renamed, and the name may belong to another one.
bool StreamFiles::shows_size(int fd, const std::string& name) {
    struct stat info;
    const std::uint64_t size = 1 + random_u64() % 4096;
    const bool shown = disk_.cut(fd, size) == 0 &&
                       disk_.stat_at(directory_.get(), name, info) == 0 &&
                       static_cast<std::uint64_t>(info.st_size) == size;
    return disk_.cut(fd, 0) == 0 && shown;
}

void StreamFiles::note_renumbering() {
    renumbers_ = renumbered_ = true;
    if (ledger_ != nullptr) ledger_->note_renumbering();
}

// Opens the segment if it is still the file that we created. Otherwise false, with errno.
bool StreamFiles::open_by_name(Stream stream) {
    File& f = file(stream);
    if (own_directory() < 0) return false;
    const int fd = disk_.open_to_keep(directory_.get(), name(stream, f.segment),
                                      O_RDWR | O_NOFOLLOW | O_NONBLOCK);
    struct stat info;
    const bool seen = fd >= 0 && disk_.stat(fd, info) == 0;
    if (seen && (id_of(info) == f.id || is_alike(fd, f))) {
        if (id_of(info) != f.id) note_renumbering();
        f.fd = fd;
        f.id = id_of(info);
        return true;
    }
    const int code = errno;
    if (fd >= 0) disk_.close(fd);
    errno = seen || is_no_file(code) ? ENOENT : code;  // another file, or none; or it is unknown
    return false;
}

// Whether a file has the same size and the same end as ours, if inodes are not stable.
bool StreamFiles::is_alike(int fd, const File& f) const {
    struct stat info;
    if (!renumbers_ || disk_.stat(fd, info) != 0 || !S_ISREG(info.st_mode) ||
        static_cast<std::uint64_t>(info.st_size) != f.offset) {
        return false;
    }
    char theirs[512];
    char ours[512];
    const std::size_t end = std::min<std::uint64_t>(f.offset, sizeof ours);
    const std::uint64_t from = f.offset - end;
    if (disk_.read_at(fd, theirs, end, from) != static_cast<ssize_t>(end)) return false;
    // If other code closed the descriptor, only the size can be compared.
    return disk_.id_of(f.fd) != f.id ||
           (disk_.read_at(f.fd, ours, end, from) == static_cast<ssize_t>(end) &&
            std::equal(ours, ours + end, theirs));
}

// The name shows another inode than our descriptor. If that may be the same file, writing continues in the
// file that has the name now.
SinkError StreamFiles::check_replaced(Stream stream, const std::string& text, bool& ours) {
    File& f = file(stream);
    ours = false;
    if (!renumbers_) return {};
    const int fd = disk_.open_to_keep(directory_.get(), name(stream, f.segment),
                                      O_RDWR | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) return is_no_file(errno) ? SinkError{} : failed("open", text);
    ours = disk_.id_of(fd) == f.id || is_alike(fd, f);
    // After a sync, a second check may see what the server has.
    if (!ours && disk_.sync(f.fd) == 0) ours = is_alike(fd, f);
    if (ours && !renumbered_) note_renumbering();
    if (!ours || disk_.id_of(fd) == f.id) {
        disk_.close(fd);
        return {};
    }
    close_file(f);
    f.fd = fd;
    f.id = disk_.id_of(fd);
    return note(stream, f.id);
}

// Finds how far the written bytes are still contiguous. If the file was cut between a check and a write, it
// has a hole before what was written: no line of ours contains a NUL.
SinkError StreamFiles::find_end(File& f, const std::string& path, std::uint64_t size,
                                std::uint64_t& end) {
    char last = '\n';
    if (size >= f.offset && f.offset > f.seen && f.seen != 0) {
        const ssize_t n = disk_.read_at(f.fd, &last, 1, f.seen - 1);
        if (n < 0) return failed("read", path);
        struct stat info;
        if (n == 0 && disk_.stat(f.fd, info) != 0) return failed("stat", path);
        if (n == 0) size = static_cast<std::uint64_t>(info.st_size);  // cut since the size was read
    }
    end = last == '\0' ? f.seen : std::min(size, f.offset);
    return {};
}

SinkError StreamFiles::check_size(Stream stream, std::uint64_t size, std::uint64_t* lost) {
    File& f = file(stream);
    const std::string text = path(stream, f.segment);
    std::uint64_t end = 0;
    if (SinkError error = find_end(f, text, size, end)) return error;
    if (end == f.offset) {
        f.seen = end;
        return {};
    }
    // Somebody cut the file, perhaps inside a line. The rest of that line is removed too: a line written
    // after it would be lost with it, and writing at the old offset would leave a hole.
    if (!end_of_last_line(disk_, f.fd, end)) return failed("read", text);
    if (end != size && disk_.cut(f.fd, end) != 0) return failed("cut", text);
    SinkError found{
        EIO, "keep " + text +
                 " complete (truncated by another program; writing continues at its new end)"};
    if (lost != nullptr) *lost += f.offset - end;  // after everything that may run out of memory
    f.gap = f.gap || end < f.committed;
    f.offset = f.seen = end;
    f.synced = std::min(f.synced, end);
    f.committed = std::min(f.committed, end);
    return found;
}

}  // namespace fastlog
