// Removes what processes leave behind that die while creating a ring or a pointer. It contains no records.
#pragma once

#include <string>

#include "core/run_files.hpp"

namespace fastlog {

/// Removes an unfinished ring or pointer in a run's private directory, unless its creator is alive. The
/// creator of a ring holds a lock on it while it is empty; for a pointer, only its age is known.
void sweep_unfinished(RunFiles& files, const std::string& path, bool locked);

/// Removes this user's unfinished rings stored outside of runs, and complete ones whose creators died before
/// a run had a pointer to them. Files that are locked, new, or not named or created like ours stay.
void sweep_ring_places(RunFiles& files);

}  // namespace fastlog
