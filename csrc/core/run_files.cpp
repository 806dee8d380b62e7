#include "core/run_files.hpp"

#include <fcntl.h>

#include <cerrno>

namespace fastlog {

bool RunFiles::suits_mapping(const std::string&) noexcept { return false; }

int RunFiles::allocate(int, std::uint64_t) noexcept {
    errno = EROFS;
    return -1;
}

void* RunFiles::map(int, std::size_t) noexcept {
    errno = EROFS;
    return nullptr;
}

void RunFiles::unmap(void*, std::size_t) noexcept {}

bool RunFiles::mapping_holds_lock(int) noexcept { return false; }

SinkError write_all(RunFiles& files, int fd, const void* bytes, std::size_t size,
                    std::uint64_t offset, const std::string& path) {
    const auto* at = static_cast<const char*>(bytes);
    while (size != 0) {
        const ssize_t n = files.write_at(fd, at, size, offset);
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

SinkError make_directory(RunFiles& files, const std::string& path) {
    struct stat info;
    if (files.make_directory(path) != 0 && errno != EEXIST) {
        return failed("create directory", path);
    }
    if (files.stat_at(AT_FDCWD, path, info) != 0) return failed("stat", path);
    if (!S_ISDIR(info.st_mode)) {
        errno = ENOTDIR;
        return failed("use", path);
    }
    return {};
}

SinkError make_directories(RunFiles& files, const std::string& path) {
    for (std::size_t end = 1; end != std::string::npos;) {
        end = path.find('/', end + 1);
        const std::string part = path.substr(0, end);
        if (files.make_directory(part) == 0 || errno == EEXIST) continue;
        struct stat info;
        const int code = errno;
        if (files.stat_path(part, info) == 0 && S_ISDIR(info.st_mode)) continue;
        errno = code;
        return failed("create directory", part);
    }
    return {};
}

}  // namespace fastlog
