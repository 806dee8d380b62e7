#include "core/ring_pointer.hpp"

#include <fcntl.h>

#include <cerrno>
#include <cstdio>
#include <string_view>
#include <system_error>

#include "core/kill_point.hpp"
#include "core/ring_memory.hpp"

namespace fastlog {

SinkError write_pointer(const std::string& pointer, const std::string& ring) {
    const std::string temporary = pointer + kTemporarySuffix;
    const Descriptor fd(
        open_at(AT_FDCWD, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, kFileMode));
    if (fd.get() < 0) return failed("create", temporary);
    const std::string text = ring + "\n" + host_name() + "\n" + boot_id() + "\n";
    SinkError error = write_all(fd.get(), text.data(), text.size(), 0, temporary);
    // Other hosts of a network file system see the bytes before the name; and a ring in /var/tmp outlives a
    // power loss, which would otherwise leave an empty pointer.
    ::fdatasync(fd.get());
    KILL_POINT("pointer_written");
    if (!error && ::rename(temporary.c_str(), pointer.c_str()) != 0)
        error = failed("name", pointer);
    if (error) ::unlink(temporary.c_str());
    return error;
}

std::string read_pointer(int directory, const std::string& pointer, std::string& reason) {
    const Descriptor fd(open_at(directory, pointer, O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
    char text[4096];
    const ssize_t n = fd.get() < 0 ? -1 : ::pread(fd.get(), text, sizeof text, 0);
    if (n < 0) {
        const int code = errno;
        reason = "read " + pointer + ": " + std::system_category().message(code);
        errno = code;
        return {};
    }
    errno = 0;
    const std::string_view all(text, static_cast<std::size_t>(n));
    const std::string path(all.substr(0, all.find('\n')));
    if (path.empty() || path[0] != '/' || !path.ends_with(kRingSuffix) ||
        path.find('\0') != path.npos) {
        reason = "the pointer " + pointer + " names no ring file";
        return {};
    }
    return path;
}

}  // namespace fastlog
