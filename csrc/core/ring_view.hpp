// What a reader asks of a ring: what recovery would make of it, or how far its living writer is. Changes
// nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/recovery.hpp"
#include "core/ring_layout.hpp"
#include "core/shadow_files.hpp"

namespace fastlog {

/// How far a writer that is alive has noted its files as whole.
struct Writing {
    struct File {
        std::uint32_t segment = 0;
        FileId id;
    };
    std::string label;
    std::string stamp;
    StreamCommit streams[kStreamCount];
    std::vector<File> files[kStreamCount];  // its last ones
};

/// A ring as it was found. Where it could be recovered, its edits are what recovery would do.
class RingView {
  public:
    /// Looks at a ring, named as for recover_ring(), behind the changes that rings before it make. Those
    /// stay in place as long as this lives.
    RingView(const std::string& run_directory, const std::string& path, const FileEdits& before,
             ShadowFiles::Limits limits, RunFiles& disk = posix_files());

    const RecoveryReport& report() const noexcept { return report_; }
    FileEdits edits() const;
    /// Of a live ring, where it is known.
    const std::optional<Writing>& writing() const noexcept { return writing_; }
    /// Whether a recovery holds the ring.
    bool is_being_recovered() const noexcept { return at_work_; }

  private:
    void look_at_live(const std::string& run_directory, const std::string& path);

    ShadowFiles files_;
    RecoveryReport report_;
    std::optional<Writing> writing_;
    bool at_work_ = false;
};

/// The last commit of a dead ring by its path; none where anybody is at work on it, or it is gone or no
/// ring.
std::optional<std::uint64_t> dead_ring_epoch(const std::string& ring);

}  // namespace fastlog
