// What a forked child has to know of. fork() copies one thread: a lock that another one held stays held,
// and an inherited descriptor keeps a file's lock alive for as long as the child lives.
//
// Thread ownership: watch() and forget() by any thread (a lock that no fork happens under serialises
// them); notice_fork() by the child's only thread.
#pragma once

#include <fcntl.h>

#include <string>

#include "core/posix_files.hpp"

namespace fastlog {

/// No fork() of this process happens while one lives. For moments: whoever forks waits.
class NoFork {
  public:
    NoFork() noexcept;
    ~NoFork();
    NoFork(const NoFork&) = delete;
    NoFork& operator=(const NoFork&) = delete;
};

/// An object that is told in the child of a fork, once: the child's own forks are no matter of it.
class ForkWatched {
  public:
    ForkWatched(const ForkWatched&) = delete;
    ForkWatched& operator=(const ForkWatched&) = delete;

  protected:
    ForkWatched() = default;
    virtual ~ForkWatched() = default;
    /// The derived class begins and ends it itself: while it is watched, it has to be whole.
    void watch() noexcept;
    void forget() noexcept;
    /// In the child, before fork() returns there. Async-signal-safe.
    virtual void notice_fork() noexcept = 0;

  private:
    friend struct ForkHandlers;
    ForkWatched* next_ = nullptr;
    ForkWatched** link_ = nullptr;  // what points here; null: not watched
};

/// A descriptor whose file may be locked (flock): a forked child closes it at once. Where somebody closed it
/// below us, its number may be another file's by now, and is left alone.
class LockDescriptor final : ForkWatched {
  public:
    LockDescriptor() = default;
    explicit LockDescriptor(RunFiles& files) noexcept : files_(files) {}
    LockDescriptor(RunFiles& files, const std::string& path, int flags) noexcept : files_(files) {
        open(AT_FDCWD, path, flags, 0);
    }
    ~LockDescriptor() { close(); }

    /// As RunFiles::open(); the number, or -1 with errno.
    int open(int directory, const std::string& path, int flags, mode_t mode) noexcept;
    /// Gives it a number that other code does not close by mistake.
    void keep() noexcept;
    void close() noexcept;
    int get() const noexcept { return fd_; }
    /// Whether it is open still, on the file that it was opened for.
    bool good() const noexcept { return id_ && files_.id_of(fd_) == id_; }

  private:
    void notice_fork() noexcept override;

    RunFiles& files_ = posix_files();
    int fd_ = -1;
    FileId id_;
};

}  // namespace fastlog
