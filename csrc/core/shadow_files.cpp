#include "core/shadow_files.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <new>
#include <set>
#include <utility>

namespace fastlog {
namespace {

constexpr int kFirstNumber = 1 << 20;        // given to the system by mistake, it is none
constexpr std::uint64_t kHere = UINT64_MAX;  // device of files that are here alone

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

// The real file is open as long as this one is.
struct ShadowFiles::Node {
    FileId id;
    std::string path;  // by which it was found or made
    FileId source_id;  // of the real file
    std::shared_ptr<Descriptor> source;
    std::size_t opens = 0;
    std::vector<FileRange> kept;
    std::vector<std::uint64_t> starts;  // where each range begins here
    std::uint64_t kept_bytes = 0;
    std::string pending;
    mode_t mode = 0600;
    bool changed = false;
    bool known = false;  // by an earlier change
    bool unlinked = false;

    std::uint64_t size() const noexcept { return kept_bytes + pending.size(); }

    void keep(FileRange range) {
        if (range.begin == range.end) return;
        if (!kept.empty() && kept.back().end == range.begin) {
            kept.back().end = range.end;
        } else {
            starts.reserve(starts.size() + 1);
            kept.push_back(range);
            starts.push_back(kept_bytes);
        }
        kept_bytes += range.end - range.begin;
    }
    void cut_kept(std::uint64_t size) noexcept {
        while (!kept.empty() && starts.back() >= size) {
            kept.pop_back();
            starts.pop_back();
        }
        if (!kept.empty()) {
            FileRange& last = kept.back();
            last.end = std::min(last.end, last.begin + (size - starts.back()));
        }
        kept_bytes = std::min(kept_bytes, size);
    }
    /// Which part of the real file stands at an offset before kept_bytes, as far as it goes on.
    FileRange part(std::uint64_t offset) const noexcept {
        const auto next = std::upper_bound(starts.begin(), starts.end(), offset);
        const auto n = static_cast<std::size_t>(std::distance(starts.begin(), next)) - 1;
        return {kept[n].begin + (offset - starts[n]), kept[n].end};
    }
};

ShadowFiles::ShadowFiles(const std::string& run_directory, const FileEdits& before, Limits limits)
    : run_(run_directory), before_(before), limits_(limits) {}

ShadowFiles::~ShadowFiles() = default;

FileEdits ShadowFiles::edits() const {
    FileEdits edits;
    for (const auto& [path, node] : names_) {
        const std::size_t slash = path.rfind('/');
        if (slash == path.npos || path.compare(0, slash, run_) != 0) continue;
        const std::string name = path.substr(slash + 1);
        if (node == nullptr) {
            edits[name].removed = true;
        } else if (node->changed) {
            edits[name] = {node->kept, node->pending, false};
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

ShadowFiles::Node* ShadowFiles::node_of(int fd) noexcept {
    const Open* const file = opened(fd);
    if (file == nullptr) return nullptr;
    if (file->node == nullptr) errno = EINVAL;
    return file->node.get();
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

bool ShadowFiles::find(int directory, const std::string& name, std::shared_ptr<Node>& node) {
    const std::string path = path_of(directory, name);
    if (const auto known = names_.find(path); known != names_.end()) {
        node = known->second;
        return true;
    }
    if (!path.starts_with(run_ + "/")) return false;
    const auto earlier = before_.find(path.substr(run_.size() + 1));
    if (earlier == before_.end()) return false;
    const FileEdit& edit = earlier->second;
    node = nullptr;
    if (!edit.removed) {
        node = std::make_shared<Node>();
        node->path = path;
        node->source_id = disk_.id_at(real_directory(directory), name);
        node->id = node->source_id ? node->source_id : FileId{kHere, ++made_};
        for (const FileRange& range : edit.kept) node->keep(range);
        node->pending = edit.pending;
        node->known = true;
        inodes_[{node->id.device, node->id.inode}] = node;
    }
    names_[path] = node;
    return true;
}

// Another file of that name meanwhile is none: what is read of it is an error.
void ShadowFiles::reopen(Node& node, int directory, const std::string& name) {
    if (node.source != nullptr || !node.source_id) return;
    Descriptor real(
        disk_, disk_.open(real_directory(directory), name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
    if (disk_.id_of(real.get()) == node.source_id) {
        node.source = std::make_shared<Descriptor>(std::move(real));
    }
}

// What is known of a file by another of its names counts.
std::shared_ptr<ShadowFiles::Node> ShadowFiles::node_for(int real, const struct stat& info,
                                                         const std::string& path) {
    Descriptor descriptor(disk_, real);
    const FileId id = fastlog::id_of(info);
    std::shared_ptr<Node>& node = inodes_[{id.device, id.inode}];
    if (node == nullptr) {
        node = std::make_shared<Node>();
        node->id = node->source_id = id;
        node->path = path;
        node->keep({0, static_cast<std::uint64_t>(info.st_size)});
        node->mode = info.st_mode & 07777;
    }
    if (node->source == nullptr) node->source = std::make_shared<Descriptor>(std::move(descriptor));
    names_.emplace(path, node);
    return node;
}

int ShadowFiles::hand_out(int real, std::shared_ptr<Node> node, std::string path) {
    auto free = std::find_if(open_.begin(), open_.end(), [](const Open& o) { return !o.used; });
    if (free == open_.end()) free = open_.emplace(open_.end());
    if (node != nullptr) ++node->opens;
    *free = {true, real, std::move(node), std::move(path)};
    return kFirstNumber + static_cast<int>(free - open_.begin());
}

int ShadowFiles::create(const std::string& path, mode_t mode) {
    auto node = std::make_shared<Node>();
    node->id = {kHere, ++made_};
    node->path = path;
    node->mode = mode;
    node->changed = true;
    names_[path] = node;
    return hand_out(-1, std::move(node), path);
}

int ShadowFiles::open(int directory, const std::string& name, int flags, mode_t mode) noexcept {
    return guarded([&] {
        const std::string path = path_of(directory, name);
        const int below = real_directory(directory);
        std::shared_ptr<Node> node;
        struct stat info;
        if (find(directory, name, node)) {
            if (node == nullptr) return (flags & O_CREAT) != 0 ? create(path, mode) : fail(ENOENT);
            if ((flags & O_EXCL) != 0) return fail(EEXIST);
            reopen(*node, directory, name);
            return hand_out(-1, node, path);
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
        // A directory in the place of a ring is one that was found: no error of the system.
        if (S_ISDIR(info.st_mode) && written && directory != AT_FDCWD) return fail(EISDIR);
        if (S_ISREG(info.st_mode)) node = node_for(real.release(), info, path);
        return hand_out(real.release(), std::move(node), path);
    });
}

// What was not changed is forgotten, and looked at anew the next time.
int ShadowFiles::close(int fd) noexcept {
    Open* const file = opened(fd);
    if (file == nullptr) return -1;
    const Open closed = std::exchange(*file, Open{});
    if (closed.real >= 0) disk_.close(closed.real);
    Node* const node = closed.node.get();
    if (node == nullptr || --node->opens != 0) return 0;
    node->source.reset();
    if (node->changed || node->known) return 0;
    inodes_.erase({node->id.device, node->id.inode});
    if (const auto name = names_.find(closed.path);
        name != names_.end() && name->second.get() == node) {
        names_.erase(name);
    }
    return 0;
}

void ShadowFiles::close_in_child(int fd) noexcept {
    const Open* const file = opened(fd);
    if (file == nullptr) return;
    if (file->real >= 0) disk_.close_in_child(file->real);
    if (file->node != nullptr && file->node->source != nullptr) {
        disk_.close_in_child(file->node->source->get());
    }
}

int ShadowFiles::rename(int directory, const std::string& name, int to_directory,
                        const std::string& to_name) noexcept {
    return guarded([&] {
        std::shared_ptr<Node> node;
        std::shared_ptr<Node> before;
        if (!find(directory, name, node) || node == nullptr) return fail(ENOENT);
        if (find(to_directory, to_name, before) && before != nullptr) {
            before->unlinked = true;
        }
        const std::string to = path_of(to_directory, to_name);
        names_[to] = node;
        names_[path_of(directory, name)] = nullptr;
        node->path = to;
        node->changed = true;
        return 0;
    });
}

int ShadowFiles::unlink(int directory, const std::string& name) noexcept {
    return guarded([&] {
        std::shared_ptr<Node> node;
        struct stat info;
        if (find(directory, name, node)) {
            if (node == nullptr) return fail(ENOENT);
            node->unlinked = true;
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
               for (const auto& [path, node] : names_) {
                   const std::size_t slash = path.rfind('/');
                   if (slash == path.npos || path.compare(0, slash, here) != 0) continue;
                   put(path.substr(slash + 1), node != nullptr);
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

int ShadowFiles::describe(const Node& node, struct stat& info) noexcept {
    info = {};
    info.st_mode = S_IFREG | node.mode;
    info.st_nlink = 1;
    const bool is_source = node.id == node.source_id;
    if (is_source && node.source != nullptr && disk_.stat(node.source->get(), info) != 0) return -1;
    info.st_dev = static_cast<dev_t>(node.id.device);
    info.st_ino = static_cast<ino_t>(node.id.inode);
    info.st_size = static_cast<off_t>(node.size());
    if (node.unlinked) info.st_nlink = 0;
    return 0;
}

int ShadowFiles::stat(int fd, struct stat& info) noexcept {
    const Open* const file = opened(fd);
    if (file == nullptr) return -1;
    return file->node != nullptr ? describe(*file->node, info) : disk_.stat(file->real, info);
}

int ShadowFiles::stat_at(int directory, const std::string& name, struct stat& info) noexcept {
    return guarded([&] {
        std::shared_ptr<Node> node;
        if (!find(directory, name, node)) {
            return disk_.stat_at(real_directory(directory), name, info);
        }
        return node == nullptr ? fail(ENOENT) : describe(*node, info);
    });
}

int ShadowFiles::stat_path(const std::string& path, struct stat& info) noexcept {
    return disk_.stat_path(path, info);
}

ssize_t ShadowFiles::read_at(int fd, void* into, std::size_t size, std::uint64_t offset) noexcept {
    const Node* const node = node_of(fd);
    if (node == nullptr) return -1;
    if (offset >= node->size()) return 0;
    if (offset < node->kept_bytes) {
        const FileRange part = node->part(offset);
        if (node->source == nullptr) return fail(EIO);
        return disk_.read_at(node->source->get(), into,
                             std::min<std::uint64_t>(size, part.end - part.begin), part.begin);
    }
    const std::uint64_t at = offset - node->kept_bytes;
    const std::size_t here = std::min<std::uint64_t>(size, node->pending.size() - at);
    std::memcpy(into, node->pending.data() + at, here);
    return static_cast<ssize_t>(here);
}

ssize_t ShadowFiles::write_at(int fd, const void* bytes, std::size_t size,
                              std::uint64_t offset) noexcept {
    Node* const node = node_of(fd);
    if (node == nullptr) return -1;
    if (offset < node->kept_bytes || offset > node->size()) return fail(EINVAL);
    if (added_ + size > limits_.pending_bytes) {
        full_ = true;
        return fail(ENOSPC);
    }
    return guarded([&]() -> ssize_t {
        const std::size_t at = offset - node->kept_bytes;
        node->pending.replace(at, size, static_cast<const char*>(bytes), size);
        added_ += size;
        node->changed = true;
        return static_cast<ssize_t>(size);
    });
}

int ShadowFiles::append_range(int from, std::uint64_t begin, std::uint64_t size, int to,
                              std::uint64_t end) noexcept {
    const Node* const old = node_of(from);
    Node* const node = node_of(to);
    if (old == nullptr || node == nullptr) return -1;
    if (end != node->size() || begin + size > old->size()) return fail(EINVAL);
    return guarded([&] {
        node->source = old->source;
        node->source_id = old->source_id;
        node->changed = true;
        for (FileRange part; size != 0 && begin < old->kept_bytes; size -= part.end - part.begin) {
            if (!node->pending.empty()) return fail(EINVAL);
            part = old->part(begin);
            part.end = std::min(part.end, part.begin + size);
            node->keep(part);
            begin += part.end - part.begin;
        }
        if (size != 0) node->pending.append(old->pending, begin - old->kept_bytes, size);
        if (node->kept.size() <= limits_.ranges) return 0;
        shattered_ = old->path;
        return fail(ENOSPC);
    });
}

int ShadowFiles::cut(int fd, std::uint64_t size) noexcept {
    Node* const node = node_of(fd);
    if (node == nullptr) return -1;
    if (size > node->size()) return fail(EINVAL);
    if (size == node->size()) return 0;
    node->pending.resize(size - std::min(size, node->kept_bytes));
    node->cut_kept(size);
    node->changed = true;
    return 0;
}

int ShadowFiles::change_mode(int fd, mode_t mode) noexcept {
    Node* const node = node_of(fd);
    if (node == nullptr) return -1;
    node->mode = mode;
    return 0;
}

int ShadowFiles::lock(int fd, int operation) noexcept {
    const Open* const file = opened(fd);
    if (file == nullptr) return -1;
    const bool regular = file->node != nullptr && file->node->source != nullptr;
    return disk_.lock(regular ? file->node->source->get() : file->real,
                      (operation & LOCK_UN) != 0 ? operation : LOCK_SH | LOCK_NB);
}

bool ShadowFiles::may_renumber(int directory) noexcept {
    return disk_.may_renumber(real_directory(directory));
}

}  // namespace fastlog
