// A mark for each writer that has begun and not ended, `.fastlog/UUID.writer`. A ring that somebody removed
// is missed by it; without it that looks like one that was recovered.
//
// Made behind the ring and removed before it: who finds a mark without a ring has lost one.
#pragma once

#include <string>

#include "core/run_files.hpp"

namespace fastlog {

inline constexpr const char* kMarkSuffix = ".writer";

/// Marks a writer, with "ring LABEL" or "memory LABEL" and a newline; also again, under another label.
/// `run` is a path.
SinkError mark_writer(RunFiles& files, const std::string& run, const std::string& uuid,
                      bool in_memory, const std::string& label);
/// All of it is in the files, or in quarantine. No error where there is no mark, or no uuid.
SinkError unmark_writer(RunFiles& files, const std::string& run, const std::string& uuid);
/// Whether it has a mark: then its ring has been made.
bool is_marked(RunFiles& files, const std::string& run, const std::string& uuid);
/// Whether it certainly has none.
bool is_unmarked(RunFiles& files, const std::string& run, const std::string& uuid);
/// The uuid in a ring's or a pointer's name, with anything before it; empty when there is none.
std::string uuid_in(const std::string& path);

}  // namespace fastlog
