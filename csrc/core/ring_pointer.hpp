// A run's note of a ring that lies elsewhere: a small file in its private directory with the ring's path,
// host, boot and the run's path, a line each. Its name has the ring's uuid.
#pragma once

#include <string>

#include "core/run_files.hpp"

namespace fastlog {

/// Makes the note whole or not at all: whoever finds one finds all of it.
SinkError write_pointer(RunFiles& files, const std::string& pointer, const std::string& ring);

struct RingPointer {
    std::string ring;   // path of the ring file
    std::string run;    // of the run's directory when this was made; empty where it does not say
    bool here = false;  // it was made by this host, since it was started
};

/// What a pointer says. The ring is empty with the reason set where it names none, and with errno where
/// the system refused: then the pointer may well be good.
RingPointer read_pointer(RunFiles& files, int directory, const std::string& pointer,
                         std::string& reason);

}  // namespace fastlog
