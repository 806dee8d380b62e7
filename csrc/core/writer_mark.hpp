// A mark for each writer that has started and not ended, `.fastlog/UUID.writer`. With it, a ring that
// somebody removed is noticed; without it, such a ring looks like a recovered one.
//
// Created after the ring and removed before it: a mark without a ring means that the ring was lost.
#pragma once

#include <cstdint>
#include <string>

#include "core/run_files.hpp"

namespace fastlog {

inline constexpr const char* kMarkSuffix = ".writer";

/// Marks a writer, with "ring LABEL" or "memory LABEL" and a newline; may be repeated with another label.
/// `run` is a path.
SinkError mark_writer(RunFiles& files, const std::string& run, const std::string& uuid,
                      bool in_memory, const std::string& label);
/// Removes the mark, once everything is in the files or in quarantine. No mark, or no uuid, is not an error.
SinkError unmark_writer(RunFiles& files, const std::string& run, const std::string& uuid);
/// Whether a writer has a mark: then its ring has been created. `unknown` without a uuid, or if the system
/// cannot tell.
enum class WriterMark : std::uint8_t { present, absent, unknown };
WriterMark find_mark(RunFiles& files, const std::string& run, const std::string& uuid);
/// The uuid in a ring's or a pointer's file name, whatever comes before it; empty if there is none.
std::string uuid_in(const std::string& path);

}  // namespace fastlog
