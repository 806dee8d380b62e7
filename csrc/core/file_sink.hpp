// The files of one writer: per stream a series of numbered segments, written with pwrite().
//
// Owned by the flush thread; nobody else touches a FileSink while that runs. Errors are returned as
// errno values and change nothing: the same write can be tried again.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/ring_layout.hpp"

namespace fastlog {

/// What is made gets what the umask leaves of these: never writable by everybody.
inline constexpr mode_t kFileMode = 0664;
inline constexpr mode_t kDirectoryMode = 0775;

struct FileSinkOptions {
    std::string directory;  // absolute
    std::string stamp;      // goes behind the stream's name, "" or "_2025-09-30_14-30-00"
    std::string label;      // the writer's label without attempt, "" for the main process
    bool worker = false;    // a child process: its label ends in a pid, not in an attempt
    std::uint64_t segment_bytes = std::uint64_t{256} << 20;
};

/// What the kernel answered, and about which file.
struct SinkError {
    int code = 0;  // errno; 0: no error
    std::string what;
    explicit operator bool() const noexcept { return code != 0; }
};

class FileSink {
  public:
    explicit FileSink(FileSinkOptions options);
    /// With a label that is claimed already; see resume().
    FileSink(FileSinkOptions options, std::string label);
    ~FileSink();
    FileSink(const FileSink&) = delete;
    FileSink& operator=(const FileSink&) = delete;

    /// Makes the directory and claims a label under which the run holds no file yet, by creating its
    /// first metrics file with O_EXCL. Once done, does nothing.
    SinkError claim();
    bool claimed() const noexcept { return claimed_; }
    const std::string& label() const noexcept { return label_; }

    /// Gives a claim up under which nothing was written: its file is removed.
    void withdraw() noexcept;

    /// Takes over where a writer with this label was stopped; claim() is not needed then. What the
    /// streams hold behind their offsets is cut off, segments behind theirs that the writer had begun
    /// are removed (`removed_bytes` counts what was in them): their records are still in the ring.
    /// Somebody else's files under such names stay.
    SinkError resume(const StreamCommit (&streams)[kStreamCount], std::uint64_t& removed_bytes);
    /// The streams' places as a commit slot states them (without seq).
    StreamCommit state(Stream stream) const noexcept;

    /// True when `pending` more bytes plus `next` do not fit the stream's segment any more.
    bool wants_rotation(Stream stream, std::size_t pending, std::size_t next) const noexcept;
    /// Closes the segment; the next write opens the one behind it.
    void rotate(Stream stream) noexcept;

    /// Writes a prefix of `bytes` at the stream's end; `written` says how much of it is in the file,
    /// also when an error is returned.
    SinkError write(Stream stream, std::string_view bytes, std::size_t& written);

    /// Notices a file that was removed or cut while open, and makes it writable again; call once
    /// before a batch. The error says what was found, `lost` how many bytes at the stream's end went
    /// with it; the sink can go on.
    SinkError check(Stream stream, std::uint64_t* lost = nullptr);

    /// Puts the stream's written bytes on the disk (fdatasync).
    SinkError sync(Stream stream);
    /// After a failed sync(): the kernel may have thrown the unsynced bytes away and will not say so
    /// again, so they are copied into a new segment. The old one is to be cut at its synced length:
    /// state() says so, and trim() does it once that is committed.
    SinkError move_unsynced(Stream stream);
    void trim(Stream stream);

    std::uint32_t segments(Stream stream) const noexcept;
    std::string path(Stream stream, std::uint32_t segment) const;
    /// The names of so many segments of each stream under a label. Any thread: nothing that changes is
    /// looked at.
    std::vector<std::string> paths(const std::string& label,
                                   const std::uint32_t (&segments)[kStreamCount]) const;

  private:
    struct File {
        int fd = -1;
        std::uint32_t segment = 0;
        std::uint64_t offset = 0;
        std::uint64_t synced = 0;  // bytes known to be on the disk
        bool sync_failed = false;
        bool exists = false;  // this segment has been created by us
        bool has_trim = false;
        std::uint32_t trim_segment = 0;
        std::uint64_t trim_bytes = 0;
    };

    std::string path(const std::string& label, Stream stream, std::uint32_t segment) const;
    SinkError open(Stream stream);
    int create(Stream stream, File& f, std::string& name) const;
    SinkError write_at(File& f, Stream stream, std::string_view bytes, std::size_t& written);
    SinkError make_directory() const;
    std::string candidate(unsigned n) const;
    bool taken(const std::string& label) const;
    File& file(Stream stream) noexcept { return files_[static_cast<std::size_t>(stream)]; }
    const File& file(Stream stream) const noexcept {
        return files_[static_cast<std::size_t>(stream)];
    }

    const FileSinkOptions options_;
    std::string label_;
    bool claimed_ = false;
    File files_[kStreamCount];
};

}  // namespace fastlog
