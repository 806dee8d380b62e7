// Moves aside what recovery does not trust.
#pragma once

#include <string>

#include "core/run_files.hpp"

namespace fastlog {

/// Moves a file into the directory "quarantine" of `directory`, with the reason beside it. Nothing is
/// deleted, existing files are not replaced, and a link in place of that directory is not followed.
SinkError quarantine(RunFiles& files, const std::string& directory, const std::string& path,
                     const std::string& reason);

}  // namespace fastlog
