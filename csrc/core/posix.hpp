// What the core asks of the system, said once: descriptors, whole writes, directories.
//
// Errors are values (SinkError), never exceptions: training goes on.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace fastlog {

/// What is made gets what the umask leaves of these: never writable by everybody.
inline constexpr mode_t kFileMode = 0664;
inline constexpr mode_t kDirectoryMode = 0775;

/// What the kernel answered, and about which file.
struct SinkError {
    int code = 0;  // errno; 0: no error
    std::string what;
    explicit operator bool() const noexcept { return code != 0; }
};

/// The error in errno.
SinkError failed(const char* verb, const std::string& path);

/// What helps against an error, as "free space there".
const char* remedy(int code) noexcept;

/// Which file it is, whatever its name says.
struct FileId {
    std::uint64_t device = 0;
    std::uint64_t inode = 0;  // 0: no file
    explicit operator bool() const noexcept { return inode != 0; }
    bool operator==(const FileId&) const noexcept = default;
};
FileId id_of(const struct stat& info) noexcept;
/// Of an open descriptor; none when it is closed.
FileId id_of(int fd) noexcept;
/// Of what stands under a name below a directory, a link itself; none, with errno, when nothing does.
FileId id_at(int directory, const std::string& name) noexcept;

/// Whether the directory's file system may give a file another inode from one look to the next, as some
/// FUSE and SMB mounts do.
bool may_renumber(int directory) noexcept;

/// Whether open(2) failed so because no file stands there, but nothing, a link, a pipe or a directory.
bool is_no_file(int code) noexcept;

/// A descriptor that is closed (and its lock given up) at the end of its scope.
class Descriptor {
  public:
    Descriptor() = default;
    explicit Descriptor(int fd) noexcept : fd_(fd) {}
    ~Descriptor() { reset(); }
    Descriptor(Descriptor&& other) noexcept : fd_(other.release()) {}
    Descriptor& operator=(Descriptor&& other) noexcept {
        reset(other.release());
        return *this;
    }
    int get() const noexcept { return fd_; }
    int release() noexcept { return std::exchange(fd_, -1); }
    void reset(int fd = -1) noexcept {
        if (fd_ >= 0) ::close(fd_);
        fd_ = fd;
    }

  private:
    int fd_ = -1;
};

/// openat() below a directory (AT_FDCWD: a path), close-on-exec; a signal does not end it.
int open_at(int directory, const std::string& name, int flags, mode_t mode = kFileMode) noexcept;
/// The same with a high number, for a descriptor that is kept: programs that close "all" descriptors
/// open their own under the lowest numbers, where a write of ours would reach their files.
int open_to_keep(int directory, const std::string& name, int flags,
                 mode_t mode = kFileMode) noexcept;
/// A descriptor's high number, its own closed; or its own, where none is free up there.
int moved_up(int fd) noexcept;

/// Writes all of it at an offset.
SinkError write_all(int fd, const void* bytes, std::size_t size, std::uint64_t offset,
                    const std::string& path);

/// The names in a directory below another one. False, with errno, when it cannot be listed; what was read
/// until then is there.
bool list_names(int directory, const std::string& name, std::vector<std::string>& names);

/// Makes one directory. A link or a file in its place is an error.
SinkError make_directory(const std::string& path);
/// Makes a directory and all that are missing above it, like mkdir -p.
SinkError make_directories(const std::string& path);

}  // namespace fastlog
