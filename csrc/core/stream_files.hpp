// The files of one writer: per stream a series of numbered segments, written with pwrite().
//
// Owned by the flush thread; no other thread uses a StreamFiles while it runs. Errors are returned as errno
// values and change nothing: the same write can be retried.
//
// A name is not a file: while we record, files and the whole directory may be removed, renamed, copied over
// or replaced, and our descriptors closed and their numbers reused. So a file is identified by its inode,
// names are looked up below the directory's descriptor, and files are created with O_EXCL: nothing is written
// to, cut or removed that this writer did not create. If a file system shows different inodes for a file over
// time, a file with our name, size and last bytes is ours.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/posix_files.hpp"
#include "core/ring_layout.hpp"

namespace fastlog {

struct StreamFilesOptions {
    std::string directory;  // absolute
    std::string stamp;      // follows the stream's name, "" or "_2025-09-30_14-30-00"
    std::string label;      // the writer's label without attempt, "" for the main process
    bool worker = false;    // a child process: its label ends in a pid, not in an attempt
    std::uint64_t segment_bytes = std::uint64_t{256} << 20;
    bool renumbers = false;  // inodes are known not to identify the writer's files
    RunFiles* disk = &posix_files();
};

/// A property of each stream.
using StreamFlags = std::array<bool, kStreamCount>;

/// Where the writer's own files are noted, for whoever finishes its work (FileNote).
class FileLedger {
  public:
    virtual ~FileLedger() = default;
    /// The writer's files are in this directory from now on, under this label. Uncommitted lines of the
    /// streams in `restarts` are numbered from 0.
    virtual SinkError note_home(const std::string& directory, FileId id, const std::string& label,
                                const StreamFlags& restarts) = 0;
    /// Inodes do not identify the writer's files.
    virtual void note_renumbering() {}
    /// A segment that has been created, or, without an id, is about to be.
    virtual SinkError note_file(Stream stream, std::uint32_t segment, FileId id) = 0;
};

/// Where a stream continues, as found by take_inventory().
struct StreamPlace {
    std::uint32_t segment = 0;
    std::uint64_t offset = 0;
    FileId id;  // none: the segment has not been created yet
};

class StreamFiles {
  public:
    explicit StreamFiles(StreamFilesOptions options);
    /// For recovery, with a label that is already claimed; see resume(). If the place of a first segment is
    /// taken, the next free number is used: a dead writer gets no other label.
    StreamFiles(StreamFilesOptions options, std::string label, FileLedger* ledger);
    ~StreamFiles();
    StreamFiles(const StreamFiles&) = delete;
    StreamFiles& operator=(const StreamFiles&) = delete;

    /// Creates the directory and claims a label that is not in use there, by creating the first metrics file
    /// with O_EXCL. Does nothing once that is done.
    SinkError claim();
    bool claimed() const noexcept { return claimed_; }
    const std::string& label() const noexcept { return label_; }
    /// Files, including those created so far, are noted in this ledger from now on.
    SinkError keep_notes(FileLedger* ledger);

    /// Gives up a claim under which nothing was written: removes its file.
    void withdraw() noexcept;

    /// Continues where a writer with this label was stopped; claim() is not needed then.
    SinkError resume(const StreamPlace (&places)[kStreamCount]);
    /// The stream's place as stored in a commit slot (without seq).
    StreamCommit state(Stream stream) const noexcept;

    /// True if `pending` more bytes plus `next` no longer fit into the stream's segment.
    bool wants_rotation(Stream stream, std::size_t pending, std::size_t next) const noexcept;
    /// Closes the segment; the next write opens the following one.
    void rotate(Stream stream) noexcept;

    /// Writes a prefix of `bytes` at the stream's end, with one write; `written` is how much of it is in the
    /// file, also when an error is returned. Nothing is written, without an error, if the stream has taken
    /// another label in the meantime: see restarts().
    SinkError write(Stream stream, std::string_view bytes, std::size_t& written);

    /// Detects what happened to the stream's file from outside, and makes it writable again; call once before
    /// and once after each batch. The error says what was found, `lost` how many bytes at the stream's end
    /// were lost; the sink can continue. Uncommitted bytes are removed from a file that has another name now,
    /// and have to be written again.
    SinkError check(Stream stream, std::uint64_t* lost = nullptr);
    /// Everything written so far is committed: it will not be written again.
    void note_committed() noexcept;
    /// Streams whose lines have to be numbered from 0, starting with the uncommitted ones: they have had
    /// another label since, and the earlier lines are complete under the previous one. If they are not
    /// complete, the numbers continue, because readers use them to see what is missing.
    const StreamFlags& restarts() const noexcept { return restarts_; }
    /// The lines have been renumbered.
    void note_restarted() noexcept { restarts_ = {}; }

    /// Syncs the stream's written bytes to the disk (fdatasync).
    SinkError sync(Stream stream);
    /// Whether the sync itself failed, and not just opening the file.
    bool sync_failed(Stream stream) const noexcept { return file(stream).sync_failed; }
    /// After a failed sync(): the kernel may have discarded the unsynced bytes and will not report that
    /// again, so they are copied to a new segment. The old one has to be cut at its synced length: state()
    /// says so, and trim() does it once that is committed. Fails while an earlier cut is still due.
    SinkError move_unsynced(Stream stream);
    SinkError trim(Stream stream);
    bool trim_due(Stream stream) const noexcept { return file(stream).has_trim; }

    /// Closes all descriptors; nothing is written after that.
    void close() noexcept;
    /// The run's directory; -1 before claim().
    int directory() const noexcept { return directory_.get(); }
    FileId directory_id() const noexcept { return directory_id_; }
    /// The same, reopened by name if other code closed it; -1 with errno if the name now refers to another
    /// directory (ENOENT) or cannot be opened.
    int own_directory() noexcept;
    SinkError open_directory();

    std::uint32_t segments(Stream stream) const noexcept;
    std::string name(Stream stream, std::uint32_t segment) const;
    std::string path(Stream stream, std::uint32_t segment) const;
    /// The names of the given number of segments of each stream under a label. Any thread: uses nothing that
    /// changes.
    std::vector<std::string> paths(const std::string& label,
                                   const std::uint32_t (&segments)[kStreamCount]) const;

  private:
    struct File {
        int fd = -1;
        FileId id;  // of the segment that we created; none before
        std::uint32_t segment = 0;
        std::uint64_t offset = 0;
        std::uint64_t synced = 0;  // bytes known to be on the disk
        std::uint64_t committed = 0;
        std::uint64_t seen = 0;  // bytes that were there at the last check
        std::uint64_t lost = 0;  // bytes lost with a file; reported by check()
        bool sync_failed = false;
        bool gap = false;  // committed lines at its end are lost
        bool has_trim = false;
        std::uint32_t trim_segment = 0;
        std::uint64_t trim_bytes = 0;
        FileId trim_id;
    };

    std::string name(const std::string& label, Stream stream, std::uint32_t segment) const;
    std::string candidate(unsigned n) const;
    bool open_by_name(Stream stream);
    bool is_alike(int fd, const File& f) const;
    SinkError check_replaced(Stream stream, const std::string& text, bool& ours);
    SinkError keep_made(Stream stream, int fd, const std::string& name);
    bool shows_size(int fd, const std::string& name);
    void note_renumbering();
    void unlink_own(Stream stream);
    SinkError create(Stream stream);
    SinkError write_some(File& f, Stream stream, std::string_view bytes, std::size_t& written);
    SinkError check_directory(Stream stream);
    SinkError check_file(Stream stream, std::uint64_t* lost);
    SinkError undo_uncommitted(File& f, const std::string& path);
    SinkError check_size(Stream stream, std::uint64_t size, std::uint64_t* lost);
    SinkError find_end(File& f, const std::string& path, std::uint64_t size, std::uint64_t& end);
    SinkError start_new_files(bool gone);
    bool keeps_lines(Stream stream) const;
    SinkError note(Stream stream, FileId id);
    void close_file(File& f) noexcept;
    void forget(File& f) noexcept;
    File& file(Stream stream) noexcept { return files_[static_cast<std::size_t>(stream)]; }
    const File& file(Stream stream) const noexcept {
        return files_[static_cast<std::size_t>(stream)];
    }

    const StreamFilesOptions options_;
    RunFiles& disk_ = *options_.disk;
    std::string label_;
    bool claimed_ = false;
    bool renumbers_;           // the file system may show a file with another inode
    bool renumbered_ = false;  // and it did
    bool noted_ = false;       // the ledger knows directory, label and files
    StreamFlags restarts_{};
    StreamFlags restarts_to_note_{};
    const bool recovers_ = false;
    FileLedger* ledger_ = nullptr;
    Descriptor directory_;
    FileId directory_id_;
    FileId first_id_;  // of the file whose creation claimed the label
    File files_[kStreamCount];
};

}  // namespace fastlog
