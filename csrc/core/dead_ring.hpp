// Writes the records of a dead ring to its writer's files.
#pragma once

#include <string>

#include "core/line_inventory.hpp"
#include "core/recovery.hpp"
#include "core/ring_image.hpp"

namespace fastlog {

/// Takes an inventory of the files and writes the missing lines. Commits go into the ring, locked and open as
/// `fd`, unless the files are a view. The outcome, reason and counts go into the report.
void drain_dead_ring(RunFiles& files, const std::string& run, int fd, RingImage& image,
                     Provenance provenance, RecoveryReport& report);

}  // namespace fastlog
