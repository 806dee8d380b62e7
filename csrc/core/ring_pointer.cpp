#include "core/ring_pointer.hpp"

#include <fcntl.h>

#include <cerrno>
#include <cstdio>
#include <string_view>
#include <system_error>

#include "core/kill_point.hpp"
#include "core/machine.hpp"
#include "core/ring_memory.hpp"

namespace fastlog {
namespace {

// Takes the text up to the next newline, and the newline; empty if there is none.
std::string take_line(std::string_view& text) {
    const std::size_t end = text.find('\n');
    if (end == text.npos) return {};
    const std::string line(text.substr(0, end));
    text.remove_prefix(end + 1);
    return line;
}

}  // namespace

SinkError write_pointer(RunFiles& files, const std::string& pointer, const std::string& ring) {
    const std::string temporary = pointer + kTemporarySuffix;
    const Descriptor fd(files, files.open(AT_FDCWD, temporary,
                                          O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, kFileMode));
    if (fd.get() < 0) return failed("create", temporary);
    std::string text = ring + "\n" + host_name() + "\n" + boot_id() + "\n";
    const std::string run = pointer.substr(0, pointer.rfind("/" + std::string(kPrivateDirectory)));
    if (run.find('\n') == run.npos) text += run + "\n";
    SinkError error = write_all(files, fd.get(), text.data(), text.size(), 0, temporary);
    // Other hosts of a network file system then see the bytes before the name. And a ring in /var/tmp
    // survives a power loss, which could otherwise leave an empty pointer.
    files.sync(fd.get());
    KILL_POINT("pointer_written");
    if (!error && files.rename(AT_FDCWD, temporary, AT_FDCWD, pointer) != 0)
        error = failed("name", pointer);
    if (error) files.unlink(AT_FDCWD, temporary);
    return error;
}

RingPointer read_pointer(RunFiles& files, int directory, const std::string& pointer,
                         std::string& reason) {
    const Descriptor fd(files, files.open(directory, pointer, O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
    char text[16384];  // two paths
    const ssize_t n = fd.get() < 0 ? -1 : files.read_at(fd.get(), text, sizeof text, 0);
    if (n < 0) {
        const int code = errno;
        reason = "read " + pointer + ": " + std::system_category().message(code);
        errno = code;
        return {};
    }
    errno = 0;
    std::string_view rest(text, static_cast<std::size_t>(n));
    const std::string path(rest.substr(0, rest.find('\n')));
    if (path.empty() || path[0] != '/' || !path.ends_with(kRingSuffix) ||
        path.find('\0') != path.npos) {
        reason = "the pointer " + pointer + " does not name a ring file";
        return {};
    }
    take_line(rest);
    const bool host = take_line(rest) == host_name();
    const std::string boot = take_line(rest);
    const bool here = host && !boot.empty() && boot == boot_id();
    return {path, take_line(rest), here};
}

}  // namespace fastlog
