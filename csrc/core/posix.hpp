// Descriptions of system errors, and file identities. The system calls themselves are in run_files.hpp.
//
// Errors are values (SinkError), never exceptions: training goes on.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace fastlog {

/// Permissions of created files before the umask: never world-writable.
inline constexpr mode_t kFileMode = 0664;
inline constexpr mode_t kDirectoryMode = 0775;

/// An error from the kernel, with the file concerned.
struct SinkError {
    int code = 0;  // errno; 0: no error
    std::string what;
    explicit operator bool() const noexcept { return code != 0; }
};

/// The error in errno.
SinkError failed(const char* verb, const std::string& path);

/// As text: what failed, and why.
std::string describe(const SinkError& error);

/// What helps against an error, such as "free space there".
const char* remedy(int code) noexcept;

/// Identifies a file independently of its name.
struct FileId {
    std::uint64_t device = 0;
    std::uint64_t inode = 0;  // 0: no file
    explicit operator bool() const noexcept { return inode != 0; }
    bool operator==(const FileId&) const noexcept = default;
};
FileId id_of(const struct stat& info) noexcept;

/// Whether open(2) failed because there is no file: nothing at all, a link, a pipe or a directory.
bool is_no_file(int code) noexcept;

}  // namespace fastlog
