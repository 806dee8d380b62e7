// Facts about this process and its machine. A simulation provides others (tests/sim).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace fastlog {

/// Where a ring may be stored if it cannot be stored in its run, best place first.
std::vector<std::string> temporary_places();

/// As stored in ring files.
std::string boot_id();
std::string host_name();
/// The start of this process in clock ticks since boot.
std::uint64_t process_start();

std::uint64_t random_u64();

}  // namespace fastlog
