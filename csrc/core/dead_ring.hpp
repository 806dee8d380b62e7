// The records of a dead ring, put into its writer's files.
#pragma once

#include <string>

#include "core/line_inventory.hpp"
#include "core/recovery.hpp"
#include "core/ring_image.hpp"

namespace fastlog {

/// Takes stock of the files and writes what they lack. The ring, locked and open as `fd`, has the commits,
/// unless the files are a view. Outcome, reason and counts go into the report.
void drain_dead_ring(RunFiles& files, const std::string& run, int fd, RingImage& image,
                     Provenance provenance, RecoveryReport& report);

}  // namespace fastlog
