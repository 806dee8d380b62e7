// How a StreamFiles writes, syncs, and moves lines after a failed sync.
#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>

#include "core/stream_files.hpp"

namespace fastlog {

SinkError StreamFiles::write(Stream stream, std::string_view bytes, std::size_t& written) {
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
            return start_new_files(/*gone=*/false);
        }
        if (error) return error;
    } else if (disk_.id_of(f.fd) != f.id) {
        return {EBADF, "open " + path(stream, f.segment)};  // check() could not open it
    }
    return write_some(f, stream, bytes, written);
}

// One write. The rest of a short write follows after another check of the file, which may have been cut.
SinkError StreamFiles::write_some(File& f, Stream stream, std::string_view bytes,
                                  std::size_t& written) {
    const ssize_t n = disk_.write_at(f.fd, bytes.data(), bytes.size(), f.offset);
    if (n <= 0) {
        if (n == 0) errno = ENOSPC;
        return failed("write", path(stream, f.segment));
    }
    written += static_cast<std::size_t>(n);
    f.offset += static_cast<std::uint64_t>(n);
    return {};
}

SinkError StreamFiles::sync(Stream stream) {
    File& f = file(stream);
    if (!f.id || f.synced == f.offset) return {};
    // A lost file has nothing to sync: check() reports it.
    const std::string text = path(stream, f.segment);
    if (disk_.id_of(f.fd) != f.id) {
        f.fd = -1;
        if (!open_by_name(stream)) return errno == ENOENT ? SinkError{} : failed("open", text);
    }
    // After one failure the kernel may report success without the bytes being on the disk.
    if (f.sync_failed) return {EIO, "sync " + text};
    if (disk_.sync(f.fd) != 0) {
        SinkError error = failed("sync", text);
        f.sync_failed = true;
        return error;
    }
    f.synced = f.offset;
    return {};
}

SinkError StreamFiles::move_unsynced(Stream stream) {
    File& old = file(stream);
    if (old.has_trim) return {EBUSY, "cut " + path(stream, old.trim_segment)};
    if (own_directory() < 0) return failed("open directory", options_.directory);
    if (disk_.id_of(old.fd) != old.id) {
        old.fd = -1;
        if (!open_by_name(stream)) return failed("open", path(stream, old.segment));
    }
    // The page cache still has the bytes even if the disk does not.
    std::string bytes(old.offset - old.synced, '\0');
    std::size_t got = 0;
    while (got < bytes.size()) {
        const ssize_t n =
            disk_.read_at(old.fd, bytes.data() + got, bytes.size() - got, old.synced + got);
        if (n == 0) errno = EIO;  // it was cut
        if (n <= 0) return failed("read back", path(stream, old.segment));
        got += static_cast<std::size_t>(n);
    }
    // The old one stays in place until everything is in the new one, whatever is thrown in between.
    const File before = old;
    struct Restore {
        StreamFiles& sink;
        Stream stream;
        const File& before;
        bool moved = false;
        ~Restore() {
            File& now = sink.file(stream);
            File left = moved ? before : now;
            sink.close_file(left);
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
    while (!error && written < bytes.size()) {
        error = write_some(old, stream, std::string_view(bytes).substr(written), written);
    }
    if (!error && disk_.sync(old.fd) != 0) error = failed("sync", path(stream, old.segment));
    if (error) {
        if (old.id && disk_.id_of(old.fd) == old.id)
            disk_.cut(old.fd, 0);  // the name may not be removable
        unlink_own(stream);
        return error;
    }
    old.synced = old.offset;
    restore.moved = true;
    return {};
}

SinkError StreamFiles::trim(Stream stream) {
    File& f = file(stream);
    if (!f.has_trim) return {};
    const std::string text = path(stream, f.trim_segment);
    if (own_directory() < 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return {};  // it is gone or renamed: check() reports it
        return failed("open directory", options_.directory);
    }
    const Descriptor fd(disk_, disk_.open(directory_.get(), name(stream, f.trim_segment),
                                          O_RDWR | O_NOFOLLOW | O_NONBLOCK));
    if (fd.get() < 0 && !is_no_file(errno)) return failed("open", text);
    struct stat info;
    if (fd.get() >= 0 && disk_.stat(fd.get(), info) != 0) return failed("stat", text);
    const bool ours =
        fd.get() >= 0 && (id_of(info) == f.trim_id || (renumbers_ && S_ISREG(info.st_mode)));
    if (ours && static_cast<std::uint64_t>(info.st_size) > f.trim_bytes &&
        disk_.cut(fd.get(), f.trim_bytes) != 0) {
        return failed("cut", text);
    }
    f.has_trim = false;
    return {};
}

}  // namespace fastlog
