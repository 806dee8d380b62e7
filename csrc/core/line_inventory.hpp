// Which lines of a stream are in a dead writer's files, and which files those are.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/ring_image.hpp"
#include "core/seq_set.hpp"
#include "core/stream_files.hpp"

namespace fastlog {

/// The seq of a whole line (without its "\n") that this package has written; false for anything else:
/// torn, of NULs, or somebody else's.
bool parse_line(std::string_view line, std::uint64_t& seq);

/// What the first bytes of a file say, which may end anywhere in its first line.
struct LineHead {
    bool ours = false;      // lines of this package begin so
    bool numbered = false;  // `seq` is known
    std::uint64_t seq = 0;
};
LineHead parse_line_head(std::string_view bytes);

/// How far a dead ring's word about its writer's files goes.
struct Provenance {
    bool own_ring =
        false;  // the very file that the writer made, in the run that it recorded in: no copy
    bool same_boot = false;  // what was written in whatever order is there
    bool shared = false;  // another run has the same ring file, by a hard link: it stays as it is
    bool rival = false;   // another ring has the label: the files may be its writer's

    /// Then the commit slot's offsets and numbers hold.
    bool certain() const noexcept { return own_ring && same_boot; }
    bool power_loss() const noexcept { return own_ring && !same_boot; }
};

/// Whether there are later lines than its writer had when this ring was copied: behind the segments that
/// it notes is another one with them. A copy that is put back may get the inode of the ring that it is of.
SinkError is_outdated(RunFiles& files, const StreamFiles& sink, const RingImage& ring,
                      bool& outdated);

/// Finds out which lines of a dead writer's stream are in its files, adds their numbers to `seqs`, and
/// says in `place` where the stream goes on.
///
/// Where the ring is certain, only what lies behind its commit is read: the rest of a batch that was being
/// written, whose records are in the ring still, and the segments that it had begun. Otherwise (a power
/// loss, a copy) all of the stream's files are read, and everything goes by number.
///
/// Torn ends are cut. No whole line is taken out but what a power loss left: NULs, fragments, and lines that
/// a failed fsync had moved, which are there twice then; the file is written anew as `scratch` and moved into
/// place. `cut_bytes` counts what goes, the tail behind `place` included.
///
/// Files that are not the writer's count as absent and stay as they are. Which are, the ring's notes say
/// by inode; without them those that begin as lines of ours do. In a copy nobody knows: there such files
/// count, but the stream goes on in a segment of its own.
///
/// Memory is bounded by the longest line.
SinkError take_stock(RunFiles& files, const StreamFiles& sink, Stream stream, const RingImage& ring,
                     const Provenance& provenance, const std::string& scratch, StreamPlace& place,
                     SeqSet& seqs, std::uint64_t& cut_bytes);

}  // namespace fastlog
