// Whether a ring belongs to the run in which it was found, itself or a pointer to it.
#pragma once

#include <sys/stat.h>

#include <string>

#include "core/ring_image.hpp"

namespace fastlog {

struct RingHome {
    /// `pointer` is the path of the pointer that led to the ring, or empty; `run_before` what it calls the
    /// run's directory.
    static RingHome find(RunFiles& files, const std::string& run_directory, const RingImage& ring,
                         int fd, const std::string& pointer, const std::string& run_before);

    /// Whether a file is the one that the writer made for its ring.
    bool is_ring(const struct stat& info) const noexcept;
    /// Why the ring is left alone, and what to do, where it is not of this run.
    std::string elsewhere(const std::string& ring, const std::string& pointer) const;

    bool of_this_run = false;
    /// Whether the machine has run on since, with the run's file system mounted as it was. Otherwise devices
    /// say nothing, and lines go by number.
    bool same_boot = false;

  private:
    HomeNote note_{};
    std::string other_;  // the directory that it does belong to, where that is known
};

}  // namespace fastlog
