#include "core/file_sink.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>

namespace fastlog {
namespace {

constexpr int kOpenFlags = O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW;
constexpr mode_t kMode = 0666;  // the umask decides

int open_retrying(const std::string& path, int flags) {
    int fd;
    do {
        fd = ::open(path.c_str(), flags, kMode);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

SinkError failed(const char* verb, const std::string& path) {
    const int code = errno;
    return {code, std::string(verb) + " " + path};
}

}  // namespace

FileSink::FileSink(FileSinkOptions options) : options_(std::move(options)) {}

FileSink::~FileSink() {
    for (auto& f : files_) {
        if (f.fd >= 0) ::close(f.fd);
    }
}

std::string FileSink::path(Stream stream, std::uint32_t segment) const {
    std::string name = options_.directory + "/" + kStreamNames[static_cast<std::size_t>(stream)];
    name += options_.stamp;
    if (!label_.empty()) name += "." + label_;
    if (segment != 0) {
        char number[16];
        std::snprintf(number, sizeof number, ".%06u", segment);
        name += number;
    }
    return name + ".jsonl";
}

std::vector<std::string> FileSink::paths() const {
    std::vector<std::string> all;
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        for (std::uint32_t n = 0; n < segments(static_cast<Stream>(s)); ++n) {
            all.push_back(path(static_cast<Stream>(s), n));
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
        if (::mkdir(part.c_str(), 0777) == 0 || errno == EEXIST) continue;
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

bool FileSink::wants_rotation(Stream stream, std::size_t pending, std::size_t next) const noexcept {
    const std::uint64_t filled = file(stream).offset + pending;
    return filled != 0 && filled + next > options_.segment_bytes;
}

void FileSink::rotate(Stream stream) noexcept {
    File& f = file(stream);
    if (f.fd >= 0) ::close(f.fd);
    f = {-1, f.segment + 1, 0, false};
}

SinkError FileSink::open(Stream stream) {
    File& f = file(stream);
    const std::string name = path(stream, f.segment);
    // A segment of ours that vanished is made anew; one that we have not made must not be there.
    const int flags = f.exists ? kOpenFlags : kOpenFlags | O_EXCL;
    int fd = open_retrying(name, flags);
    if (fd < 0 && errno == ENOENT) {  // the directory was removed
        if (SinkError error = make_directory()) return error;
        fd = open_retrying(name, flags);
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

SinkError FileSink::check(Stream stream) {
    File& f = file(stream);
    if (f.fd < 0) return {};
    struct stat info;
    if (::fstat(f.fd, &info) != 0) return failed("stat", path(stream, f.segment));
    if (info.st_nlink == 0) {
        ::close(f.fd);
        f.fd = -1;
        f.offset = 0;
        if (SinkError error = make_directory()) return error;
        return {ENOENT, "find " + path(stream, f.segment) +
                            " any more (removed while open; a new one is made)"};
    }
    const auto size = static_cast<std::uint64_t>(info.st_size);
    if (size < f.offset) {
        // Somebody cut the file. Writing on at the old offset would leave a hole of NULs.
        f.offset = size;
        return {EIO, "keep " + path(stream, f.segment) +
                         " whole (truncated by somebody else; writing goes on at its new end)"};
    }
    return {};
}

SinkError FileSink::write(Stream stream, std::string_view bytes, std::size_t& written) {
    written = 0;
    if (SinkError error = claim()) return error;
    File& f = file(stream);
    if (f.fd < 0) {
        if (SinkError error = open(stream)) return error;
    }
    while (written < bytes.size()) {
        const ssize_t n = ::pwrite(f.fd, bytes.data() + written, bytes.size() - written,
                                   static_cast<off_t>(f.offset));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return failed("write", path(stream, f.segment));
        if (n == 0) {
            errno = ENOSPC;
            return failed("write", path(stream, f.segment));
        }
        written += static_cast<std::size_t>(n);
        f.offset += static_cast<std::uint64_t>(n);
    }
    return {};
}

}  // namespace fastlog
