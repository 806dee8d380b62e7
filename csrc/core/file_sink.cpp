#include "core/file_sink.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>

#include "core/written_lines.hpp"

namespace fastlog {
namespace {

constexpr int kOpenFlags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW;

int open_retrying(const std::string& path, int flags) {
    int fd;
    do {
        fd = ::open(path.c_str(), flags, kFileMode);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

SinkError failed(const char* verb, const std::string& path) {
    const int code = errno;
    return {code, std::string(verb) + " " + path};
}

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

FileSink::FileSink(FileSinkOptions options, std::string label)
    : options_(std::move(options)), label_(std::move(label)), claimed_(true) {}

FileSink::~FileSink() {
    for (auto& f : files_) {
        if (f.fd >= 0) ::close(f.fd);
    }
}

std::string FileSink::path(Stream stream, std::uint32_t segment) const {
    return path(label_, stream, segment);
}

std::string FileSink::path(const std::string& label, Stream stream, std::uint32_t segment) const {
    std::string name = options_.directory + "/" + kStreamNames[static_cast<std::size_t>(stream)];
    name += options_.stamp;
    if (!label.empty()) name += "." + label;
    if (segment != 0) {
        char number[16];
        std::snprintf(number, sizeof number, ".%06u", segment);
        name += number;
    }
    return name + ".jsonl";
}

std::vector<std::string> FileSink::paths(const std::string& label,
                                         const std::uint32_t (&segments)[kStreamCount]) const {
    std::vector<std::string> all;
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        for (std::uint32_t n = 0; n < segments[s]; ++n) {
            all.push_back(path(label, static_cast<Stream>(s), n));
        }
    }
    return all;
}

std::uint32_t FileSink::segments(Stream stream) const noexcept {
    const File& f = file(stream);
    return f.segment + (f.exists ? 1 : 0);
}

SinkError FileSink::make_directory() const {
    // All missing parents, like mkdir -p.
    const std::string& directory = options_.directory;
    for (std::size_t end = 1; end != std::string::npos;) {
        end = directory.find('/', end + 1);
        const std::string part = directory.substr(0, end);
        if (::mkdir(part.c_str(), kDirectoryMode) == 0 || errno == EEXIST) continue;
        struct stat info;
        const int code = errno;
        if (::stat(part.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) continue;
        errno = code;
        return failed("create directory", part);
    }
    return {};
}

std::string FileSink::candidate(unsigned n) const {
    if (n == 0) return options_.label;
    if (options_.worker) return options_.label + "x" + std::to_string(n);
    return options_.label + (options_.label.empty() ? "a" : "-a") + std::to_string(n);
}

// True when the run holds a file of this label, of whatever stream and segment.
bool FileSink::taken(const std::string& label) const {
    const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(options_.directory.c_str()),
                                                        &::closedir);
    if (!directory) return false;  // not readable: the first metrics file decides alone
    bool found = false;
    while (const dirent* entry = found ? nullptr : ::readdir(directory.get())) {
        const std::string_view name = entry->d_name;
        for (const char* stream : kStreamNames) {
            const std::string begin = stream + options_.stamp + (label.empty() ? "" : "." + label);
            if (!name.starts_with(begin) || !name.ends_with(".jsonl")) continue;
            // What lies between is nothing, or the number of a segment.
            const auto middle = name.substr(begin.size()).substr(0, name.size() - begin.size() - 6);
            found = found || middle.empty() ||
                    (middle.size() > 1 && middle[0] == '.' &&
                     middle.find_first_not_of("0123456789", 1) == std::string_view::npos);
        }
    }
    return found;
}

SinkError FileSink::claim() {
    if (claimed_) return {};
    if (SinkError error = make_directory()) return error;
    for (unsigned n = 0;; ++n) {
        label_ = candidate(n);
        if (taken(label_)) continue;
        const std::string name = path(Stream::metrics, 0);
        const int fd = open_retrying(name, kOpenFlags | O_EXCL);
        if (fd < 0 && errno == EEXIST) continue;
        if (fd < 0) return failed("create", name);
        File& f = file(Stream::metrics);
        f.fd = fd;
        f.exists = true;
        claimed_ = true;
        return {};
    }
}

void FileSink::withdraw() noexcept {
    struct stat ours;
    struct stat named;
    const int fd = file(Stream::metrics).fd;
    if (fd < 0 || ::fstat(fd, &ours) != 0 || ours.st_size != 0) return;
    try {
        const std::string name = path(Stream::metrics, 0);
        if (::lstat(name.c_str(), &named) != 0 || named.st_dev != ours.st_dev ||
            named.st_ino != ours.st_ino) {
            return;  // somebody else's by now
        }
        ::unlink(name.c_str());
    } catch (const std::bad_alloc&) {
        // It stays: an empty file does no harm.
    }
}

bool FileSink::wants_rotation(Stream stream, std::size_t pending, std::size_t next) const noexcept {
    const std::uint64_t filled = file(stream).offset + pending;
    return filled != 0 && filled + next > options_.segment_bytes &&
           file(stream).segment + 1 < kMostSegments;
}

void FileSink::rotate(Stream stream) noexcept {
    File& f = file(stream);
    if (f.fd >= 0) ::close(f.fd);
    File next;
    next.segment = f.segment + 1;
    next.has_trim = f.has_trim;
    next.trim_segment = f.trim_segment;
    next.trim_bytes = f.trim_bytes;
    f = next;
}

StreamCommit FileSink::state(Stream stream) const noexcept {
    const File& f = file(stream);
    StreamCommit state{};
    state.offset = f.offset;
    state.segment = f.segment;
    state.exists = f.exists ? 1 : 0;
    state.has_trim = f.has_trim ? 1 : 0;
    state.trim_segment = f.trim_segment;
    state.trim_bytes = f.trim_bytes;
    return state;
}

SinkError FileSink::resume(const StreamCommit (&streams)[kStreamCount],
                           std::uint64_t& removed_bytes) {
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        const auto stream = static_cast<Stream>(s);
        const StreamCommit& from = streams[s];
        File& f = file(stream);
        f.segment = from.segment;
        f.offset = f.synced = from.offset;
        f.has_trim = from.has_trim != 0;
        f.trim_segment = from.trim_segment;
        f.trim_bytes = from.trim_bytes;
        trim(stream);
        const std::string name = path(stream, f.segment);
        const int fd = open_retrying(name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0 && errno != ENOENT) return failed("open", name);
        if (fd >= 0) {
            f.fd = fd;
            f.exists = true;
            struct stat info;
            if (::fstat(fd, &info) != 0) return failed("stat", name);
            if (static_cast<std::uint64_t>(info.st_size) > f.offset &&
                ::ftruncate(fd, static_cast<off_t>(f.offset)) != 0) {
                return failed("cut", name);
            }
        }
        if (SinkError error = remove_begun(*this, stream, from, removed_bytes)) return error;
    }
    return {};
}

SinkError FileSink::sync(Stream stream) {
    File& f = file(stream);
    if (f.fd < 0 || f.synced == f.offset) return {};
    const std::string name = path(stream, f.segment);
    // After one failure the kernel may report success without the bytes being on the disk.
    if (f.sync_failed) return {EIO, "sync " + name};
    int result;
    do {
        result = ::fdatasync(f.fd);
    } while (result != 0 && errno == EINTR);
    if (result != 0) {
        SinkError error = failed("sync", name);
        f.sync_failed = true;
        return error;
    }
    f.synced = f.offset;
    return {};
}

SinkError FileSink::move_unsynced(Stream stream) {
    File& old = file(stream);
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
    File next;
    next.segment = old.segment + 1;
    next.has_trim = true;
    next.trim_segment = old.segment;
    next.trim_bytes = old.synced;
    std::string name;
    next.fd = create(stream, next, name);
    if (next.fd < 0) return failed("create", name);
    next.exists = true;
    std::size_t written = 0;
    SinkError error = write_at(next, stream, bytes, written);
    if (!error && ::fdatasync(next.fd) != 0) error = failed("sync", name);
    if (error) {
        ::close(next.fd);
        ::unlink(name.c_str());
        return error;
    }
    next.synced = next.offset;
    ::close(old.fd);
    old = next;
    return {};
}

void FileSink::trim(Stream stream) {
    File& f = file(stream);
    if (!f.has_trim) return;
    const std::string name = path(stream, f.trim_segment);
    struct stat info;
    if (::lstat(name.c_str(), &info) == 0 && S_ISREG(info.st_mode) &&
        static_cast<std::uint64_t>(info.st_size) > f.trim_bytes) {
        const int fd = open_retrying(name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0) return;  // tried again with the next commit
        const bool cut = ::ftruncate(fd, static_cast<off_t>(f.trim_bytes)) == 0;
        ::close(fd);
        if (!cut) return;
    }
    f.has_trim = false;
}

// Makes a segment that is not there. Where somebody has put something of its name, it is the next one
// that is free (readers find it behind the one before; a first one they would not find): nothing of
// theirs is written to.
int FileSink::create(Stream stream, File& f, std::string& name) const {
    for (;; ++f.segment) {
        name = path(stream, f.segment);  // before the file is there: memory may run out
        const int fd = open_retrying(name, kOpenFlags | O_EXCL);
        if (fd >= 0 || errno != EEXIST) return fd;
        if (f.segment == 0 || f.segment + 1 >= kMostSegments) return fd;
    }
}

SinkError FileSink::open(Stream stream) {
    File& f = file(stream);
    // A segment of ours that vanished is made anew.
    std::string name = path(stream, f.segment);
    const auto make = [&] {
        return f.exists ? open_retrying(name, kOpenFlags) : create(stream, f, name);
    };
    int fd = make();
    if (fd < 0 && errno == ENOENT) {  // the directory was removed
        if (SinkError error = make_directory()) return error;
        fd = make();
    }
    if (fd < 0) return failed("open", name);
    if (f.exists) {
        // Usually empty; if somebody put a file in the lost one's place, write behind its text.
        struct stat info;
        if (::fstat(fd, &info) != 0) {
            const SinkError error = failed("stat", name);
            ::close(fd);
            return error;
        }
        f.offset = static_cast<std::uint64_t>(info.st_size);
    }
    f.fd = fd;
    f.exists = true;
    return {};
}

SinkError FileSink::check(Stream stream, std::uint64_t* lost) {
    File& f = file(stream);
    if (f.fd < 0) return {};
    struct stat info;
    if (::fstat(f.fd, &info) != 0) return failed("stat", path(stream, f.segment));
    if (info.st_nlink == 0) {
        ::close(f.fd);
        f.fd = -1;
        if (lost != nullptr) *lost = f.offset;
        f.offset = f.synced = 0;
        if (SinkError error = make_directory()) return error;
        return {ENOENT, "find " + path(stream, f.segment) +
                            " any more (removed while open; a new one is made)"};
    }
    const auto size = static_cast<std::uint64_t>(info.st_size);
    if (size >= f.offset) return {};
    // Somebody cut the file, perhaps inside a line. What is left of that line goes too: a line
    // written behind it would be lost with it, and writing at the old offset would leave a hole.
    const std::string name = path(stream, f.segment);
    std::uint64_t end = size;
    if (!end_of_last_line(f.fd, end)) return failed("read", name);
    if (end != size && ::ftruncate(f.fd, static_cast<off_t>(end)) != 0) return failed("cut", name);
    if (lost != nullptr) *lost = f.offset - end;
    f.offset = end;
    f.synced = std::min(f.synced, end);
    return {EIO,
            "keep " + name + " whole (truncated by somebody else; writing goes on at its new end)"};
}

SinkError FileSink::write(Stream stream, std::string_view bytes, std::size_t& written) {
    written = 0;
    if (SinkError error = claim()) return error;
    File& f = file(stream);
    if (f.fd < 0) {
        if (SinkError error = open(stream)) return error;
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

}  // namespace fastlog
