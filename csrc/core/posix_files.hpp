// A run's files as the system has them.
#pragma once

#include "core/run_files.hpp"

namespace fastlog {

/// Has no state: any thread.
class PosixFiles : public RunFiles {
  public:
    int open(int directory, const std::string& name, int flags,
             mode_t mode = kFileMode) noexcept override;
    /// A high number: programs that close "all" descriptors open their own under the lowest ones, where
    /// a write of ours would reach their files.
    int keep(int fd) noexcept override;
    int close(int fd) noexcept override;
    void close_in_child(int fd) noexcept override;
    int stat(int fd, struct stat& info) noexcept override;
    int stat_at(int directory, const std::string& name, struct stat& info) noexcept override;
    int stat_path(const std::string& path, struct stat& info) noexcept override;
    ssize_t read_at(int fd, void* into, std::size_t size, std::uint64_t offset) noexcept override;
    ssize_t write_at(int fd, const void* bytes, std::size_t size,
                     std::uint64_t offset) noexcept override;
    int append_range(int from, std::uint64_t begin, std::uint64_t size, int to,
                     std::uint64_t end) noexcept override;
    int cut(int fd, std::uint64_t size) noexcept override;
    int sync(int fd) noexcept override;
    int change_mode(int fd, mode_t mode) noexcept override;
    int make_directory(const std::string& path) noexcept override;
    int rename(int directory, const std::string& name, int to_directory,
               const std::string& to_name) noexcept override;
    int unlink(int directory, const std::string& name) noexcept override;
    bool list(int directory, const std::string& name,
              std::vector<std::string>& names) noexcept override;
    int lock(int fd, int operation) noexcept override;
    bool may_renumber(int directory) noexcept override;
    /// Not where pages are copied on write (a full disk would be a SIGBUS), nor where another machine keeps
    /// them.
    bool suits_mapping(const std::string& directory) noexcept override;
    int allocate(int fd, std::uint64_t size) noexcept override;
    void* map(int fd, std::size_t size) noexcept override;
    void unmap(void* base, std::size_t size) noexcept override;
    /// Not on overlayfs, which maps the file below its own.
    bool mapping_holds_lock(int fd) noexcept override;
    bool is_view() const noexcept override { return false; }

  protected:
    ~PosixFiles() = default;
};

/// mmap(2), readable and writable. A forked child's mapping would keep a file's lock, too: there is no moment
/// in which it gets one.
void* map_unforked(std::size_t size, int flags, int fd) noexcept;

/// The one that everybody shares who has no other.
PosixFiles& posix_files() noexcept;

}  // namespace fastlog
