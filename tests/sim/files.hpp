// The disk as one simulated process has it: its descriptors, its mappings, its faults.
//
// Every call is a point at which another process may run, this one may die, or a fault may come. When the
// process is dead nothing that its code still does has an effect: calls fail, and stores to a mapping reach
// no file. So real code simply comes to its end.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/run_files.hpp"
#include "disk.hpp"

namespace sim {

class World;

class SimFiles final : public fastlog::RunFiles {
  public:
    explicit SimFiles(World& world) : world_(world) {}
    ~SimFiles() = default;

    /// All that the kernel does with a process's files when it ends.
    void die();
    /// Another part of the program closes descriptors that are not its own, and opens its own file under
    /// their numbers.
    void close_all(Node* file);
    /// Says that no call of it may change anything, as of a reader's.
    bool only_reads = false;

    int open(int directory, const std::string& name, int flags, mode_t mode) noexcept override;
    int keep(int fd) noexcept override;
    int close(int fd) noexcept override;
    void close_in_child(int fd) noexcept override { close(fd); }
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
    int remove_directory(const std::string& path) noexcept;
    int rename(int directory, const std::string& name, int to_directory,
               const std::string& to_name) noexcept override;
    int unlink(int directory, const std::string& name) noexcept override;
    bool list(int directory, const std::string& name,
              std::vector<std::string>& names) noexcept override;
    int lock(int fd, int operation) noexcept override;
    bool may_renumber(int) noexcept override { return false; }
    bool suits_mapping(const std::string& directory) noexcept override;
    int allocate(int fd, std::uint64_t size) noexcept override;
    void* map(int fd, std::size_t size) noexcept override;
    void unmap(void* base, std::size_t size) noexcept override;
    bool mapping_holds_lock(int fd) noexcept override;
    bool is_view() const noexcept override { return false; }

  private:
    struct Mapping {
        std::shared_ptr<Description> open;
        std::shared_ptr<Bytes> bytes;
    };

    enum class Call { open, create, read, write, sync, name, list, map, look };
    bool enter(Call call, const char* name, const std::string& path = {});
    int put(int first, std::shared_ptr<Description> description);
    Description* opened(int fd);
    Node* file(int fd);
    Node* below(int directory);
    ssize_t fail(int code);
    Node* parent(int directory, const std::string& path, std::string& name);

    World& world_;
    std::map<int, std::shared_ptr<Description>> open_;
    std::map<void*, Mapping> mapped_;
};

}  // namespace sim
