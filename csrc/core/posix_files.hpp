// A run's files through system calls.
#pragma once

#include "core/run_files.hpp"

namespace fastlog {

/// Stateless: may be used by any thread.
class PosixFiles : public RunFiles {
  public:
    int open(int directory, const std::string& name, int flags,
             mode_t mode = kFileMode) noexcept override;
    /// Returns a high number: programs that close "all" descriptors reuse the lowest numbers, where a write
    /// of ours would reach their files.
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
    /// False if pages are copied on write (a full disk would cause SIGBUS), or if another machine stores
    /// them.
    bool suits_mapping(const std::string& directory) noexcept override;
    int allocate(int fd, std::uint64_t size) noexcept override;
    void* map(int fd, std::size_t size) noexcept override;
    void unmap(void* base, std::size_t size) noexcept override;
    /// False on overlayfs, which maps the underlying file instead of its own.
    bool mapping_holds_lock(int fd) noexcept override;
    bool is_view() const noexcept override { return false; }

  protected:
    ~PosixFiles() = default;
};

/// mmap(2), readable and writable. A forked child's mapping would also keep a file's lock, so a child never
/// gets it, not even for a moment.
void* map_unforked(std::size_t size, int flags, int fd) noexcept;

/// The instance shared by everyone who has no other.
PosixFiles& posix_files() noexcept;

}  // namespace fastlog
