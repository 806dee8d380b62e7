#include "core/machine.hpp"

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include "core/clock.hpp"

#if FASTLOG_HAS_TSC
#include <cpuid.h>
#endif
#if !defined(__linux__)
#include <sys/sysctl.h>
#endif

namespace fastlog {
namespace detail {

bool tsc_is_reliable() noexcept {
#if FASTLOG_HAS_TSC
    unsigned a = 0;
    unsigned b = 0;
    unsigned c = 0;
    unsigned d = 0;
    // Invariant TSC: CPUID 8000_0007H, EDX bit 8 (Intel SDM vol. 3, 17.17.1).
    if (__get_cpuid(0x80000007u, &a, &b, &c, &d) == 0 || (d & (1u << 8)) == 0) return false;
    // The kernel's watchdog compares the counters of all cores: trust the counter only if the kernel does.
    std::FILE* file =
        std::fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "re");
    if (file == nullptr) return false;
    char name[16] = {};
    const std::size_t got = std::fread(name, 1, sizeof name - 1, file);
    std::fclose(file);
    return got >= 4 && std::memcmp(name, "tsc\n", 4) == 0;
#else
    return false;
#endif
}

}  // namespace detail

std::uint64_t random_u64() {
    std::random_device device;
    return (static_cast<std::uint64_t>(device()) << 32) | device();
}

namespace {

struct ProcessStat {
    bool has_ended = false;
    std::uint64_t start = 0;  // in clock ticks since boot; 0: it cannot be read
};

// Fields 3, 9 and 22 of /proc/PID/stat (proc(5)).
ProcessStat read_stat([[maybe_unused]] const std::string& path) {
    ProcessStat found;
#if defined(__linux__)
    if (std::FILE* file = std::fopen(path.c_str(), "re")) {
        char line[1024] = {};
        const std::size_t got = std::fread(line, 1, sizeof line - 1, file);
        std::fclose(file);
        const char* at = got != 0 ? std::strrchr(line, ')') : nullptr;  // after the command's name
        // A zombie, which nobody has waited for, or about to be one (PF_EXITING): its locks may be free already.
        if (at != nullptr && at[1] == ' ') found.has_ended = at[2] == 'Z' || at[2] == 'X';
        for (int field = 2; at != nullptr && field < 22; ++field) {
            if (field == 9) found.has_ended |= (std::strtoull(at, nullptr, 10) & 4) != 0;
            at = std::strchr(at + 1, ' ');
        }
        if (at != nullptr) found.start = std::strtoull(at, nullptr, 10);
    }
#endif
    return found;
}

}  // namespace

std::uint64_t process_start() { return read_stat("/proc/self/stat").start; }

bool process_has_ended(std::uint32_t pid, std::uint64_t start) {
    if (::kill(static_cast<pid_t>(pid), 0) != 0 && errno == ESRCH) return true;
    const ProcessStat found = read_stat("/proc/" + std::to_string(pid) + "/stat");
    if (found.has_ended) return true;
    return found.start != 0 && start != 0 && found.start != start;
}

std::uint32_t pid_namespace() {
#if defined(__linux__)
    struct stat status{};
    if (::stat("/proc/self/ns/pid", &status) == 0) {
        return static_cast<std::uint32_t>(status.st_ino);
    }
#endif
    return 0;
}

bool has_ended_here(std::uint32_t pid, std::uint64_t start, std::uint32_t number_space,
                    std::string_view boot) {
    return number_space != 0 && number_space == pid_namespace() && boot == boot_id() &&
           process_has_ended(pid, start);
}

std::vector<std::string> temporary_places() {
    std::vector<std::string> places;
    const char* temporary = std::getenv("TMPDIR");
    // Not if a pointer, which stores the path on one line, could not represent it.
    if (temporary != nullptr && *temporary == '/' && std::strpbrk(temporary, "\n\r") == nullptr) {
        places.emplace_back(temporary);
    }
    places.insert(places.end(), {"/var/tmp", "/tmp"});
    return places;
}

std::string boot_id() {
#if defined(__linux__)
    std::string id;
    if (std::FILE* file = std::fopen("/proc/sys/kernel/random/boot_id", "re")) {
        char text[40] = {};
        const std::size_t got = std::fread(text, 1, 36, file);
        std::fclose(file);
        id.assign(text, got);
    }
    return id;
#else
    char text[64] = {};
    std::size_t size = sizeof text - 1;
    if (::sysctlbyname("kern.bootsessionuuid", text, &size, nullptr, 0) != 0) return {};
    return std::string(text).substr(0, 36);
#endif
}

std::string host_name() {
    char name[256] = {};
    if (::gethostname(name, sizeof name - 1) != 0) return {};
    return std::string(name).substr(0, 63);
}

}  // namespace fastlog
