#include "core/posix.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>

#if defined(__linux__)
#include <sys/vfs.h>
#endif

#include <algorithm>
#include <cerrno>
#include <memory>

namespace fastlog {

SinkError failed(const char* verb, const std::string& path) {
    const int code = errno;
    return {code, std::string(verb) + " " + path};
}

const char* remedy(int code) noexcept {
    switch (code) {
        case ENOSPC:
        case EDQUOT:
            return "free space there";
        case EFBIG:
            return "raise the limit of file sizes";
        case EACCES:
        case EPERM:
        case EROFS:
            return "make the place writable";
        case EMFILE:
        case ENFILE:
            return "close files or raise the limit of open ones";
        case ENOMEM:
            return "free memory";
        default:
            return "mend the cause";
    }
}

FileId id_of(const struct stat& info) noexcept {
    return {static_cast<std::uint64_t>(info.st_dev), static_cast<std::uint64_t>(info.st_ino)};
}

FileId id_of(int fd) noexcept {
    struct stat info;
    return fd >= 0 && ::fstat(fd, &info) == 0 ? id_of(info) : FileId{};
}

FileId id_at(int directory, const std::string& name) noexcept {
    struct stat info;
    return ::fstatat(directory, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0 ? id_of(info)
                                                                               : FileId{};
}

bool may_renumber(int directory) noexcept {
#if defined(__linux__)
    struct statfs info;
    if (::fstatfs(directory, &info) != 0) return false;
    switch (static_cast<unsigned long>(info.f_type) & 0xFFFFFFFFUL) {
        case 0x65735546:  // FUSE
        case 0xFF534D42:  // CIFS
        case 0xFE534D42:  // SMB 2 and 3
            return true;
        default:
            return false;
    }
#else
    (void)directory;
    return false;
#endif
}

bool is_no_file(int code) noexcept {
    return code == ENOENT || code == ELOOP || code == ENXIO || code == EISDIR;
}

int open_at(int directory, const std::string& name, int flags, mode_t mode) noexcept {
    int fd;
    do {
        fd = ::openat(directory, name.c_str(), flags | O_CLOEXEC, mode);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

int open_to_keep(int directory, const std::string& name, int flags, mode_t mode) noexcept {
    const int fd = open_at(directory, name, flags, mode);
    return fd < 0 ? fd : moved_up(fd);
}

int moved_up(int fd) noexcept {
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    const int high = ::fcntl(fd, F_DUPFD_CLOEXEC, std::min<rlim_t>(limit.rlim_cur / 2, 512));
    if (high < 0) return fd;
    ::close(fd);
    return high;
}

SinkError write_all(int fd, const void* bytes, std::size_t size, std::uint64_t offset,
                    const std::string& path) {
    const auto* at = static_cast<const char*>(bytes);
    while (size != 0) {
        const ssize_t n = ::pwrite(fd, at, size, static_cast<off_t>(offset));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            if (n == 0) errno = ENOSPC;
            return failed("write", path);
        }
        at += n;
        offset += static_cast<std::uint64_t>(n);
        size -= static_cast<std::size_t>(n);
    }
    return {};
}

bool list_names(int directory, const std::string& name, std::vector<std::string>& names) {
    Descriptor fd(open_at(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
    const std::unique_ptr<DIR, int (*)(DIR*)> listing(::fdopendir(fd.get()), &::closedir);
    if (!listing) return false;
    fd.release();  // closedir() closes it
    while (const dirent* entry = ::readdir(listing.get())) names.emplace_back(entry->d_name);
    return true;
}

SinkError make_directory(const std::string& path) {
    struct stat info;
    if (::mkdir(path.c_str(), kDirectoryMode) != 0 && errno != EEXIST) {
        return failed("create directory", path);
    }
    if (::lstat(path.c_str(), &info) != 0) return failed("stat", path);
    if (!S_ISDIR(info.st_mode)) {
        errno = ENOTDIR;
        return failed("use", path);
    }
    return {};
}

SinkError make_directories(const std::string& path) {
    for (std::size_t end = 1; end != std::string::npos;) {
        end = path.find('/', end + 1);
        const std::string part = path.substr(0, end);
        if (::mkdir(part.c_str(), kDirectoryMode) == 0 || errno == EEXIST) continue;
        struct stat info;
        const int code = errno;
        if (::stat(part.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) continue;
        errno = code;
        return failed("create directory", part);
    }
    return {};
}

}  // namespace fastlog
