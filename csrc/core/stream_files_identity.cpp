// Whether a file is the one that a StreamFiles made, where inodes tell and where they do not.
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "core/stream_files.hpp"

namespace fastlog {

// Of a file that this moment was made: looked at by its name as well, it is the same where inodes tell.
FileId StreamFiles::made(int fd, const std::string& name) {
    const FileId id = disk_.id_of(fd);
    const FileId named = disk_.id_at(directory_.get(), name);
    if (id && named && named != id) note_renumbering();
    return id;
}

void StreamFiles::note_renumbering() {
    renumbers_ = renumbered_ = true;
    if (ledger_ != nullptr) ledger_->note_renumbering();
}

// Opens the segment if it is still the file that we made. Otherwise false, with errno.
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
    errno =
        seen || is_no_file(code) ? ENOENT : code;  // another file, or none; or it cannot be told
    return false;
}

// Whether a file is as long as ours and ends alike, where inodes do not tell.
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
    // A descriptor that was closed below us leaves the size alone to go by.
    return disk_.id_of(f.fd) != f.id ||
           (disk_.read_at(f.fd, ours, end, from) == static_cast<ssize_t>(end) &&
            std::equal(ours, ours + end, theirs));
}

// The name shows another inode than our descriptor. Where that may be the same file, writing goes on in
// what has the name now.
SinkError StreamFiles::look_again(Stream stream, const std::string& text, bool& ours) {
    File& f = file(stream);
    ours = false;
    if (!renumbers_) return {};
    const int fd = disk_.open_to_keep(directory_.get(), name(stream, f.segment),
                                      O_RDWR | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) return is_no_file(errno) ? SinkError{} : failed("open", text);
    ours = disk_.id_of(fd) == f.id || is_alike(fd, f);
    // A second look may be at what a server has.
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

}  // namespace fastlog
