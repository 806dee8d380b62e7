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
    char* ending = nullptr;
    const long at = wanted[length] == ':' ? std::strtol(wanted + length + 1, &ending, 10) : 1;
    if (passed.fetch_add(1) + 1 != at) return;
    const bool hold = ending != nullptr && std::strcmp(ending, ":hold") == 0;
    if (!hold && (ending == nullptr || std::strcmp(ending, ":stop") != 0)) {
        ::kill(::getpid(), SIGKILL);
    }
    ::raise(SIGSTOP);
    while (hold) ::pause();
}

}  // namespace fastlog

#endif
