// What the core asks of the machine, answered by the world that runs: facts, forks, clocks, points.
// Linked in the place of csrc/core/machine.cpp, fork_watch.cpp and kill_point.cpp, and of the system's clocks.
#include <fcntl.h>
#include <time.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/clock.hpp"
#include "core/fork_watch.hpp"
#include "core/machine.hpp"
#include "world.hpp"

using sim::the_world;

extern "C" {
int __wrap_clock_gettime(clockid_t, timespec* now) {
    const std::int64_t ns = the_world() == nullptr ? 0 : the_world()->disk.now_ns;
    now->tv_sec = ns / 1'000'000'000;
    now->tv_nsec = ns % 1'000'000'000;
    return 0;
}
time_t __wrap_time(time_t* now) {
    const time_t seconds = the_world()->disk.now_ns / 1'000'000'000;
    if (now != nullptr) *now = seconds;
    return seconds;
}
int __wrap_nanosleep(const timespec* span, timespec*) {
    the_world()->sleep(span->tv_sec * 1'000'000'000 + span->tv_nsec);
    return 0;
}
int __wrap_clock_nanosleep(clockid_t, int, const timespec* span, timespec*) {
    return __wrap_nanosleep(span, nullptr);
}
}

namespace fastlog {
namespace detail {
bool tsc_is_reliable() noexcept { return false; }
}  // namespace detail

std::vector<std::string> temporary_places() { return {"/tmp"}; }
std::string boot_id() { return "boot-" + std::to_string(the_world()->boot); }
std::string host_name() { return "host"; }
std::uint64_t process_start() { return 1; }
std::uint32_t pid_namespace() { return 0; }
bool has_ended_here(std::uint32_t, std::uint64_t, std::uint32_t, std::string_view) { return false; }
std::uint64_t random_u64() { return the_world()->number_of(1'000'000 + the_world()->randoms++); }

void pass_kill_point(const char* name) noexcept { the_world()->point(name); }

// No process here forks but by a world's decision, and then inherits nothing.
NoFork::NoFork() noexcept = default;
NoFork::~NoFork() = default;
void ForkWatched::watch() noexcept {}
void ForkWatched::forget() noexcept {}
int LockDescriptor::open(int directory, const std::string& path, int flags, mode_t mode) noexcept {
    fd_ = files_.open(directory, path, flags, mode);
    id_ = files_.id_of(fd_);
    return fd_;
}
void LockDescriptor::keep() noexcept { fd_ = files_.keep(fd_); }
void LockDescriptor::close() noexcept {
    if (good()) files_.close(fd_);
    fd_ = -1;
}
void LockDescriptor::notice_fork() noexcept {}

}  // namespace fastlog
