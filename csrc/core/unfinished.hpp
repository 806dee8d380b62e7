// What processes leave behind that die while they make a ring or a pointer. No record is in any of it.
#pragma once

#include <string>

#include "core/run_files.hpp"

namespace fastlog {

/// Removes an unfinished ring or pointer of a run's private directory, unless its maker lives. That of a
/// ring locks it while it is empty; of a pointer's nothing tells but its age.
void sweep_unfinished(RunFiles& files, const std::string& path, bool locked);

/// Removes this user's unfinished rings that lie outside of runs, and whole ones whose makers died before a
/// run had a pointer to them. What is locked, young, not named or not made as ours stays.
void sweep_ring_places(RunFiles& files);

}  // namespace fastlog
