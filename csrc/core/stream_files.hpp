// The files of one writer: per stream a series of numbered segments, written with pwrite().
//
// Owned by the flush thread; nobody else touches a StreamFiles while that runs. Errors are returned as
// errno values and change nothing: the same write can be tried again.
//
// A name is not a file: while we record, files and the whole directory may be removed, renamed, copied
// over or replaced, and our descriptors closed and their numbers used by others. So a file is known by
// its inode, names are looked up below the descriptor of the directory, and what is made is made with
// O_EXCL: nothing is written to, cut or removed that this writer did not make. Where a file system gives a
// file another inode from one look to the next, a file that has our name, size and last bytes is ours.
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
    std::string stamp;      // goes behind the stream's name, "" or "_2025-09-30_14-30-00"
    std::string label;      // the writer's label without attempt, "" for the main process
    bool worker = false;    // a child process: its label ends in a pid, not in an attempt
    std::uint64_t segment_bytes = std::uint64_t{256} << 20;
    bool renumbers = false;  // inodes are known not to tell which files are the writer's
    RunFiles* disk = &posix_files();
};

/// Something that holds for each stream, or not.
using StreamFlags = std::array<bool, kStreamCount>;

/// Where it is noted which files are the writer's own, for whoever finishes its work (FileNote).
class FileLedger {
  public:
    virtual ~FileLedger() = default;
    /// The writer's files lie in this directory from now on, under this label. What is not committed of
    /// the streams in `restarts` is numbered from 0.
    virtual SinkError note_home(const std::string& directory, FileId id, const std::string& label,
                                const StreamFlags& restarts) = 0;
    /// Inodes do not tell which files are the writer's.
    virtual void note_renumbering() {}
    /// A segment that has been made, or, without an id, is about to be.
    virtual SinkError note_file(Stream stream, std::uint32_t segment, FileId id) = 0;
};

/// Where a stream goes on: what take_stock() found.
struct StreamPlace {
    std::uint32_t segment = 0;
    std::uint64_t offset = 0;
    FileId id;  // none: the segment is still to be made
};

class StreamFiles {
  public:
    explicit StreamFiles(StreamFilesOptions options);
    /// For recovery, with a label that is claimed already; see resume(). A first segment whose place is
    /// taken goes on in the next number that is free: a dead writer gets no other label.
    StreamFiles(StreamFilesOptions options, std::string label, FileLedger* ledger);
    ~StreamFiles();
    StreamFiles(const StreamFiles&) = delete;
    StreamFiles& operator=(const StreamFiles&) = delete;

    /// Makes the directory and claims a label that it does not know yet, by creating the first metrics
    /// file with O_EXCL. Once done, does nothing.
    SinkError claim();
    bool claimed() const noexcept { return claimed_; }
    const std::string& label() const noexcept { return label_; }
    /// From now on (and for what was made so far) files are noted there.
    SinkError keep_notes(FileLedger* ledger);

    /// Gives a claim up under which nothing was written: its file is removed.
    void withdraw() noexcept;

    /// Takes over where a writer with this label was stopped; claim() is not needed then.
    SinkError resume(const StreamPlace (&places)[kStreamCount]);
    /// The streams' places as a commit slot states them (without seq).
    StreamCommit state(Stream stream) const noexcept;

    /// True when `pending` more bytes plus `next` do not fit the stream's segment any more.
    bool wants_rotation(Stream stream, std::size_t pending, std::size_t next) const noexcept;
    /// Closes the segment; the next write opens the one behind it.
    void rotate(Stream stream) noexcept;

    /// Writes a prefix of `bytes` at the stream's end, by one write; `written` says how much of it is in
    /// the file, also when an error is returned. Nothing is, without an error, where it has taken another
    /// label meanwhile: see restarts().
    SinkError write(Stream stream, std::string_view bytes, std::size_t& written);

    /// Notices what happened to the stream's file from outside, and makes it writable again; call once
    /// before a batch and once behind it. The error says what was found, `lost` how many bytes at the
    /// stream's end went with it; the sink can go on. What was not committed is taken back from a file
    /// that has another name now: it is to be written again.
    SinkError check(Stream stream, std::uint64_t* lost = nullptr);
    /// What is written so far is committed: it is not written again.
    void note_committed() noexcept;
    /// Streams whose lines are to be numbered from 0, beginning with those that are not committed: they
    /// have another label since, and the lines before are whole under the one that was left. Where they
    /// are not, the numbers go on: readers tell by them what is missing.
    const StreamFlags& restarts() const noexcept { return restarts_; }
    /// The lines have those numbers now.
    void note_restarted() noexcept { restarts_ = {}; }

    /// Puts the stream's written bytes on the disk (fdatasync).
    SinkError sync(Stream stream);
    /// Whether that was refused, and not just the file not opened.
    bool sync_failed(Stream stream) const noexcept { return file(stream).sync_failed; }
    /// After a failed sync(): the kernel may have thrown the unsynced bytes away and will not say so
    /// again, so they are copied into a new segment. The old one is to be cut at its synced length:
    /// state() says so, and trim() does it once that is committed. Refused while an earlier cut is due.
    SinkError move_unsynced(Stream stream);
    SinkError trim(Stream stream);
    bool trim_due(Stream stream) const noexcept { return file(stream).has_trim; }

    /// Closes all descriptors; nothing is written from then on.
    void close() noexcept;
    /// The run's directory; -1 before claim().
    int directory() const noexcept { return directory_.get(); }
    FileId directory_id() const noexcept { return directory_id_; }
    /// The same, opened again by name if it was closed below us; -1 with errno where the name is not
    /// its own any more (ENOENT) or cannot be opened.
    int own_directory() noexcept;
    SinkError open_directory();

    std::uint32_t segments(Stream stream) const noexcept;
    std::string name(Stream stream, std::uint32_t segment) const;
    std::string path(Stream stream, std::uint32_t segment) const;
    /// The names of so many segments of each stream under a label. Any thread: nothing that changes is
    /// looked at.
    std::vector<std::string> paths(const std::string& label,
                                   const std::uint32_t (&segments)[kStreamCount]) const;

  private:
    struct File {
        int fd = -1;
        FileId id;  // of the segment that we made; none before
        std::uint32_t segment = 0;
        std::uint64_t offset = 0;
        std::uint64_t synced = 0;  // bytes known to be on the disk
        std::uint64_t committed = 0;
        std::uint64_t seen = 0;  // bytes that were there when it was last looked at
        std::uint64_t lost = 0;  // bytes that went with a file; check() tells
        bool sync_failed = false;
        bool gap = false;  // committed lines at its end are gone
        bool has_trim = false;
        std::uint32_t trim_segment = 0;
        std::uint64_t trim_bytes = 0;
        FileId trim_id;
    };

    std::string name(const std::string& label, Stream stream, std::uint32_t segment) const;
    std::string candidate(unsigned n) const;
    bool open_by_name(Stream stream);
    bool is_alike(int fd, const File& f) const;
    SinkError look_again(Stream stream, const std::string& text, bool& ours);
    SinkError keep_made(Stream stream, int fd, const std::string& name);
    bool shows_size(int fd, const std::string& name);
    void note_renumbering();
    void unlink_own(Stream stream);
    SinkError create(Stream stream);
    SinkError write_some(File& f, Stream stream, std::string_view bytes, std::size_t& written);
    SinkError check_directory(Stream stream);
    SinkError check_file(Stream stream, std::uint64_t* lost);
    SinkError take_back(File& f, const std::string& path);
    SinkError check_size(Stream stream, std::uint64_t size, std::uint64_t* lost);
    SinkError find_end(File& f, const std::string& path, std::uint64_t size, std::uint64_t& end);
    SinkError move_house(bool gone);
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
    bool renumbers_;           // the file system may give a file another inode
    bool renumbered_ = false;  // and did
    bool noted_ = false;       // the ledger knows directory, label and files
    StreamFlags restarts_{};
    StreamFlags restarts_to_note_{};
    const bool recovers_ = false;
    FileLedger* ledger_ = nullptr;
    Descriptor directory_;
    FileId directory_id_;
    FileId first_id_;  // of the file by which the label was claimed
    File files_[kStreamCount];
};

}  // namespace fastlog
