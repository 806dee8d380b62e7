// The core's interface to the system for a run's files, one function per system call.
//
// Implemented by the system itself (PosixFiles) and by a view that changes nothing (ShadowFiles). Code that
// finishes, reads or continues a dead writer's files, or writes a live one's, gets its RunFiles from its
// creator and never calls the system directly.
//
// Like the system calls, functions return -1 (or false) with errno. Signals do not interrupt them.
// Descriptors are valid only for the RunFiles that returned them.
#pragma once

#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/posix.hpp"

namespace fastlog {

class RunFiles {
  public:
    /// openat(2) below a directory (AT_FDCWD: a path), close-on-exec.
    virtual int open(int directory, const std::string& name, int flags,
                     mode_t mode = kFileMode) noexcept = 0;
    /// Moves a descriptor to a number that other code in this process does not close by mistake, if possible;
    /// returns its number.
    virtual int keep(int fd) noexcept { return fd; }
    virtual int close(int fd) noexcept = 0;
    /// For the child of a fork: async-signal-safe.
    virtual void close_in_child(int fd) noexcept = 0;
    virtual int stat(int fd, struct stat& info) noexcept = 0;
    /// For what has this name, a link itself.
    virtual int stat_at(int directory, const std::string& name, struct stat& info) noexcept = 0;
    /// For a path, through links.
    virtual int stat_path(const std::string& path, struct stat& info) noexcept = 0;
    virtual ssize_t read_at(int fd, void* into, std::size_t size,
                            std::uint64_t offset) noexcept = 0;
    virtual ssize_t write_at(int fd, const void* bytes, std::size_t size,
                             std::uint64_t offset) noexcept = 0;
    /// Appends a range of a file to another file whose size is `end`.
    virtual int append_range(int from, std::uint64_t begin, std::uint64_t size, int to,
                             std::uint64_t end) noexcept = 0;
    virtual int cut(int fd, std::uint64_t size) noexcept = 0;
    virtual int sync(int fd) noexcept = 0;
    virtual int change_mode(int fd, mode_t mode) noexcept = 0;
    virtual int make_directory(const std::string& path) noexcept = 0;
    virtual int rename(int directory, const std::string& name, int to_directory,
                       const std::string& to_name) noexcept = 0;
    virtual int unlink(int directory, const std::string& name) noexcept = 0;
    /// The names in a directory below another one. After a failure, contains what was read before.
    virtual bool list(int directory, const std::string& name,
                      std::vector<std::string>& names) noexcept = 0;
    /// flock(2).
    virtual int lock(int fd, int operation) noexcept = 0;
    /// Whether the directory's file system may show a file with different inodes over time, as some FUSE and
    /// SMB mounts do.
    virtual bool may_renumber(int directory) noexcept = 0;
    /// Whether stores to a mapped file in this directory are reliable. (No ring is created in a view.)
    virtual bool suits_mapping(const std::string& directory) noexcept;
    /// Reserves the space for a file's first bytes, if the system can.
    virtual int allocate(int fd, std::uint64_t size) noexcept;
    /// Maps a file's first bytes, shared, for this process and not for its children; null with errno.
    virtual void* map(int fd, std::size_t size) noexcept;
    virtual void unmap(void* base, std::size_t size) noexcept;
    /// Whether a mapping of the file keeps the open file, and so its lock: flock(2) ends with the last
    /// reference to it.
    virtual bool mapping_holds_lock(int fd) noexcept;
    /// Whether changes are visible only here: then rings and marks stay unchanged.
    virtual bool is_view() const noexcept = 0;

    /// As open(), for a descriptor that is kept.
    int open_to_keep(int directory, const std::string& name, int flags,
                     mode_t mode = kFileMode) noexcept {
        const int fd = open(directory, name, flags, mode);
        return fd < 0 ? fd : keep(fd);
    }
    /// For an open descriptor; none if it is closed.
    FileId id_of(int fd) noexcept {
        struct stat info;
        return fd >= 0 && stat(fd, info) == 0 ? fastlog::id_of(info) : FileId{};
    }
    /// For what has a name below a directory, a link itself; none, with errno, if there is nothing.
    FileId id_at(int directory, const std::string& name) noexcept {
        struct stat info;
        return stat_at(directory, name, info) == 0 ? fastlog::id_of(info) : FileId{};
    }

  protected:
    ~RunFiles() = default;
};

/// A descriptor that is closed (and its lock released) at the end of its scope.
class Descriptor {
  public:
    Descriptor() = default;
    Descriptor(RunFiles& files, int fd) noexcept : files_(&files), fd_(fd) {}
    ~Descriptor() { reset(); }
    Descriptor(Descriptor&& other) noexcept : files_(other.files_), fd_(other.release()) {}
    Descriptor& operator=(Descriptor&& other) noexcept {
        reset();
        files_ = other.files_;
        fd_ = other.release();
        return *this;
    }
    int get() const noexcept { return fd_; }
    int release() noexcept { return std::exchange(fd_, -1); }
    void reset() noexcept {
        if (fd_ >= 0) files_->close(fd_);
        fd_ = -1;
    }

  private:
    RunFiles* files_ = nullptr;
    int fd_ = -1;
};

/// Writes all bytes at an offset.
SinkError write_all(RunFiles& files, int fd, const void* bytes, std::size_t size,
                    std::uint64_t offset, const std::string& path);

/// Creates one directory. A link or a file in its place is an error.
SinkError make_directory(RunFiles& files, const std::string& path);
/// Creates a directory and all missing parents, like mkdir -p.
SinkError make_directories(RunFiles& files, const std::string& path);

}  // namespace fastlog
