// A run's files as they would be after changes that are not made: reads go to the real files, opened
// read-only, and changes stay in memory. Running a recovery on it shows what that recovery would do.
//
// A changed file consists of ranges of the real one, followed by new bytes. Locks are shared: they keep a
// recovery away, and do not wait for readers. Owned by one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/posix_files.hpp"
#include "core/shadow_file.hpp"

namespace fastlog {

class ShadowFiles final : public RunFiles {
  public:
    struct Limits {
        std::uint64_t pending_bytes = std::uint64_t{1} << 30;  // written in total
        std::size_t ranges = std::size_t{1} << 20;             // per file
    };

    /// Starts with the changes `before`, which stay in effect as long as this object exists.
    ShadowFiles(const std::string& run_directory, const FileEdits& before, Limits limits,
                RunFiles& disk = posix_files());
    ~ShadowFiles();
    ShadowFiles(const ShadowFiles&) = delete;
    ShadowFiles& operator=(const ShadowFiles&) = delete;

    /// The changes made here to files in the run's directory; valid until the next change.
    FileEdits edits() const;
    /// Whether a change was rejected because there would be more text than `pending_bytes`.
    bool is_full() const noexcept { return full_; }
    /// A file that would have too many ranges; empty if there was none.
    const std::string& shattered() const noexcept { return shattered_; }

    int open(int directory, const std::string& name, int flags, mode_t mode) noexcept override;
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
    int sync(int) noexcept override { return 0; }
    int change_mode(int fd, mode_t mode) noexcept override;
    int make_directory(const std::string& path) noexcept override;
    int rename(int directory, const std::string& name, int to_directory,
               const std::string& to_name) noexcept override;
    int unlink(int directory, const std::string& name) noexcept override;
    bool list(int directory, const std::string& name,
              std::vector<std::string>& names) noexcept override;
    int lock(int fd, int operation) noexcept override;
    bool may_renumber(int directory) noexcept override;
    bool is_view() const noexcept override { return true; }

  private:
    struct Open {
        bool used = false;
        int real = -1;                     // if it is not a regular file
        std::shared_ptr<ShadowFile> file;  // null: not a regular file
        std::string path;
    };
    using Names = std::map<std::string, std::shared_ptr<ShadowFile>>;

    Open* opened(int fd) noexcept;
    ShadowFile* file_of(int fd) noexcept;
    std::string path_of(int directory, const std::string& name);
    int real_directory(int directory) noexcept;
    /// The file with a known name, null if it is removed; false if the system's file is unchanged.
    bool find(int directory, const std::string& name, std::shared_ptr<ShadowFile>& file);
    void reopen(ShadowFile& file, int directory, const std::string& name);
    std::shared_ptr<ShadowFile> file_for(int real, const struct stat& info,
                                         const std::string& path);
    int create(const std::string& path, mode_t mode);
    int hand_out(int real, std::shared_ptr<ShadowFile> file, std::string path);

    RunFiles& disk_;
    const std::string run_;
    const FileEdits& before_;
    const Limits limits_;
    std::uint64_t added_ = 0;  // bytes
    std::uint64_t made_ = 0;   // files
    bool full_ = false;
    std::string shattered_;
    std::vector<Open> open_;
    Names names_;  // by path; null: removed
    std::map<std::pair<std::uint64_t, std::uint64_t>, std::shared_ptr<ShadowFile>> inodes_;
};

}  // namespace fastlog
