#include "core/writer_mark.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>

#include "core/ring_memory.hpp"

namespace fastlog {
namespace {

constexpr std::size_t kUuidLength = 36;

std::string mark_of(const std::string& run, const std::string& uuid) {
    return run + "/" + kPrivateDirectory + "/" + uuid + kMarkSuffix;
}

}  // namespace

SinkError mark_writer(RunFiles& files, const std::string& run, const std::string& uuid,
                      bool in_memory, const std::string& label) {
    if (SinkError error = make_directory(files, run + "/" + kPrivateDirectory)) return error;
    const std::string path = mark_of(run, uuid);
    const Descriptor fd(
        files, files.open(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_NONBLOCK));
    if (fd.get() < 0) return failed("create", path);
    const std::string text = (in_memory ? "memory " : "ring ") + label + "\n";
    return write_all(files, fd.get(), text.data(), text.size(), 0, path);
}

SinkError unmark_writer(RunFiles& files, const std::string& run, const std::string& uuid) {
    const std::string mark = mark_of(run, uuid);
    if (uuid.empty() || files.unlink(AT_FDCWD, mark) == 0 || errno == ENOENT) return {};
    return failed("remove", mark);
}

WriterMark find_mark(RunFiles& files, const std::string& run, const std::string& uuid) {
    struct stat info;
    if (uuid.empty()) return WriterMark::unknown;
    if (files.stat_at(AT_FDCWD, mark_of(run, uuid), info) == 0) return WriterMark::present;
    return errno == ENOENT ? WriterMark::absent : WriterMark::unknown;
}

std::string uuid_in(const std::string& path) {
    const std::size_t end = path.rfind(kRingSuffix);
    const std::size_t begin = end == std::string::npos || end < kUuidLength ? 0 : end - kUuidLength;
    const std::string uuid = begin == 0 ? "" : path.substr(begin, kUuidLength);
    return uuid.find_first_not_of("0123456789abcdef-") == std::string::npos ? uuid : "";
}

}  // namespace fastlog
