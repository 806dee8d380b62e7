// The writers' labels in use in a run's directory, according to its files and rings.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "core/run_files.hpp"

namespace fastlog {

/// Labels under which a new writer with this stamp must not create files: those of existing stream files,
/// whatever their segment, and of the rings in the private directory, whose writers may be about to recreate
/// their files. What cannot be listed or read counts as absent.
std::set<std::string> labels_in_use(RunFiles& files, int directory, const std::string& stamp);

/// Whether another ring has the same label.
bool has_rival(RunFiles& files, int directory, const std::string& stamp, const std::string& label,
               FileId ring);

/// A process that holds the lock of its ring: it records in the run now.
struct LiveWriter {
    std::string label;
    std::string host;
    std::string boot;
    std::uint32_t pid = 0;
    std::uint32_t pid_namespace = 0;
    std::uint64_t process_start = 0;
};

/// The writers that live, as far as the rings of this host tell. Nothing is opened but the rings; nothing is locked
/// for longer than it takes to ask.
std::vector<LiveWriter> live_writers(RunFiles& files, const std::string& run_directory);

}  // namespace fastlog
