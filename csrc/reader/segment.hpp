// A stream file as a reader sees it: what is on disk, and what a ring adds to it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace fastlog::reader {

struct ByteRange {
    std::uint64_t begin;
    std::uint64_t end;
};

/// Reads what a file is the compressed form of: up to so many bytes from an offset on, fewer at the end
/// only. Returns 0, or what the system said, and no bytes then. It is asked for
/// ascending offsets, or for 0 to begin anew, and by one thread at a time.
using ReadOn =
    std::function<int(std::uint64_t offset, char* to, std::size_t count, std::size_t& taken)>;

struct Segment {
    std::string path;             // empty: `read_on` knows it
    bool whole = true;            // all of the file counts, and `kept` means nothing
    std::vector<ByteRange> kept;  // else these bytes of it
    std::string_view pending;     // what follows them
    ReadOn read_on;               // if the file is compressed; `kept` is of what this reads
    ReadOn read_moved;            // the same, if it is not, but may be by the time it is read
};

constexpr std::uint64_t kUnknownSize = UINT64_MAX;

/// A segment, opened for reading.
class SegmentFile {
  public:
    /// Once `cancelled` is set, no more is read of a compressed file: it may be of any length.
    explicit SegmentFile(const Segment& segment, const std::atomic<bool>* cancelled = nullptr);
    SegmentFile(const SegmentFile&) = delete;
    SegmentFile& operator=(const SegmentFile&) = delete;
    ~SegmentFile();

    /// 0, or why it cannot be opened.
    int error() const noexcept { return error_; }

    /// Bytes in it when it was opened, with what follows; kUnknownSize where reading it to its end would
    /// tell.
    std::uint64_t size() const noexcept { return size_; }

    /// Bytes on disk.
    std::uint64_t disk_size() const noexcept { return disk_size_; }

    /// Reads so many bytes; fewer at the end only. Returns 0, or what the system said; ENODATA where the
    /// file has lost bytes that its writer had in it.
    int read(std::uint64_t offset, char* to, std::size_t count, std::size_t& taken) const;

  private:
    int read_file(std::uint64_t offset, char* to, std::size_t count, std::size_t& taken) const;

    const Segment& segment_;
    const std::atomic<bool>* const cancelled_;
    int fd_ = -1;
    int error_ = 0;
    std::uint64_t size_ = 0;
    std::uint64_t disk_size_ = 0;
};

}  // namespace fastlog::reader
