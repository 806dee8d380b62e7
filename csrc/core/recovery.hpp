// What a dead process left in its ring file, put into the JSONL exactly once.
//
// Recovery is the flush thread's work on somebody else's ring, so it can itself be killed at any
// instant and done again: it commits into the ring file by the same protocol. A lock on the file
// (flock) says that its writer, or another recovery, is at work.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/posix_files.hpp"

namespace fastlog {

struct RecoveryReport {
    enum class Outcome : std::uint8_t {
        live,         // its writer (or another recovery) holds the lock: left alone
        recovered,    // everything in it is in the files; the ring is gone
        quarantined,  // no ring that can be trusted: moved aside, nothing deleted; see reason
        elsewhere,    // its bytes are on another host, or another directory's; see reason
        failed,       // the system refused; the ring stays for another try; see reason
        gone,         // another recovery was faster
    };
    Outcome outcome = Outcome::failed;
    std::string ring;   // path
    std::string label;  // of its writer
    std::string reason;
    bool same_boot = true;
    std::uint64_t emitted = 0;  // lines written to the files
    std::uint64_t skipped = 0;  // records whose line was there already (power loss)
    std::uint64_t holes = 0;    // claims that their thread never finished
    std::uint64_t hole_bytes = 0;
    std::uint64_t damaged = 0;    // records that could not be rendered
    std::uint64_t cut_bytes = 0;  // taken out of the files: torn ends, lines that are there twice
    std::optional<std::uint64_t> epoch;  // of a dead ring's last commit, as it was found
};

const char* outcome_name(RecoveryReport::Outcome outcome) noexcept;

/// Whether a file is so new that it may be in the making, if it is empty: on a network file system a name can
/// be seen before what is in the file, and clocks differ.
bool is_young(const struct stat& info) noexcept;

/// Recovers one ring, named by its *.ring file or by the *.ring-at pointer in the run's private
/// directory.
///
/// With files that are a view nothing changes: the report, and the view's changes, say what would. The ring is
/// locked together with other readers, and only as long as it is read: one whose last commit is another one
/// then has met a recovery. `before`: what has been recovered there in the same pass. In a copy, which may have
/// several rings of one label, those are not there any more to tell of their lines.
RecoveryReport recover_ring(const std::string& run_directory, const std::string& path,
                            RunFiles& files = posix_files(),
                            const std::vector<RecoveryReport>& before = {});

/// Recovers every ring that the run's private directory has; also removes what processes left, there and
/// where rings lie outside of runs, that died while making one. Live rings are in the report as such. Before each ring `go_on()` is asked; what
/// is left then is for another time.
std::vector<RecoveryReport> recover_run(
    const std::string& run_directory, const std::function<bool()>& go_on = [] { return true; },
    RunFiles& files = posix_files());

}  // namespace fastlog
