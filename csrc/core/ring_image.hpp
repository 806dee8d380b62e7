// A ring file, read into memory and checked: header, newest commit slot, key table, records.
//
// Everything in it may be damaged or hostile. read() rejects what is not a ring; next() returns only records
// whose stamp, bounds and checksum are right.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/ring_layout.hpp"
#include "core/run_files.hpp"

namespace fastlog {

class RingImage {
  public:
    static constexpr std::uint64_t kMostRingBytes = std::uint64_t{64} << 20;
    static constexpr std::uint64_t kLeastRingBytes = 1024;
    static constexpr std::uint64_t kMostKeyTableBytes = std::uint64_t{1} << 20;

    /// The reason for a ring that may be intact, but that this version cannot read.
    static constexpr const char* kNewerVersion =
        "written by a newer version of foundry_fastlog: recover with that version";

    /// Reads the file of `fd`. Null with the reason if it is not a ring that can be trusted; null without a
    /// reason, with errno, if a system call failed or memory ran out. Allocates at most as much as a real
    /// ring has.
    static std::unique_ptr<RingImage> read(RunFiles& files, int fd, std::string& reason);

    /// The header and the home note of the ring of `fd`, which may be live. Reads two pages. Null if it is
    /// not a ring, is of a newer version, or memory ran out.
    static std::unique_ptr<RingImage> look(RunFiles& files, int fd);

    /// The same with the newest commit; null if no commit is complete. A live writer may be changing both.
    static std::unique_ptr<RingImage> look_at_commit(RunFiles& files, int fd);

    /// The label of the ring of `fd`, if its writer has this stamp. Reads two pages.
    static bool read_label(RunFiles& files, int fd, const std::string& stamp, std::string& label);

    /// Whether the file of `fd` is the ring with that uuid, and its writer died before it could record
    /// anything or had finished opening. Reads two pages.
    static bool is_unused(RunFiles& files, int fd, std::string_view uuid);

    const RingFileHeader& header() const noexcept { return header_; }
    /// Where the writer's files are. For an older ring, taken from its header, with epoch 0.
    const HomeNote& home() const noexcept { return home_; }
    /// Whether the ring says which files belong to its writer. Otherwise only names do.
    bool has_notes() const noexcept {
        return home_.epoch != 0 && (home_.flags & HomeNote::kRenumbers) == 0;
    }
    /// Whether it has this stream, and a place for it in its commit slots.
    bool has(Stream stream) const noexcept {
        return static_cast<std::size_t>(stream) <
               (header_.version < kFirstVersionWithSystem ? OldCommitSlot::kStreams : kStreamCount);
    }
    /// The note about one of the last segments that the writer created; null if there is none.
    const FileNote* file_note(Stream stream, std::uint32_t segment) const noexcept;
    std::vector<std::uint32_t> noted_segments(Stream stream) const;
    /// Whether a recovery of it has begun: then its writer is dead, whoever holds the lock.
    bool has_recovery_mark() const noexcept;
    /// The newest complete slot.
    const CommitSlot& slot() const noexcept { return slot_; }
    const std::byte* key_table() const noexcept { return bytes_.get() + kKeyTableOffset; }
    /// Drops of a stream that no line reports.
    std::uint64_t drops(Stream stream) const noexcept;

    /// Whether the tail bounds the records: after a power loss its page may be older than theirs.
    void trust_tail(bool trusted) noexcept;
    /// The next committed record at or after `position`: skips padding, and holes left by a killed thread.
    /// Null at the end.
    const RecordHeader* next(std::uint64_t& position, std::uint64_t& holes,
                             std::uint64_t& hole_bytes) const noexcept;

  private:
    RingImage() = default;
    bool read_control(RunFiles& files, int fd);
    std::uint64_t tail() const noexcept;
    bool check_header(std::uint64_t file_bytes, std::string& reason) const;
    bool choose_slot(std::string& reason);
    void choose_home() noexcept;
    bool check_keys(std::string& reason) const;
    const RecordHeader* record_at(std::uint64_t position) const noexcept;

    struct Free {
        void operator()(std::byte* bytes) const noexcept;
    };
    RingFileHeader header_{};
    CommitSlot slot_{};
    HomeNote home_{};
    FileNote file_notes_[kStreamCount][kFileNotes]{};
    std::unique_ptr<std::byte, Free> bytes_;  // the whole file, aligned to a page
    std::uint64_t end_ = 0;                   // no record starts at or after this position
    bool tail_trusted_ = false;
    mutable std::uint64_t mismatched_ = 0;  // bytes of records with a wrong checksum
};

}  // namespace fastlog
