// A disk in memory: inodes, names, locks, holes, pages that have not reached the platter, a journal.
//
// Names change in order: a power loss takes the last changes that no fsync has followed. Pages of files
// that are not synced are there or not, each on its own; a ring's are of 4 KiB, others of 512 bytes, so
// that a few lines make several.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace sim {

class Oracle;

/// Aligned as a mapping is; an address stays as long as the room does.
class Bytes {
  public:
    Bytes() = default;
    explicit Bytes(std::string_view content);
    ~Bytes();
    Bytes(const Bytes&) = delete;
    Bytes& operator=(const Bytes&) = delete;
    void resize(std::size_t size);
    char* data() noexcept { return at_; }
    std::size_t size() const noexcept { return size_; }
    std::string_view view() const noexcept { return {at_, size_}; }

  private:
    char* at_ = nullptr;
    std::size_t size_ = 0;
    std::size_t room_ = 0;
};

struct Description;

struct Node {
    std::uint64_t inode = 0;
    bool directory = false;
    mode_t mode = 0;
    unsigned links = 0;
    std::int64_t changed_ns = 0;
    std::shared_ptr<Bytes> bytes;         // of a file
    std::map<std::string, Node*> names;   // of a directory
    const Description* locked = nullptr;  // exclusively
    std::vector<const Description*> shared;
    bool mapped = false;  // ever
    // What a power loss leaves, and which pages are not there yet.
    std::string platter;
    std::vector<bool> dirty;

    std::size_t page() const noexcept { return mapped ? 4096 : 512; }
};

/// What open() makes: descriptors and mappings share it, and its lock.
struct Description {
    Node* node = nullptr;
    int flags = 0;
    ~Description();
};

class Disk {
  public:
    Disk();
    Node* root() noexcept { return &*nodes_.front(); }
    /// What stands under a path, absolute or below a directory; null with errno.
    Node* find(Node* below, std::string_view path);
    /// The directory of a path's last name, and that name.
    Node* parent(Node* below, std::string_view path, std::string& name);

    Node* make(Node* directory, const std::string& name, bool is_directory, mode_t mode);
    int unlink(Node* directory, const std::string& name, bool directories = false);
    int rename(Node* from, const std::string& name, Node* to, const std::string& to_name);

    void write(Node& node, std::string_view bytes, std::size_t offset);
    void cut(Node& node, std::size_t size);
    /// Puts a file on the platter, and with it all changes of names so far.
    void sync(Node& node);
    /// It failed: pages may be on the platter, and none is tried again.
    void fail_sync(Node& node, std::uint64_t chance);
    /// The kernel writes some pages when it likes.
    void write_back(std::uint64_t chance);
    void lose_power(std::uint64_t chance);
    /// All names that there are so far stay.
    void commit_names() { journal_.clear(); }

    std::int64_t now_ns = 0;
    Oracle* oracle = nullptr;  // is told of what goes
    bool keeps_platter = false;
    bool sync_failed = false;  // once

  private:
    struct Change {
        Node* directory;
        std::string name;
        Node* before;  // what the name was
        Node* after;
    };
    void put(Node* directory, const std::string& name, Node* node);
    void put_page(Node& node, std::size_t page);

    std::vector<std::unique_ptr<Node>> nodes_;
    std::vector<Change> journal_;  // not on the platter yet
};

/// A number from a seed; the seed becomes the next one.
std::uint64_t draw(std::uint64_t& seed) noexcept;

}  // namespace sim
