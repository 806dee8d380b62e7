#include "reader/segment.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace fastlog::reader {
SegmentFile::SegmentFile(const Segment& segment, const std::atomic<bool>* cancelled)
    : segment_(segment), cancelled_(cancelled) {
    if (segment.path.empty()) {
        if (segment.whole) size_ = kUnknownSize;
    } else if (segment.whole || !segment.kept.empty()) {
        // A pipe that took the file's place is not waited for.
        do {
            fd_ = ::open(segment.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        } while (fd_ < 0 && errno == EINTR);
        struct stat status{};
        if (fd_ < 0 || ::fstat(fd_, &status) != 0) {
            error_ = errno;
        } else if (!S_ISREG(status.st_mode)) {
            error_ = EINVAL;
        } else {
            disk_size_ = static_cast<std::uint64_t>(status.st_size);
            if (segment.whole) size_ = segment.read_on ? kUnknownSize : disk_size_;
        }
    }
    if (!segment.whole) {
        for (const ByteRange& range : segment.kept) size_ += range.end - range.begin;
        size_ += segment.pending.size();
    }
}

SegmentFile::~SegmentFile() {
    if (fd_ >= 0) ::close(fd_);
}

// Reads at most so many bytes of the file; fewer at its end only.
int SegmentFile::read_file(std::uint64_t offset, char* to, std::size_t count,
                           std::size_t& taken) const {
    if (segment_.read_on && cancelled_ != nullptr && cancelled_->load(std::memory_order_relaxed)) {
        return ECANCELED;
    }
    if (segment_.read_on) return segment_.read_on(offset, to, count, taken);
    taken = 0;
    while (taken < count) {
        const ssize_t got =
            ::pread(fd_, to + taken, count - taken, static_cast<off_t>(offset + taken));
        if (got == 0) break;
        if (got > 0) {
            taken += static_cast<std::size_t>(got);
        } else if (errno != EINTR) {
            return errno;
        }
    }
    return 0;
}

int SegmentFile::read(std::uint64_t offset, char* to, std::size_t count, std::size_t& taken) const {
    if (segment_.whole) return read_file(offset, to, count, taken);
    taken = 0;
    std::uint64_t begin = 0;  // of a range, for the reader
    for (const ByteRange& range : segment_.kept) {
        const std::uint64_t size = range.end - range.begin;
        const std::uint64_t at = offset + taken;
        if (taken < count && at < begin + size) {
            const auto part =
                static_cast<std::size_t>(std::min<std::uint64_t>(count - taken, begin + size - at));
            std::size_t got = 0;
            const int error = read_file(range.begin + (at - begin), to + taken, part, got);
            if (error != 0) return error;
            if (got < part) return ENODATA;
            taken += part;
        }
        begin += size;
    }
    const std::uint64_t at = offset + taken;
    if (taken < count && at >= begin && at < begin + segment_.pending.size()) {
        const auto from = static_cast<std::size_t>(at - begin);
        const std::size_t part = std::min(count - taken, segment_.pending.size() - from);
        std::memcpy(to + taken, segment_.pending.data() + from, part);
        taken += part;
    }
    return 0;
}

}  // namespace fastlog::reader
