// A reader's view of a ring: what recovery would make of it, or the progress of its live writer. Changes
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

/// How much of its files a live writer has marked as complete.
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

/// A ring as it was found. If it could be recovered, its edits are what recovery would do.
class RingView {
  public:
    /// Reads a ring, named as for recover_ring(), on top of the changes made by the rings before it. Those
    /// stay in effect as long as this object exists.
    RingView(const std::string& run_directory, const std::string& path, const FileEdits& before,
             ShadowFiles::Limits limits, RunFiles& disk = posix_files());

    const RecoveryReport& report() const noexcept { return report_; }
    FileEdits edits() const;
    /// For a live ring, if known.
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

/// The last commit of a dead ring by its path; none if the ring is in use, gone, or not a ring.
std::optional<std::uint64_t> dead_ring_epoch(const std::string& ring);

/// The number of the newest commit of a ring that its writer, or a recovery, holds; none if nobody does.
/// Costs four system calls, and reads eight bytes.
std::optional<std::uint64_t> held_ring_epoch(const std::string& ring);

}  // namespace fastlog
