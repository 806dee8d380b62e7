// Facts about this process and the machine that it runs on. A simulation has others (tests/sim).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace fastlog {

/// Where a ring may lie when it cannot lie in its run, the best place first.
std::vector<std::string> temporary_places();

/// As a ring file states them.
std::string boot_id();
std::string host_name();
/// Start of this process in clock ticks since boot.
std::uint64_t process_start();

std::uint64_t random_u64();

}  // namespace fastlog
