// Which writers' labels a run's directory knows, by its files and by its rings.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "core/run_files.hpp"

namespace fastlog {

/// Labels under which a new writer with this stamp must not make files: of the stream files that are
/// there, whatever their segment, and of the rings in the private directory, whose writers may be about
/// to make theirs anew. What cannot be listed or read counts as absent.
std::set<std::string> labels_in_use(RunFiles& files, int directory, const std::string& stamp);

/// Whether a ring other than this one has the label too.
bool has_rival(RunFiles& files, int directory, const std::string& stamp, const std::string& label,
               FileId ring);

/// A process that holds the lock of its ring: it records in the run now.
struct LiveWriter {
    std::string label;
    std::string host;
    std::uint32_t pid = 0;
};

/// The writers that live, as far as the rings of this host tell. Nothing is opened but the rings; nothing is locked
/// for longer than it takes to ask.
std::vector<LiveWriter> live_writers(RunFiles& files, const std::string& run_directory);

}  // namespace fastlog
