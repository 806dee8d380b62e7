// Our threads inside another program.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <new>
#include <thread>
#include <utility>

namespace fastlog {

/// Starts a thread that receives no signals except for its own faults: other signals belong to the program's
/// own threads. The memory for its exceptions is allocated at the start: otherwise a thread allocates it when
/// it throws its first one, and terminates the process if there is none. Throws std::system_error if the
/// system cannot start a thread.
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
                // The next exception finds it allocated.
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
