// Threads of ours within somebody else's program.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <new>
#include <thread>
#include <utility>

namespace fastlog {

/// Starts a thread that gets no signals but for its own faults: they belong to the program's own threads. It has the memory for
/// its exceptions from the start: a thread takes that as it throws the first one, and ends the process if
/// there is none. Throws std::system_error when the system refuses a thread.
template <class Body>
std::thread start_quiet_thread(Body body) {
    sigset_t all;
    sigset_t old;
    ::sigfillset(&all);
    for (const int own : {SIGBUS, SIGFPE, SIGILL, SIGSEGV}) ::sigdelset(&all, own);
    ::pthread_sigmask(SIG_SETMASK, &all, &old);
    try {
        std::thread thread([body = std::move(body)]() mutable {
            try {
                throw std::bad_alloc();
            } catch (const std::bad_alloc&) {
                // The next one finds it.
            }
            body();
        });
        ::pthread_sigmask(SIG_SETMASK, &old, nullptr);
        return thread;
    } catch (...) {
        ::pthread_sigmask(SIG_SETMASK, &old, nullptr);
        throw;
    }
}

}  // namespace fastlog
