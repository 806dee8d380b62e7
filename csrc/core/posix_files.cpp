#include "core/posix_files.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/vfs.h>
#else
#include <sys/mount.h>
#include <sys/param.h>
#endif

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>

#include "core/fork_watch.hpp"

namespace fastlog {
namespace {

#if defined(__linux__)
unsigned long file_system(const struct statfs& info) {
    return static_cast<unsigned long>(info.f_type) & 0xFFFFFFFFUL;
}

constexpr unsigned long kOverlayfs = 0x794C7630;
#endif

// Repeats a call that a signal interrupted.
template <class Call>
auto retried(Call&& call) noexcept {
    auto result = call();
    while (result < 0 && errno == EINTR) result = call();
    return result;
}

}  // namespace

int PosixFiles::open(int directory, const std::string& name, int flags, mode_t mode) noexcept {
    return retried([&] { return ::openat(directory, name.c_str(), flags | O_CLOEXEC, mode); });
}

int PosixFiles::keep(int fd) noexcept {
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    const int high = ::fcntl(fd, F_DUPFD_CLOEXEC, std::min<rlim_t>(limit.rlim_cur / 2, 512));
    if (high < 0) return fd;  // no high number is free
    ::close(fd);
    return high;
}

int PosixFiles::close(int fd) noexcept { return ::close(fd); }
void PosixFiles::close_in_child(int fd) noexcept { ::close(fd); }

int PosixFiles::stat(int fd, struct stat& info) noexcept { return ::fstat(fd, &info); }

int PosixFiles::stat_at(int directory, const std::string& name, struct stat& info) noexcept {
    return ::fstatat(directory, name.c_str(), &info, AT_SYMLINK_NOFOLLOW);
}

int PosixFiles::stat_path(const std::string& path, struct stat& info) noexcept {
    return ::stat(path.c_str(), &info);
}

ssize_t PosixFiles::read_at(int fd, void* into, std::size_t size, std::uint64_t offset) noexcept {
    return retried([&] { return ::pread(fd, into, size, static_cast<off_t>(offset)); });
}

ssize_t PosixFiles::write_at(int fd, const void* bytes, std::size_t size,
                             std::uint64_t offset) noexcept {
    return retried([&] { return ::pwrite(fd, bytes, size, static_cast<off_t>(offset)); });
}

int PosixFiles::append_range(int from, std::uint64_t begin, std::uint64_t size, int to,
                             std::uint64_t end) noexcept {
    constexpr std::size_t kBlock = std::size_t{1} << 18;
    const std::unique_ptr<char[]> block(
        new (std::nothrow) char[std::min<std::uint64_t>(size, kBlock)]);
    if (block == nullptr) {
        errno = ENOMEM;
        return -1;
    }
    while (size != 0) {
        const ssize_t got =
            read_at(from, block.get(), std::min<std::uint64_t>(size, kBlock), begin);
        if (got <= 0) {
            if (got == 0) errno = EIO;  // the file is shrinking right now
            return -1;
        }
        for (ssize_t done = 0; done < got;) {
            const ssize_t n =
                write_at(to, block.get() + done, static_cast<std::size_t>(got - done), end);
            if (n <= 0) {
                if (n == 0) errno = ENOSPC;
                return -1;
            }
            done += n;
            end += static_cast<std::uint64_t>(n);
        }
        begin += static_cast<std::uint64_t>(got);
        size -= static_cast<std::uint64_t>(got);
    }
    return 0;
}

int PosixFiles::cut(int fd, std::uint64_t size) noexcept {
    return ::ftruncate(fd, static_cast<off_t>(size));
}

int PosixFiles::sync(int fd) noexcept {
    return retried([&] { return ::fdatasync(fd); });
}

int PosixFiles::change_mode(int fd, mode_t mode) noexcept { return ::fchmod(fd, mode); }

int PosixFiles::make_directory(const std::string& path) noexcept {
    return ::mkdir(path.c_str(), kDirectoryMode);
}

int PosixFiles::rename(int directory, const std::string& name, int to_directory,
                       const std::string& to_name) noexcept {
    return ::renameat(directory, name.c_str(), to_directory, to_name.c_str());
}

int PosixFiles::unlink(int directory, const std::string& name) noexcept {
    return ::unlinkat(directory, name.c_str(), 0);
}

bool PosixFiles::list(int directory, const std::string& name,
                      std::vector<std::string>& names) noexcept {
    Descriptor fd(*this, open(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
    const std::unique_ptr<DIR, int (*)(DIR*)> listing(::fdopendir(fd.get()), &::closedir);
    if (!listing) return false;
    fd.release();  // closedir() closes it
    try {
        while (const dirent* entry = ::readdir(listing.get())) names.emplace_back(entry->d_name);
    } catch (const std::bad_alloc&) {
        errno = ENOMEM;
        return false;
    }
    return true;
}

int PosixFiles::lock(int fd, int operation) noexcept { return ::flock(fd, operation); }

bool PosixFiles::may_renumber(int directory) noexcept {
#if defined(__linux__)
    struct statfs info;
    if (::fstatfs(directory, &info) != 0) return false;
    switch (file_system(info)) {
        case 0x65735546:  // FUSE
        case 0xFF534D42:  // CIFS
        case 0xFE534D42:  // SMB 2 and 3
            return true;
        default:
            return false;
    }
#else
    (void)directory;
    return false;
#endif
}

bool PosixFiles::suits_mapping(const std::string& directory) noexcept {
#if defined(__linux__)
    struct statfs info;
    if (::statfs(directory.c_str(), &info) != 0) return false;
    switch (file_system(info)) {
        case 0xEF53:      // ext2, ext3, ext4
        case 0x58465342:  // xfs
        case 0x01021994:  // tmpfs
        case kOverlayfs:  // new files are in its upper directory
        case 0xF2F52010:  // f2fs
            return true;
        default:
            return false;
    }
#else
    struct statfs info;
    if (::statfs(directory.c_str(), &info) != 0) return false;
    return std::strcmp(info.f_fstypename, "apfs") == 0 ||
           std::strcmp(info.f_fstypename, "hfs") == 0;
#endif
}

int PosixFiles::allocate(int fd, std::uint64_t size) noexcept {
#if defined(__linux__)
    int code;
    do {
        code = ::posix_fallocate(fd, 0, static_cast<off_t>(size));
    } while (code == EINTR);
    errno = code;
    return code == 0 ? 0 : -1;
#else
    (void)fd;
    (void)size;
    return 0;
#endif
}

void* map_unforked(std::size_t size, int flags, int fd) noexcept {
    const NoFork no_fork;
    void* base = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, flags, fd, 0);
#ifdef MADV_DONTFORK
    if (base != MAP_FAILED) ::madvise(base, size, MADV_DONTFORK);
#endif
    return base;
}

void* PosixFiles::map(int fd, std::size_t size) noexcept {
    void* const base = map_unforked(size, MAP_SHARED, fd);
    return base == MAP_FAILED ? nullptr : base;
}

void PosixFiles::unmap(void* base, std::size_t size) noexcept { ::munmap(base, size); }

bool PosixFiles::mapping_holds_lock(int fd) noexcept {
#if defined(__linux__)
    struct statfs info;
    return ::fstatfs(fd, &info) == 0 && file_system(info) != kOverlayfs;
#else
    (void)fd;
    return false;
#endif
}

PosixFiles& posix_files() noexcept {
    struct Files final : PosixFiles {};
    static Files files;
    return files;
}

}  // namespace fastlog
