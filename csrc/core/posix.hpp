// Words for what the system says: errors, and which file is which. What it is asked is in run_files.hpp.
//
// Errors are values (SinkError), never exceptions: training goes on.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>

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

/// As text: what failed, and why.
std::string describe(const SinkError& error);

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

/// Whether open(2) failed so because no file stands there, but nothing, a link, a pipe or a directory.
bool is_no_file(int code) noexcept;

}  // namespace fastlog
