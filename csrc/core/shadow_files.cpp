#include "core/shadow_files.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <new>
#include <set>
#include <utility>

namespace fastlog {
namespace {

constexpr int kFirstNumber = 1 << 20;        // passed to the system by mistake, it is invalid
constexpr std::uint64_t kHere = UINT64_MAX;  // device of files that exist only here

// Memory may run out anywhere: then nothing has been done.
template <class Call>
auto guarded(Call&& call) noexcept -> decltype(call()) {
    try {
        return call();
    } catch (const std::bad_alloc&) {
        errno = ENOMEM;
        return -1;
    }
}

int fail(int code) noexcept {
    errno = code;
    return -1;
}

}  // namespace

ShadowFiles::ShadowFiles(const std::string& run_directory, const FileEdits& before, Limits limits,
                         RunFiles& disk)
    : disk_(disk), run_(run_directory), before_(before), limits_(limits) {}

ShadowFiles::~ShadowFiles() = default;

FileEdits ShadowFiles::edits() const {
    FileEdits edits;
    for (const auto& [path, file] : names_) {
        const std::size_t slash = path.rfind('/');
        if (slash == path.npos || path.compare(0, slash, run_) != 0) continue;
        const std::string name = path.substr(slash + 1);
        if (file == nullptr) {
            edits[name].removed = true;
        } else if (file->changed) {
            edits[name] = file->edit();
        }
    }
    return edits;
}

// ---- names ----------------------------------------------------------------------------------------

ShadowFiles::Open* ShadowFiles::opened(int fd) noexcept {
    const auto n = static_cast<std::size_t>(fd - kFirstNumber);
    if (fd < kFirstNumber || n >= open_.size() || !open_[n].used) {
        errno = EBADF;
        return nullptr;
    }
    return &open_[n];
}

ShadowFile* ShadowFiles::file_of(int fd) noexcept {
    const Open* const entry = opened(fd);
    if (entry == nullptr) return nullptr;
    if (entry->file == nullptr) errno = EINVAL;
    return entry->file.get();
}

std::string ShadowFiles::path_of(int directory, const std::string& name) {
    const Open* const below = directory == AT_FDCWD ? nullptr : opened(directory);
    if (below == nullptr || (!name.empty() && name[0] == '/')) return name;
    return name == "." ? below->path : below->path + "/" + name;
}

int ShadowFiles::real_directory(int directory) noexcept {
    if (directory == AT_FDCWD) return directory;
    const Open* const below = opened(directory);
    return below == nullptr ? -1 : below->real;
}

bool ShadowFiles::find(int directory, const std::string& name, std::shared_ptr<ShadowFile>& file) {
    const std::string path = path_of(directory, name);
    if (const auto known = names_.find(path); known != names_.end()) {
        file = known->second;
        return true;
    }
    if (!path.starts_with(run_ + "/")) return false;
    const auto earlier = before_.find(path.substr(run_.size() + 1));
    if (earlier == before_.end()) return false;
    const FileEdit& edit = earlier->second;
    file = nullptr;
    if (!edit.removed) {
        const FileId real = disk_.id_at(real_directory(directory), name);
        file = std::make_shared<ShadowFile>(path, real ? real : FileId{kHere, ++made_}, real,
                                            kFileMode);
        for (const FileRange& range : edit.kept) file->keep(range);
        file->put(edit.pending);
        file->stays = true;
        inodes_[{file->id().device, file->id().inode}] = file;
    }
    names_[path] = file;
    return true;
}

// If another file has that name now, it does not count: reading from it is an error.
void ShadowFiles::reopen(ShadowFile& file, int directory, const std::string& name) {
    if (file.source() >= 0 || !file.source_id()) return;
    Descriptor real(
        disk_, disk_.open(real_directory(directory), name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
    if (disk_.id_of(real.get()) == file.source_id()) file.set_source(std::move(real));
}

// What is known of a file under another of its names counts.
std::shared_ptr<ShadowFile> ShadowFiles::file_for(int real, const struct stat& info,
                                                  const std::string& path) {
    Descriptor descriptor(disk_, real);
    const FileId id = fastlog::id_of(info);
    std::shared_ptr<ShadowFile>& file = inodes_[{id.device, id.inode}];
    if (file == nullptr) {
        file = std::make_shared<ShadowFile>(path, id, id, info.st_mode & 07777);
        file->keep({0, static_cast<std::uint64_t>(info.st_size)});
    }
    if (file->source() < 0) file->set_source(std::move(descriptor));
    names_.emplace(path, file);
    return file;
}

int ShadowFiles::hand_out(int real, std::shared_ptr<ShadowFile> file, std::string path) {
    auto free = std::find_if(open_.begin(), open_.end(), [](const Open& o) { return !o.used; });
    if (free == open_.end()) free = open_.emplace(open_.end());
    if (file != nullptr) ++file->opens;
    *free = {true, real, std::move(file), std::move(path)};
    return kFirstNumber + static_cast<int>(free - open_.begin());
}

int ShadowFiles::create(const std::string& path, mode_t mode) {
    auto file = std::make_shared<ShadowFile>(path, FileId{kHere, ++made_}, FileId{}, mode);
    file->changed = true;
    names_[path] = file;
    return hand_out(-1, std::move(file), path);
}

int ShadowFiles::open(int directory, const std::string& name, int flags, mode_t mode) noexcept {
    return guarded([&] {
        const std::string path = path_of(directory, name);
        const int below = real_directory(directory);
        std::shared_ptr<ShadowFile> file;
        struct stat info;
        if (find(directory, name, file)) {
            if (file == nullptr) return (flags & O_CREAT) != 0 ? create(path, mode) : fail(ENOENT);
            if ((flags & O_EXCL) != 0) return fail(EEXIST);
            reopen(*file, directory, name);
            return hand_out(-1, file, path);
        }
        if ((flags & O_CREAT) != 0) {
            if (disk_.stat_at(below, name, info) != 0) {
                return errno == ENOENT ? create(path, mode) : -1;
            }
            if ((flags & O_EXCL) != 0) return fail(EEXIST);
        }
        constexpr int kPassed = O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK;
        Descriptor real(disk_, disk_.open(below, name, O_RDONLY | (flags & kPassed)));
        if (real.get() < 0 || disk_.stat(real.get(), info) != 0) return -1;
        const bool written = (flags & O_ACCMODE) != O_RDONLY;
        // A directory in place of a ring was found there: not a system error.
        if (S_ISDIR(info.st_mode) && written && directory != AT_FDCWD) return fail(EISDIR);
        if (S_ISREG(info.st_mode)) file = file_for(real.release(), info, path);
        return hand_out(real.release(), std::move(file), path);
    });
}

// Files that were not changed are forgotten, and read again the next time.
int ShadowFiles::close(int fd) noexcept {
    Open* const entry = opened(fd);
    if (entry == nullptr) return -1;
    const Open closed = std::exchange(*entry, Open{});
    if (closed.real >= 0) disk_.close(closed.real);
    ShadowFile* const file = closed.file.get();
    if (file == nullptr || --file->opens != 0) return 0;
    file->drop_source();
    if (file->changed || file->stays) return 0;
    inodes_.erase({file->id().device, file->id().inode});
    if (const auto name = names_.find(closed.path);
        name != names_.end() && name->second.get() == file) {
        names_.erase(name);
    }
    return 0;
}

void ShadowFiles::close_in_child(int fd) noexcept {
    const Open* const entry = opened(fd);
    if (entry == nullptr) return;
    const int real = entry->file != nullptr ? entry->file->source() : entry->real;
    if (real >= 0) disk_.close_in_child(real);
}

int ShadowFiles::rename(int directory, const std::string& name, int to_directory,
                        const std::string& to_name) noexcept {
    return guarded([&] {
        std::shared_ptr<ShadowFile> file;
        std::shared_ptr<ShadowFile> before;
        if (!find(directory, name, file) || file == nullptr) return fail(ENOENT);
        if (find(to_directory, to_name, before) && before != nullptr) {
            before->unlinked = true;
        }
        const std::string to = path_of(to_directory, to_name);
        names_[to] = file;
        names_[path_of(directory, name)] = nullptr;
        file->rename(to);
        return 0;
    });
}

int ShadowFiles::unlink(int directory, const std::string& name) noexcept {
    return guarded([&] {
        std::shared_ptr<ShadowFile> file;
        struct stat info;
        if (find(directory, name, file)) {
            if (file == nullptr) return fail(ENOENT);
            file->unlinked = true;
        } else if (disk_.stat_at(real_directory(directory), name, info) != 0) {
            return -1;
        }
        names_[path_of(directory, name)] = nullptr;
        return 0;
    });
}

bool ShadowFiles::list(int directory, const std::string& name,
                       std::vector<std::string>& names) noexcept {
    return guarded([&] {
               if (!disk_.list(real_directory(directory), name, names)) return -1;
               const std::string here = path_of(directory, name);
               std::set<std::string> all(names.begin(), names.end());
               const auto put = [&all](const std::string& file, bool there) {
                   if (there) {
                       all.insert(file);
                   } else {
                       all.erase(file);
                   }
               };
               if (here == run_) {
                   for (const auto& [file, edit] : before_) put(file, !edit.removed);
               }
               for (const auto& [path, file] : names_) {
                   const std::size_t slash = path.rfind('/');
                   if (slash == path.npos || path.compare(0, slash, here) != 0) continue;
                   put(path.substr(slash + 1), file != nullptr);
               }
               names.assign(all.begin(), all.end());
               return 0;
           }) == 0;
}

int ShadowFiles::make_directory(const std::string& path) noexcept {
    struct stat info;
    return fail(disk_.stat_path(path, info) == 0 ? EEXIST : EROFS);
}

// ---- files ----------------------------------------------------------------------------------------

int ShadowFiles::stat(int fd, struct stat& info) noexcept {
    const Open* const entry = opened(fd);
    if (entry == nullptr) return -1;
    return entry->file != nullptr ? entry->file->stat(disk_, info) : disk_.stat(entry->real, info);
}

int ShadowFiles::stat_at(int directory, const std::string& name, struct stat& info) noexcept {
    return guarded([&] {
        std::shared_ptr<ShadowFile> file;
        if (!find(directory, name, file)) {
            return disk_.stat_at(real_directory(directory), name, info);
        }
        return file == nullptr ? fail(ENOENT) : file->stat(disk_, info);
    });
}

int ShadowFiles::stat_path(const std::string& path, struct stat& info) noexcept {
    return disk_.stat_path(path, info);
}

ssize_t ShadowFiles::read_at(int fd, void* into, std::size_t size, std::uint64_t offset) noexcept {
    const ShadowFile* const file = file_of(fd);
    return file == nullptr ? -1 : file->read(disk_, into, size, offset);
}

ssize_t ShadowFiles::write_at(int fd, const void* bytes, std::size_t size,
                              std::uint64_t offset) noexcept {
    ShadowFile* const file = file_of(fd);
    if (file == nullptr) return -1;
    if (added_ + size > limits_.pending_bytes) {
        full_ = true;
        return fail(ENOSPC);
    }
    return guarded([&] {
        const ssize_t written = file->write(bytes, size, offset);
        if (written > 0) added_ += size;
        return written;
    });
}

int ShadowFiles::append_range(int from, std::uint64_t begin, std::uint64_t size, int to,
                              std::uint64_t end) noexcept {
    const ShadowFile* const old = file_of(from);
    ShadowFile* const file = file_of(to);
    if (old == nullptr || file == nullptr) return -1;
    if (end != file->size()) return fail(EINVAL);
    return guarded([&] {
        if (file->append(*old, begin, size) != 0) return -1;
        if (file->ranges() <= limits_.ranges) return 0;
        shattered_ = old->path();
        return fail(ENOSPC);
    });
}

int ShadowFiles::cut(int fd, std::uint64_t size) noexcept {
    ShadowFile* const file = file_of(fd);
    return file == nullptr ? -1 : file->cut(size);
}

int ShadowFiles::change_mode(int fd, mode_t mode) noexcept {
    ShadowFile* const file = file_of(fd);
    if (file == nullptr) return -1;
    file->mode = mode;
    return 0;
}

int ShadowFiles::lock(int fd, int operation) noexcept {
    const Open* const entry = opened(fd);
    if (entry == nullptr) return -1;
    return disk_.lock(entry->file != nullptr ? entry->file->source() : entry->real,
                      (operation & LOCK_UN) != 0 ? operation : LOCK_SH | LOCK_NB);
}

bool ShadowFiles::may_renumber(int directory) noexcept {
    return disk_.may_renumber(real_directory(directory));
}

}  // namespace fastlog
