// Writes what a dead process left in its ring file to the JSONL files, exactly once.
//
// Recovery does the flush thread's work on another process's ring. It can itself be killed at any instant and
// repeated: it commits to the ring file with the same protocol. A lock on the file (flock) shows that its
// writer, or another recovery, is running.
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
        live,         // its writer (or another recovery) holds the lock: not touched
        recovered,    // everything in it is in the files; the ring is removed
        quarantined,  // not a ring that can be trusted: moved aside, nothing deleted; see reason
        elsewhere,    // its bytes are on another host, or belong to another directory; see reason
        failed,       // a system call failed; the ring stays for another attempt; see reason
        gone,         // another recovery was faster
    };
    Outcome outcome = Outcome::failed;
    std::string ring;   // path
    std::string label;  // of its writer
    std::string reason;
    bool same_boot = true;
    std::uint64_t emitted = 0;  // lines written to the files
    std::uint64_t skipped = 0;  // records whose line was already there (power loss)
    std::uint64_t holes = 0;    // claims that their thread never completed
    std::uint64_t hole_bytes = 0;
    std::uint64_t damaged = 0;           // records that could not be rendered
    std::uint64_t cut_bytes = 0;         // removed from the files: torn ends, duplicate lines
    std::optional<std::uint64_t> epoch;  // of a dead ring's last commit, as found
};

const char* outcome_name(RecoveryReport::Outcome outcome) noexcept;

/// Whether a file is so new that, if it is empty, it may still be under construction: on a network file
/// system a name can be visible before the contents, and clocks differ.
bool is_young(const struct stat& info) noexcept;

/// Recovers one ring, named by its *.ring file or by the *.ring-at pointer in the run's private directory.
///
/// With files that are a view, nothing changes: the report, and the view's changes, say what would happen.
/// The ring is locked together with other readers, and only while it is read: if its last commit changes in
/// between, a recovery has happened. `before`: what has already been recovered there in the same pass. A copy
/// may have several rings with one label; those already recovered are no longer there to report their lines.
/// `wanted(label)`: the rings of other writers are left as they are, and reported as live.
RecoveryReport recover_ring(const std::string& run_directory, const std::string& path,
                            RunFiles& files = posix_files(),
                            const std::vector<RecoveryReport>& before = {},
                            const std::function<bool(const std::string&)>& wanted = {});

/// Recovers every ring in the run's private directory. Also removes what processes left that died while
/// creating a ring, there and where rings outside of runs are stored. Live rings are in the report as such.
/// `go_on()` is called before each ring; when it returns false, the remaining rings are left for another
/// time. `wanted(label)` as for recover_ring().
std::vector<RecoveryReport> recover_run(
    const std::string& run_directory, const std::function<bool()>& go_on = [] { return true; },
    RunFiles& files = posix_files(), const std::function<bool(const std::string&)>& wanted = {});

}  // namespace fastlog
