#include "files.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "world.hpp"

namespace sim {
namespace {

constexpr int kFirst = 3;
constexpr int kFirstKept = 512;

int fill(const Node& node, struct stat& info) {
    info = {};
    info.st_dev = 1;
    info.st_ino = node.inode;
    info.st_mode = node.mode;
    info.st_nlink = node.links;
    info.st_uid = ::geteuid();
    info.st_size = node.directory ? 0 : static_cast<off_t>(node.bytes->size());
    info.st_mtime = node.changed_ns / 1'000'000'000;
    return 0;
}

}  // namespace

// ---- the process ------------------------------------------------------------------------------------

void SimFiles::die() {
    for (auto& [base, mapping] : mapped_) {
        if (mapping.open == nullptr) continue;
        Node& node = *mapping.open->node;
        // What is stored from now on is stored by nobody.
        if (node.bytes == mapping.bytes) node.bytes = std::make_shared<Bytes>(node.bytes->view());
        mapping.open.reset();
    }
    open_.clear();
}

void SimFiles::close_all(Node* file) {
    for (auto& [fd, description] : open_) {
        description = std::make_shared<Description>();
        description->node = file;
        description->flags = O_RDWR;
    }
}

bool SimFiles::enter(Call call, const char* name, const std::string& path) {
    if (!world_.point(name, path.c_str())) {
        errno = EIO;
        return false;
    }
    int code = world_.take_fault();
    const bool adds = call == Call::create || call == Call::write || call == Call::map;
    if (code == 0 && adds && world_.no_space()) code = ENOSPC;
    if (code == 0) return true;
    if (code == EMFILE && call != Call::open && call != Call::create) return true;
    if (code == ENOSPC && !adds) return true;
    if (call == Call::look) return true;
    errno = code;
    return false;
}

ssize_t SimFiles::fail(int code) {
    errno = code;
    return -1;
}

Description* SimFiles::opened(int fd) {
    const auto found = open_.find(fd);
    if (found != open_.end()) return found->second.get();
    errno = EBADF;
    return nullptr;
}

Node* SimFiles::file(int fd) {
    Description* const open = opened(fd);
    if (open == nullptr) return nullptr;
    if (!open->node->directory) return open->node;
    errno = EISDIR;
    return nullptr;
}

Node* SimFiles::below(int directory) {
    if (directory == AT_FDCWD) return world_.disk.root();
    Description* const open = opened(directory);
    if (open == nullptr) return nullptr;
    if (open->node->directory) return open->node;
    errno = ENOTDIR;
    return nullptr;
}

Node* SimFiles::parent(int directory, const std::string& path, std::string& name) {
    if (path.starts_with('/')) directory = AT_FDCWD;
    Node* const from = below(directory);
    return from == nullptr ? nullptr : world_.disk.parent(from, path, name);
}

// ---- names ------------------------------------------------------------------------------------------

int SimFiles::open(int directory, const std::string& path, int flags, mode_t mode) noexcept {
    const bool creates = (flags & O_CREAT) != 0;
    if (!enter(creates ? Call::create : Call::open, "open", path)) return -1;
    std::string name;
    Node* const above = parent(directory, path, name);
    if (above == nullptr) return -1;
    Node* node = world_.disk.find(above, name);
    if (node == nullptr && !creates) return -1;
    if (node != nullptr && creates && (flags & O_EXCL) != 0) return static_cast<int>(fail(EEXIST));
    const bool writes = (flags & O_ACCMODE) != O_RDONLY;
    if (node != nullptr && node->directory && writes) return static_cast<int>(fail(EISDIR));
    if (node != nullptr && !node->directory && (flags & O_DIRECTORY) != 0) {
        return static_cast<int>(fail(ENOTDIR));
    }
    if (node == nullptr) {
        if (only_reads) world_.fail("reader-writes", "creates " + path);
        node = world_.disk.make(above, name, false, mode);
        if (node == nullptr) return -1;
    } else if ((flags & O_TRUNC) != 0) {
        if (only_reads) world_.fail("reader-writes", "empties " + path);
        world_.disk.cut(*node, 0);
    }
    auto description = std::make_shared<Description>();
    description->node = node;
    description->flags = flags;
    return put(kFirst, std::move(description));
}

int SimFiles::put(int first, std::shared_ptr<Description> description) {
    int fd = first;
    while (open_.contains(fd)) ++fd;
    open_[fd] = std::move(description);
    return fd;
}

int SimFiles::keep(int fd) noexcept {
    if (!world_.point("fcntl")) return fd;
    const auto found = open_.find(fd);
    if (found == open_.end()) return fd;
    std::shared_ptr<Description> description = std::move(found->second);
    open_.erase(found);
    return put(kFirstKept, std::move(description));
}

int SimFiles::close(int fd) noexcept {
    if (!world_.point("close")) return 0;
    return open_.erase(fd) != 0 ? 0 : static_cast<int>(fail(EBADF));
}

int SimFiles::stat(int fd, struct stat& info) noexcept {
    if (!enter(Call::look, "fstat")) return -1;
    const Description* const open = opened(fd);
    return open == nullptr ? -1 : fill(*open->node, info);
}

int SimFiles::stat_at(int directory, const std::string& path, struct stat& info) noexcept {
    if (!enter(Call::look, "fstatat", path)) return -1;
    std::string name;
    Node* const above = parent(directory, path, name);
    Node* const node = above == nullptr ? nullptr : world_.disk.find(above, name);
    return node == nullptr ? -1 : fill(*node, info);
}

int SimFiles::stat_path(const std::string& path, struct stat& info) noexcept {
    return stat_at(AT_FDCWD, path, info);
}

int SimFiles::make_directory(const std::string& path) noexcept {
    if (!enter(Call::create, "mkdir", path)) return -1;
    if (only_reads) world_.fail("reader-writes", "makes " + path);
    std::string name;
    Node* const above = parent(AT_FDCWD, path, name);
    if (above == nullptr) return -1;
    if (above->names.contains(name)) return static_cast<int>(fail(EEXIST));
    return world_.disk.make(above, name, true, 0755) == nullptr ? -1 : 0;
}

int SimFiles::remove_directory(const std::string& path) noexcept {
    if (!enter(Call::name, "rmdir", path)) return -1;
    std::string name;
    Node* const above = parent(AT_FDCWD, path, name);
    return above == nullptr ? -1 : world_.disk.unlink(above, name, true);
}

int SimFiles::rename(int directory, const std::string& from, int to_directory,
                     const std::string& to) noexcept {
    if (!enter(Call::name, "rename", from + " " + to)) return -1;
    if (only_reads) world_.fail("reader-writes", "renames " + from);
    std::string name;
    std::string to_name;
    Node* const above = parent(directory, from, name);
    Node* const to_above = parent(to_directory, to, to_name);
    if (above == nullptr || to_above == nullptr) return -1;
    return world_.disk.rename(above, name, to_above, to_name);
}

int SimFiles::unlink(int directory, const std::string& path) noexcept {
    if (!enter(Call::name, "unlink", path)) return -1;
    if (only_reads) world_.fail("reader-writes", "removes " + path);
    std::string name;
    Node* const above = parent(directory, path, name);
    return above == nullptr ? -1 : world_.disk.unlink(above, name);
}

bool SimFiles::list(int directory, const std::string& path,
                    std::vector<std::string>& names) noexcept {
    if (!enter(Call::list, "list", path)) return false;
    std::string name;
    Node* const above = parent(directory, path, name);
    Node* const node = above == nullptr ? nullptr : world_.disk.find(above, name);
    if (node == nullptr) return false;
    if (!node->directory) return fail(ENOTDIR) == 0;
    for (const auto& [entry, under] : node->names) names.push_back(entry);
    return true;
}

// ---- bytes ------------------------------------------------------------------------------------------

ssize_t SimFiles::read_at(int fd, void* into, std::size_t size, std::uint64_t offset) noexcept {
    if (!enter(Call::read, "read")) return -1;
    const Node* const node = file(fd);
    if (node == nullptr) return -1;
    const std::string_view all = node->bytes->view();
    if (offset >= all.size()) return 0;
    const std::size_t n = std::min<std::size_t>(size, all.size() - offset);
    std::memcpy(into, all.data() + offset, n);
    return static_cast<ssize_t>(n);
}

ssize_t SimFiles::write_at(int fd, const void* bytes, std::size_t size,
                           std::uint64_t offset) noexcept {
    if (!enter(Call::write, "write")) return -1;
    if (only_reads) world_.fail("reader-writes", "writes");
    Node* const node = file(fd);
    if (node == nullptr) return -1;
    if ((opened(fd)->flags & O_ACCMODE) == O_RDONLY) return fail(EBADF);
    // A disk that is nearly full takes a part.
    const std::size_t n = world_.short_write() ? (size + 1) / 2 : size;
    world_.disk.write(*node, {static_cast<const char*>(bytes), n}, offset);
    return static_cast<ssize_t>(n);
}

int SimFiles::append_range(int from, std::uint64_t begin, std::uint64_t size, int to,
                           std::uint64_t end) noexcept {
    std::string block(size, '\0');
    std::size_t done = 0;
    while (done < size) {
        const ssize_t got = read_at(from, block.data() + done, size - done, begin + done);
        if (got <= 0) return static_cast<int>(got == 0 ? fail(EIO) : -1);
        done += static_cast<std::size_t>(got);
    }
    for (done = 0; done < size;) {
        const ssize_t put = write_at(to, block.data() + done, size - done, end + done);
        if (put <= 0) return -1;
        done += static_cast<std::size_t>(put);
    }
    return 0;
}

int SimFiles::cut(int fd, std::uint64_t size) noexcept {
    if (!enter(Call::name, "ftruncate")) return -1;
    if (only_reads) world_.fail("reader-writes", "cuts");
    Node* const node = file(fd);
    if (node == nullptr) return -1;
    world_.disk.cut(*node, size);
    return 0;
}

int SimFiles::sync(int fd) noexcept {
    if (!world_.point("fdatasync")) return static_cast<int>(fail(EIO));
    Node* const node = file(fd);
    if (node == nullptr) return -1;
    if (world_.take_fault() != 0) {
        world_.disk.fail_sync(*node, world_.points());
        return static_cast<int>(fail(EIO));
    }
    world_.disk.sync(*node);
    return 0;
}

int SimFiles::change_mode(int fd, mode_t mode) noexcept {
    if (!enter(Call::look, "fchmod")) return -1;
    if (only_reads) world_.fail("reader-writes", "changes a mode");
    Node* const node = file(fd);
    if (node == nullptr) return -1;
    node->mode = (node->mode & S_IFMT) | mode;
    return 0;
}

int SimFiles::lock(int fd, int operation) noexcept {
    if (!enter(Call::look, "flock")) return -1;
    Description* const open = opened(fd);
    if (open == nullptr) return -1;
    Node& node = *open->node;
    if ((operation & LOCK_UN) != 0) {
        if (node.locked == open) node.locked = nullptr;
        std::erase(node.shared, open);
        return 0;
    }
    const bool alone = (operation & LOCK_EX) != 0;
    if (alone && only_reads) world_.fail("reader-writes", "locks");
    const bool taken = node.locked != nullptr && node.locked != open;
    const bool shared = std::any_of(node.shared.begin(), node.shared.end(),
                                    [open](const Description* other) { return other != open; });
    if (taken || (alone && shared)) return static_cast<int>(fail(EWOULDBLOCK));
    std::erase(node.shared, open);
    if (node.locked == open) node.locked = nullptr;
    if (alone) {
        node.locked = open;
    } else {
        node.shared.push_back(open);
    }
    return 0;
}

// ---- mappings ---------------------------------------------------------------------------------------

bool SimFiles::suits_mapping(const std::string& directory) noexcept {
    struct stat info;
    return stat_path(directory, info) == 0 &&
           (world_.setup.run_suits || !directory.starts_with("/d/"));
}

int SimFiles::allocate(int fd, std::uint64_t size) noexcept {
    if (!enter(Call::write, "fallocate")) return -1;
    if (only_reads) world_.fail("reader-writes", "allocates");
    Node* const node = file(fd);
    if (node == nullptr) return -1;
    if (node->bytes->size() < size) node->bytes->resize(size);
    return 0;
}

void* SimFiles::map(int fd, std::size_t size) noexcept {
    if (!enter(Call::map, "mmap")) return nullptr;
    Node* const node = file(fd);
    if (node == nullptr || node->bytes->size() < size) return nullptr;
    node->mapped = true;
    node->dirty.assign((size + node->page() - 1) / node->page(), true);
    void* const base = node->bytes->data();
    std::shared_ptr<Description> held = open_.at(fd);
    if (!mapping_holds_lock(fd)) {
        held = std::make_shared<Description>();
        held->node = node;
    }
    mapped_[base] = {std::move(held), node->bytes};
    return base;
}

bool SimFiles::mapping_holds_lock(int) noexcept { return !world_.setup.overlay; }

void SimFiles::unmap(void* base, std::size_t) noexcept { mapped_.erase(base); }

}  // namespace sim
