#include "core/writers_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>

#include "core/ring_memory.hpp"

namespace fastlog {
namespace {

constexpr std::size_t kUuidLength = 36;

SinkError append(int run, const std::string& path, const std::string& line, int flags) {
    const Descriptor fd(
        open_at(run, path, O_WRONLY | O_APPEND | O_NOFOLLOW | O_NONBLOCK | flags, kFileMode));
    struct stat info;
    if (fd.get() < 0 || ::fstat(fd.get(), &info) != 0) return failed("open", path);
    if (!S_ISREG(info.st_mode)) return {EINVAL, "append to " + path};
    ssize_t n;
    do {
        n = ::write(fd.get(), line.data(), line.size());
    } while (n < 0 && errno == EINTR);
    if (n == static_cast<ssize_t>(line.size())) return {};
    if (n >= 0) errno = ENOSPC;
    return failed("append to", path);
}

}  // namespace

SinkError note_writer_begins(const std::string& run, const std::string& uuid, bool in_memory,
                             const std::string& label) {
    const std::string own = run + "/" + kPrivateDirectory;
    if (SinkError error = make_directory(own)) return error;
    const std::string line = "begin " + uuid + (in_memory ? " memory " : " ring ") + label + "\n";
    return append(AT_FDCWD, own + "/" + kWritersFile, line, O_CREAT);
}

SinkError note_writer_ends(int run, const std::string& uuid) {
    if (uuid.empty()) return {};
    const std::string path = std::string(kPrivateDirectory) + "/" + kWritersFile;
    SinkError error = append(run, path, "end " + uuid + "\n", 0);
    if (error.code == ENOENT || error.code == ENOTDIR) error = {};
    return error;
}

std::string uuid_in(const std::string& path) {
    const std::size_t end = path.rfind(kRingSuffix);
    const std::size_t begin = end == std::string::npos || end < kUuidLength ? 0 : end - kUuidLength;
    const std::string uuid = begin == 0 ? "" : path.substr(begin, kUuidLength);
    return uuid.find_first_not_of("0123456789abcdef-") == std::string::npos ? uuid : "";
}

}  // namespace fastlog
