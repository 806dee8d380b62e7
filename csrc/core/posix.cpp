#include "core/posix.hpp"

#include <cerrno>
#include <system_error>

namespace fastlog {

SinkError failed(const char* verb, const std::string& path) {
    const int code = errno != 0 ? errno : EIO;  // 0 would mean no error
    return {code, std::string(verb) + " " + path};
}

std::string describe(const SinkError& error) {
    return error.what + ": " + std::system_category().message(error.code);
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
            return "fix the cause";
    }
}

FileId id_of(const struct stat& info) noexcept {
    return {static_cast<std::uint64_t>(info.st_dev), static_cast<std::uint64_t>(info.st_ino)};
}

bool is_no_file(int code) noexcept {
    return code == ENOENT || code == ELOOP || code == ENXIO || code == EISDIR;
}

}  // namespace fastlog
