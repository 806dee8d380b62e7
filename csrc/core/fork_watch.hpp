// What a forked child has to know about. fork() copies one thread: a lock held by another thread stays held,
// and an inherited descriptor keeps a file's lock alive as long as the child lives.
//
// Thread ownership: watch() and forget() by any thread (serialised by a lock under which no fork happens);
// notice_fork() by the child's only thread.
#pragma once

#include <fcntl.h>

#include <string>

#include "core/posix_files.hpp"

namespace fastlog {

/// No fork() of this process happens while one exists. For short moments: forking threads wait.
class NoFork {
  public:
    NoFork() noexcept;
    ~NoFork();
    NoFork(const NoFork&) = delete;
    NoFork& operator=(const NoFork&) = delete;
};

/// An object that is notified once in the child of a fork; the child's own forks do not concern it.
class ForkWatched {
  public:
    ForkWatched(const ForkWatched&) = delete;
    ForkWatched& operator=(const ForkWatched&) = delete;

  protected:
    ForkWatched() = default;
    virtual ~ForkWatched() = default;
    /// Begun and ended by the derived class itself: it must be fully constructed while it is watched.
    void watch() noexcept;
    void forget() noexcept;
    /// In the child, before fork() returns there. Async-signal-safe.
    virtual void notice_fork() noexcept = 0;

  private:
    friend struct ForkHandlers;
    ForkWatched* next_ = nullptr;
    ForkWatched** link_ = nullptr;  // what points here; null: not watched
};

/// A descriptor whose file may be locked (flock): a forked child closes it at once. If other code has closed
/// it, its number may belong to another file now, and is left alone.
class LockDescriptor final : ForkWatched {
  public:
    LockDescriptor() = default;
    explicit LockDescriptor(RunFiles& files) noexcept : files_(files) {}
    LockDescriptor(RunFiles& files, const std::string& path, int flags) noexcept : files_(files) {
        open(AT_FDCWD, path, flags, 0);
    }
    ~LockDescriptor() { close(); }

    /// Like RunFiles::open(); returns the number, or -1 with errno.
    int open(int directory, const std::string& path, int flags, mode_t mode) noexcept;
    /// Moves it to a number that other code does not close by mistake.
    void keep() noexcept;
    void close() noexcept;
    int get() const noexcept { return fd_; }
    /// Whether it is still open, on the file that it was opened for.
    bool good() const noexcept { return id_ && files_.id_of(fd_) == id_; }

  private:
    void notice_fork() noexcept override;

    RunFiles& files_ = posix_files();
    int fd_ = -1;
    FileId id_;
};

}  // namespace fastlog
