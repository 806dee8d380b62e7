// Decides whether a ring belongs to the run in which it, or a pointer to it, was found.
#pragma once

#include <sys/stat.h>

#include <string>

#include "core/ring_image.hpp"

namespace fastlog {

struct RingHome {
    /// `pointer` is the path of the pointer that led to the ring, or empty; `run_before` is the path of the
    /// run's directory in that pointer.
    static RingHome find(RunFiles& files, const std::string& run_directory, const RingImage& ring,
                         int fd, const std::string& pointer, const std::string& run_before);

    /// Whether a file is the one that the writer created for its ring.
    bool is_ring(const struct stat& info) const noexcept;
    /// Why the ring is left alone, and what to do, if it does not belong to this run.
    std::string elsewhere(const std::string& ring, const std::string& pointer) const;

    bool of_this_run = false;
    /// Whether the machine has kept running since, with the run's file system still mounted. Otherwise device
    /// numbers mean nothing, and lines are matched by number.
    bool same_boot = false;

  private:
    HomeNote note_{};
    std::string other_;  // the directory that it belongs to, if known
};

}  // namespace fastlog
