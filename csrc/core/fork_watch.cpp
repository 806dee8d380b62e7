#include "core/fork_watch.hpp"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <cerrno>

namespace fastlog {

// Statically initialised and never destroyed: the handlers may run at any time.
struct ForkHandlers {
    static inline pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static inline ForkWatched* first = nullptr;  // guarded by mutex

    static void lock() noexcept { ::pthread_mutex_lock(&mutex); }
    static void unlock() noexcept { ::pthread_mutex_unlock(&mutex); }
    static void in_child() noexcept {
        while (ForkWatched* watched = first) {
            unlink(*watched);
            watched->notice_fork();
        }
        unlock();
    }
    static void unlink(ForkWatched& watched) noexcept {
        if (watched.link_ == nullptr) return;
        *watched.link_ = watched.next_;
        if (watched.next_ != nullptr) watched.next_->link_ = watched.link_;
        watched.link_ = nullptr;
    }
    static void install() noexcept {
        static pthread_once_t once =
            PTHREAD_ONCE_INIT;  // unlike a static's guard, valid after fork()
        ::pthread_once(&once, [] { ::pthread_atfork(&lock, &unlock, &in_child); });
    }
};

NoFork::NoFork() noexcept {
    ForkHandlers::install();
    ForkHandlers::lock();
}
NoFork::~NoFork() { ForkHandlers::unlock(); }

void ForkWatched::watch() noexcept {
    const NoFork no_fork;
    if (link_ != nullptr) return;  // already watched
    next_ = ForkHandlers::first;
    if (next_ != nullptr) next_->link_ = &next_;
    link_ = &ForkHandlers::first;
    ForkHandlers::first = this;
}

void ForkWatched::forget() noexcept {
    const NoFork no_fork;
    ForkHandlers::unlink(*this);
}

int LockDescriptor::open(int directory, const std::string& path, int flags, mode_t mode) noexcept {
    watch();
    {
        const NoFork no_fork;  // the child's handler knows every descriptor that it inherits
        fd_ = files_.open(directory, path, flags, mode);
        const int code = errno;
        id_ = files_.id_of(fd_);
        errno = code;
    }
    if (fd_ < 0) {
        const int code = errno;
        forget();
        errno = code;
    }
    return fd_;
}

void LockDescriptor::keep() noexcept {
    const NoFork no_fork;
    fd_ = files_.keep(fd_);
}

void LockDescriptor::close() noexcept {
    {
        const NoFork no_fork;
        if (good()) files_.close(fd_);
        fd_ = -1;
    }
    forget();
}

void LockDescriptor::notice_fork() noexcept {
    if (good()) files_.close_in_child(fd_);
    fd_ = -1;
}

}  // namespace fastlog
