// The layout of a ring file, defined only here. Little-endian, offsets in bytes.
//
//        0  RingFileHeader: written once, before the file gets its name; never changed
//     4096  control words: tail and head_cache, head (64 bytes each, and 64 unused), commit epoch, drops
//     4608  commit slot 0            (kSlotOffsets)
//     5120  commit slot 1
//     5632  home notes 0 and 1       (kHomeOffsets)
//     6144  file notes               (kFileNotes of each stream)
//     7168  1 once a recovery has begun: whoever holds the lock then is a recovery, not the writer
//     7232  file notes of the fifth stream
//     8192  key table
//        .  ring data                (8192 + key_table_bytes)
//
// A commit slot says: all records before `position` are in the files up to the given offsets, exactly once,
// and no byte from `position` on has been reused. A stream whose next record waits for a device holds
// `position` back; the others are ahead of it: all records of a stream before its own position + 32 * ahead
// are in its files. The flush thread fills the slot that is not current, then stores the epoch (release),
// then moves the head: after a crash at any point, one of the two slots is valid. Protocol: two alternating
// meta pages, as in LMDB.
//
// Notes identify the writer's own files by inode; names alone do not. A directory may have been removed,
// copied or renamed, and another program's file may be in place of a segment. Notes are made before the first
// byte is written there; recovery touches no other file (see line_inventory.hpp).
//
// Version 1 had 0 in place of `ahead`; versions 1 and 2 have no notes. Versions 1 to 3 have four streams, and
// their commit slots are OldCommitSlot.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "core/mpsc_ring.hpp"
#include "core/record.hpp"

namespace fastlog {

inline constexpr char kRingMagic[8] = {'F', 'L', 'O', 'G', 'R', 'I', 'N', 'G'};
inline constexpr std::uint32_t kRingVersion = 4;
inline constexpr std::uint32_t kFirstVersionWithNotes = 3;
inline constexpr std::uint32_t kFirstVersionWithSystem = 4;

/// A stream has no more segments than this; the last one is then continued.
inline constexpr std::uint32_t kMostSegments = 1'000'000;

struct RingFileHeader {
    static constexpr std::uint32_t kTicksAreTsc = 1;

    char magic[8];
    std::uint32_t version;
    std::uint32_t flags;
    std::uint64_t file_bytes;
    std::uint64_t key_table_bytes;
    std::uint64_t ring_bytes;
    std::uint64_t salt;
    std::uint64_t run_device;  // st_dev and st_ino of the run's directory
    std::uint64_t run_inode;
    std::uint64_t segment_bytes;
    std::uint64_t process_start;  // of the writer, in clock ticks since boot
    std::uint32_t pid;
    std::int32_t rank;  // -1: none
    char uuid[40];      // text; also the file's name
    char boot_id[40];   // text
    char host[64];
    char label[192];
    char stamp[64];
    std::uint32_t pid_namespace;  // in which `pid` is meant; 0: not known
    std::uint32_t crc;            // crc32c of everything before
};
static_assert(sizeof(RingFileHeader) == 496);

/// Where a stream's next byte will be written.
struct StreamCommit {
    std::uint64_t offset;      // in the segment
    std::uint64_t seq;         // of the next line
    std::uint64_t trim_bytes;  // see has_trim
    std::uint32_t segment;
    std::uint32_t trim_segment;
    std::uint16_t exists;    // the segment has been created
    std::uint16_t has_trim;  // an earlier segment ends at trim_bytes: the rest was moved
    std::uint32_t ahead;     // in units of kRecordAlign bytes
};
static_assert(sizeof(StreamCommit) == 40);

struct CommitSlot {
    // Set by recovery: all drops have a marker; there were holes among the records before `position`.
    static constexpr std::uint32_t kDropsWritten = 1;
    static constexpr std::uint32_t kRecordsLost = 2;

    std::uint64_t epoch;
    std::uint64_t position;
    std::uint64_t anchor_ticks;  // how to interpret ticks: one moment in both clocks, and the rate
    std::int64_t anchor_wall_ns;
    double ns_per_tick;
    StreamCommit streams[kStreamCount];
    std::uint32_t flags;
    std::uint32_t crc;  // crc32c of everything before

    /// All records of the stream before this position are in its files.
    std::uint64_t stream_position(Stream stream) const noexcept {
        return position + kRecordAlign * streams[static_cast<std::size_t>(stream)].ahead;
    }
};
static_assert(sizeof(CommitSlot) == 248);

/// The same before there was the system stream.
struct OldCommitSlot {
    static constexpr std::size_t kStreams = 4;

    std::uint64_t epoch;
    std::uint64_t position;
    std::uint64_t anchor_ticks;
    std::int64_t anchor_wall_ns;
    double ns_per_tick;
    StreamCommit streams[kStreams];
    std::uint32_t flags;
    std::uint32_t crc;
};
static_assert(sizeof(OldCommitSlot) == 208);

/// Where the writer's files are, and their label. The newest complete one of two counts.
struct HomeNote {
    static constexpr std::uint32_t kRenumbers =
        1;  // inodes do not tell which files are the writer's

    std::uint64_t epoch;        // 0: unused
    std::uint64_t ring_device;  // of the ring file itself: a copy of it has another inode
    std::uint64_t ring_inode;
    std::uint64_t run_device;
    std::uint64_t run_inode;
    char label[192];
    std::uint32_t flags;
    std::uint32_t crc;  // crc32c of everything before
};
static_assert(sizeof(HomeNote) == 240);

/// A segment of a stream that the writer created, or is about to create. One of the last kFileNotes; its
/// place is the segment's number modulo that.
struct FileNote {
    std::uint64_t device;
    std::uint64_t inode;  // 0: about to be created
    std::uint32_t segment;
    std::uint32_t home;  // epoch of the home note under which it was created
    std::uint32_t used;  // 1
    std::uint32_t crc;   // crc32c of everything before
};
static_assert(sizeof(FileNote) == 32);

inline constexpr std::size_t kPageBytes = 4096;
inline constexpr std::size_t kControlOffset = kPageBytes;
inline constexpr std::size_t kEpochOffset = kControlOffset + sizeof(RingControl);
inline constexpr std::size_t kDropsOffset = kEpochOffset + kCacheLine;
inline constexpr std::size_t kSlotOffsets[2] = {kControlOffset + 512, kControlOffset + 1024};
inline constexpr std::size_t kHomeOffsets[2] = {kControlOffset + 1536, kControlOffset + 1792};
inline constexpr std::size_t kFileNotesOffset = kControlOffset + 2048;
inline constexpr std::size_t kFileNotes = 8;  // per stream; a batch begins at most two segments
inline constexpr std::size_t kKeyTableOffset = 2 * kPageBytes;
inline constexpr std::size_t kRecoveryMarkOffset = kControlOffset + 3072;
inline constexpr std::size_t kSystemNotesOffset = kRecoveryMarkOffset + kCacheLine;
constexpr std::size_t file_note_offset(Stream stream, std::uint32_t segment) noexcept {
    const std::size_t first =
        stream == Stream::system
            ? kSystemNotesOffset
            : kFileNotesOffset + static_cast<std::size_t>(stream) * kFileNotes * sizeof(FileNote);
    return first + segment % kFileNotes * sizeof(FileNote);
}
static_assert(kDropsOffset + kStreamCount * sizeof(std::uint64_t) <= kSlotOffsets[0]);
static_assert(sizeof(CommitSlot) <= 512);
static_assert(file_note_offset(Stream::log, kFileNotes - 1) + sizeof(FileNote) <=
              kRecoveryMarkOffset);
static_assert(file_note_offset(Stream::system, kFileNotes - 1) + sizeof(FileNote) <=
              kKeyTableOffset);

/// The words of the control page other than the ring's own.
using CommitEpoch = std::atomic<std::uint64_t>;
using DropCount = std::atomic<std::uint64_t>;  // one per stream: dropped, no marker yet

/// The key table grows with the ring: 64 KiB to 1 MiB.
constexpr std::size_t key_table_bytes_for(std::size_t ring_bytes) noexcept {
    const std::size_t wanted = ring_bytes / 8;
    return wanted<(std::size_t{64} << 10) ? std::size_t{64} << 10 : wanted>(std::size_t{1} << 20)
               ? std::size_t{1} << 20
               : wanted;
}

std::uint32_t header_crc(const RingFileHeader& header) noexcept;
std::uint32_t slot_crc(const CommitSlot& slot) noexcept;
std::uint32_t slot_crc(const OldCommitSlot& slot) noexcept;
OldCommitSlot to_old(const CommitSlot& slot) noexcept;  // with its checksum
CommitSlot from_old(const OldCommitSlot& slot) noexcept;
std::uint32_t note_crc(const HomeNote& note) noexcept;
std::uint32_t note_crc(const FileNote& note) noexcept;

}  // namespace fastlog
