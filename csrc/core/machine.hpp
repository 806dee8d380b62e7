// Facts about this process and its machine. A simulation provides others (tests/sim).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace fastlog {

/// Where a ring may be stored if it cannot be stored in its run, best place first.
std::vector<std::string> temporary_places();

/// As stored in ring files.
std::string boot_id();
std::string host_name();
/// The start of this process in clock ticks since boot.
std::uint64_t process_start();
/// Whether a process of this namespace, which began then, has ended.
bool process_has_ended(std::uint32_t pid, std::uint64_t start);
/// Whether a process is known to have ended: it was on this machine, since it started last, and its number means
/// the same here.
bool has_ended_here(std::uint32_t pid, std::uint64_t start, std::uint32_t number_space,
                    std::string_view boot);
/// Where this process's numbers of processes are meant; 0 if that is not known.
std::uint32_t pid_namespace();

std::uint64_t random_u64();

}  // namespace fastlog
