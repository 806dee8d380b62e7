#include "core/kill_point.hpp"

#ifdef FASTLOG_KILL_POINTS

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>

namespace fastlog {

void pass_kill_point(const char* name) noexcept {
    static std::atomic<long> passed{0};
    const char* wanted = std::getenv("FASTLOG_KILL_AT");
    if (wanted == nullptr) return;
    const std::size_t length = std::strcspn(wanted, ":");
    if (std::strlen(name) != length || std::strncmp(wanted, name, length) != 0) return;
    const long at = wanted[length] == ':' ? std::atol(wanted + length + 1) : 1;
    if (passed.fetch_add(1) + 1 == at) ::kill(::getpid(), SIGKILL);
}

}  // namespace fastlog

#endif
