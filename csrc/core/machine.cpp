#include "core/machine.hpp"

#include <unistd.h>

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

// Field 22 of /proc/self/stat (proc(5)).
std::uint64_t process_start() {
    std::uint64_t start = 0;
#if defined(__linux__)
    if (std::FILE* file = std::fopen("/proc/self/stat", "re")) {
        char line[1024] = {};
        const std::size_t got = std::fread(line, 1, sizeof line - 1, file);
        std::fclose(file);
        const char* at = got != 0 ? std::strrchr(line, ')') : nullptr;  // after the command's name
        for (int field = 2; at != nullptr && field < 22; ++field) {
            at = std::strchr(at + 1, ' ');
        }
        if (at != nullptr) start = std::strtoull(at, nullptr, 10);
    }
#endif
    return start;
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
