// A run's note of a ring that lies elsewhere: a small file in its private directory with the ring's path,
// host and boot, a line each. Its name has the ring's uuid.
#pragma once

#include <string>

#include "core/posix.hpp"

namespace fastlog {

/// Makes the note whole or not at all: whoever finds one finds all of it.
SinkError write_pointer(const std::string& pointer, const std::string& ring);

/// The path that a pointer names. Empty with the reason set where it names none, and with errno where
/// the system refused: then the pointer may well be good.
std::string read_pointer(int directory, const std::string& pointer, std::string& reason);

}  // namespace fastlog
