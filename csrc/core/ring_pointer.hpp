// A run's pointer to a ring stored elsewhere: a small file in its private directory with the ring's path,
// host, boot and the run's path, one per line. Its name contains the ring's uuid.
#pragma once

#include <string>

#include "core/run_files.hpp"

namespace fastlog {

/// Creates the pointer completely or not at all: whoever finds one finds all of it.
SinkError write_pointer(RunFiles& files, const std::string& pointer, const std::string& ring);

struct RingPointer {
    std::string ring;   // path of the ring file
    std::string run;    // of the run's directory when this was created; empty if unknown
    bool here = false;  // created by this host, since its last boot
};

/// Reads a pointer. If it does not name a ring, the ring is empty and the reason is set. If a system call
/// failed, errno is also set: then the pointer may well be valid.
RingPointer read_pointer(RunFiles& files, int directory, const std::string& pointer,
                         std::string& reason);

}  // namespace fastlog
