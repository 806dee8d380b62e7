// A mutex with a condition that can be waited for until a time of CLOCK_MONOTONIC.
//
// Built on pthreads: std::condition_variable::wait_for() calls pthread_cond_clockwait(), which the
// ThreadSanitizer of common compilers does not know and reports falsely.
#pragma once

#include <pthread.h>

#include <cstdint>

#include "core/clock.hpp"

namespace fastlog {

class Monitor {
  public:
    Monitor() noexcept {
        pthread_condattr_t attributes;
        ::pthread_condattr_init(&attributes);
#if !defined(__APPLE__)
        ::pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
#endif
        ::pthread_cond_init(&condition_, &attributes);
        ::pthread_condattr_destroy(&attributes);
        ::pthread_mutex_init(&mutex_, nullptr);
    }
    ~Monitor() {
        ::pthread_cond_destroy(&condition_);
        ::pthread_mutex_destroy(&mutex_);
    }
    Monitor(const Monitor&) = delete;
    Monitor& operator=(const Monitor&) = delete;

    void lock() noexcept { ::pthread_mutex_lock(&mutex_); }
    void unlock() noexcept { ::pthread_mutex_unlock(&mutex_); }
    void notify_all() noexcept { ::pthread_cond_broadcast(&condition_); }

    /// Waits, with the lock held, for notify_all() or until `deadline_ns` (see monotonic_ns()).
    void wait_until(std::int64_t deadline_ns) noexcept {
#if defined(__APPLE__)
        const std::int64_t left = deadline_ns - monotonic_ns();
        if (left <= 0) return;
        const timespec relative{static_cast<time_t>(left / 1'000'000'000),
                                static_cast<long>(left % 1'000'000'000)};
        ::pthread_cond_timedwait_relative_np(&condition_, &mutex_, &relative);
#else
        const timespec until{static_cast<time_t>(deadline_ns / 1'000'000'000),
                             static_cast<long>(deadline_ns % 1'000'000'000)};
        ::pthread_cond_timedwait(&condition_, &mutex_, &until);
#endif
    }

  private:
    pthread_mutex_t mutex_;
    pthread_cond_t condition_;
};

}  // namespace fastlog
