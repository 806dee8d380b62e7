// Finds out which files belong to a dead writer, and which lines of a stream they hold.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/ring_image.hpp"
#include "core/seq_set.hpp"
#include "core/stream_files.hpp"

namespace fastlog {

/// The seq of a complete line (without its "\n") that this package has written; false for anything else:
/// torn, NULs, or somebody else's.
bool parse_line(std::string_view line, std::uint64_t& seq);

/// What the first bytes of a file say; they may end anywhere in its first line.
struct LineHead {
    bool ours = false;      // looks like the start of a line of this package
    bool numbered = false;  // `seq` is known
    std::uint64_t seq = 0;
};
LineHead parse_line_head(std::string_view bytes);

/// How far a dead ring can be trusted about its writer's files.
struct Provenance {
    bool own_ring = false;   // the original ring file in the original run: not a copy
    bool same_boot = false;  // everything written is there, in whatever order it was written
    bool shared = false;  // another run has the same ring file, by a hard link: it stays unchanged
    bool rival = false;   // another ring has the same label: the files may be its writer's

    /// If so, the offsets and numbers in the commit slot are valid.
    bool certain() const noexcept { return own_ring && same_boot; }
    bool power_loss() const noexcept { return own_ring && !same_boot; }
};

/// Whether the files have later lines than when this ring was copied: another segment has lines after those
/// noted in the ring. A restored copy may get the inode of the original ring.
SinkError is_outdated(RunFiles& files, const StreamFiles& sink, const RingImage& ring,
                      bool& outdated);

/// Finds out which lines of a dead writer's stream are in its files, adds their numbers to `seqs`, and sets
/// `place` to where the stream continues.
///
/// If the ring is certain, only what follows its commit is read: the rest of an interrupted batch, whose
/// records are still in the ring, and the segments that it had begun. Otherwise (power loss, copy) all of the
/// stream's files are read, and lines are matched by number.
///
/// Torn ends are cut. Complete lines are removed only if a power loss left them: NULs, fragments, and
/// duplicates of lines that a failed fsync had moved; the file is rewritten as `scratch` and renamed.
/// `cut_bytes` counts the removed bytes, including the tail after `place`.
///
/// Files of other writers count as absent and stay unchanged. The ring's notes identify the writer's files by
/// inode; without notes, files that begin like our lines are its own. In a copy this is unknown: there such
/// files count, but the stream continues in a new segment.
///
/// Memory is bounded by the longest line.
SinkError take_inventory(RunFiles& files, const StreamFiles& sink, Stream stream,
                         const RingImage& ring, const Provenance& provenance,
                         const std::string& scratch, StreamPlace& place, SeqSet& seqs,
                         std::uint64_t& cut_bytes);

}  // namespace fastlog
