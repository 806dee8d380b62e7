// The writers' labels in use in a run's directory, according to its files and rings.
#pragma once

#include <set>
#include <string>

#include "core/run_files.hpp"

namespace fastlog {

/// Labels under which a new writer with this stamp must not create files: those of existing stream files,
/// whatever their segment, and of the rings in the private directory, whose writers may be about to recreate
/// their files. What cannot be listed or read counts as absent.
std::set<std::string> labels_in_use(RunFiles& files, int directory, const std::string& stamp);

/// Whether another ring has the same label.
bool has_rival(RunFiles& files, int directory, const std::string& stamp, const std::string& label,
               FileId ring);

}  // namespace fastlog
