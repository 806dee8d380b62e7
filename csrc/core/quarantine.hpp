// Where recovery puts what it does not trust.
#pragma once

#include <string>

#include "core/run_files.hpp"

namespace fastlog {

/// Moves a file into the directory "quarantine" of `directory`, with the reason beside it. Nothing is
/// deleted, nothing that is there already is replaced, and a link in that directory's place is not
/// followed.
SinkError quarantine(RunFiles& files, const std::string& directory, const std::string& path,
                     const std::string& reason);

}  // namespace fastlog
