// The list of a run's writers, `.fastlog/writers`: who has begun, and who has ended with all in the files.
// A ring that somebody removed is missed by it; without it that looks like one that was recovered.
//
// Appended to by all processes of a run, whole lines at a time; nothing is ever taken out. A writer
// begins behind its ring, and ends before that goes: who finds a begin without an end looks for the ring.
#pragma once

#include <string>

#include "core/posix.hpp"

namespace fastlog {

inline constexpr const char* kWritersFile = "writers";

/// "begin UUID memory LABEL" or "begin UUID ring LABEL". Makes the file. `run` is a path.
SinkError note_writer_begins(const std::string& run, const std::string& uuid, bool in_memory,
                             const std::string& label);
/// "end UUID". No error where there is no list. `run` is a descriptor.
SinkError note_writer_ends(int run, const std::string& uuid);
/// The uuid in a ring's or a pointer's name, with anything before it; empty when there is none.
std::string uuid_in(const std::string& path);

}  // namespace fastlog
