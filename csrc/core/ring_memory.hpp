// The memory of one ring: anonymous pages, or a mapped file that survives the process.
//
// Owned by the Recorder; notes are written by the owner of the StreamFiles. The lock on the file shows that
// its writer is alive. A forked child must not keep it: it never gets the pages (MADV_DONTFORK) if they hold
// the lock, and otherwise closes the descriptor that holds it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/fork_watch.hpp"
#include "core/ring_guard.hpp"
#include "core/ring_layout.hpp"
#include "core/stream_files.hpp"

namespace fastlog {

/// Where the ring is stored.
enum class RingPlace : std::uint8_t {
    file,  // in the run's .fastlog directory, or in a local one that a pointer there names
    shm,  // in /dev/shm, with such a pointer: no write-back, lost with the machine. If full: as `file`
    memory,  // only in memory: a killed process loses what was not flushed
};

inline constexpr const char* kPrivateDirectory = ".fastlog";
inline constexpr const char* kRingSuffix = ".ring";
inline constexpr const char* kPointerSuffix = ".ring-at";
inline constexpr const char* kTemporarySuffix = ".tmp";
inline constexpr const char* kRingPrefix = "fastlog-";  // of a ring stored outside of its run
inline constexpr const char* kSharedMemoryPlace = "/dev/shm";
inline constexpr const char* kScratchSuffix =
    ".lines";  // for a damaged file that recovery rewrites

struct RingSpec {
    RingPlace place = RingPlace::file;
    std::size_t ring_bytes = std::size_t{8} << 20;
    std::string run_directory;  // absolute, exists
    std::string label;
    std::string stamp;
    std::uint64_t segment_bytes = 0;
    std::int32_t rank = -1;
    RunFiles* files = &posix_files();
};

class RingMemory final : public FileLedger {
  public:
    /// Anonymous memory. Throws std::system_error if there is none.
    explicit RingMemory(std::size_t ring_bytes);
    /// A mapped file according to the spec's policy. If none can be created, it is anonymous memory, and
    /// `error` says why. `error` is also set if another place than /dev/shm had to be used.
    RingMemory(const RingSpec& spec, SinkError& error);
    ~RingMemory() override;
    RingMemory(const RingMemory&) = delete;
    RingMemory& operator=(const RingMemory&) = delete;

    /// The file's path; empty for anonymous memory.
    const std::string& path() const noexcept { return path_; }
    /// Whether it is in a file, which survives if this process is killed.
    bool mapped() const noexcept {
        return !path_.empty() && !left_.load(std::memory_order_relaxed);
    }

    RingControl* control() const noexcept { return at<RingControl>(kControlOffset); }
    CommitEpoch* epoch() const noexcept { return at<CommitEpoch>(kEpochOffset); }
    DropCount* drops() const noexcept { return at<DropCount>(kDropsOffset); }
    CommitSlot* slot(std::uint64_t epoch) const noexcept {
        return at<CommitSlot>(kSlotOffsets[epoch & 1]);
    }
    std::byte* key_table() const noexcept { return base_ + kKeyTableOffset; }
    std::size_t key_table_bytes() const noexcept { return key_table_bytes_; }
    std::byte* data() const noexcept { return base_ + kKeyTableOffset + key_table_bytes_; }
    std::size_t ring_bytes() const noexcept { return ring_bytes_; }
    std::uint64_t salt() const noexcept { return salt_; }

    SinkError note_home(const std::string& directory, FileId id, const std::string& label,
                        const StreamFlags& restarts) override;
    SinkError note_file(Stream stream, std::uint32_t segment, FileId id) override;
    void note_renumbering() noexcept override;

    /// Marks a writer that has no label yet because its files cannot be created, so that a kill is noticed.
    void mark_unclaimed(const std::string& directory);

    /// Everything in it has been written: removes the writer's mark, and then the file. If the mark cannot be
    /// removed, the file stays, for a recovery. Keeps the mapping. `run_directory` is a descriptor.
    void remove_file(int run_directory) noexcept;
    /// Whether the file is no longer complete, because the system could not back a page.
    bool broken() const noexcept { return mapped() && guard_.broken(); }
    /// Continues in memory: removes the file, and changes the writer's mark accordingly.
    void leave_file(int run_directory) noexcept;
    /// Reacquires the file's lock if other code closed the descriptor that held it. Flush thread.
    void keep_lock(int run_directory) noexcept;
    /// Returns the pages, and those of the file, once nothing is written or read any more. Head and tail keep
    /// their values: a late producer finds the ring closed.
    void release() noexcept;
    /// Makes the pages around `position` writable now, so that no producer waits for the file system. Called
    /// by the flush thread.
    void populate(std::uint64_t position, std::size_t bytes) noexcept;

  private:
    template <class T>
    T* at(std::size_t offset) const noexcept {
        return reinterpret_cast<T*>(base_ + offset);
    }
    void map_anonymous();
    void unmap() noexcept;
    SinkError map_file(const RingSpec& spec);
    SinkError point_from(const std::string& own);
    SinkError make_file(const RingSpec& spec, const std::string& directory);
    SinkError fill_file(const RingSpec& spec);
    void finish_mapping() noexcept;
    void put_home() noexcept;
    void leave_files(const StreamFlags& restarts) noexcept;
    void mark(const std::string& directory, const std::string& label);
    void unlink_file(int run_directory) const noexcept;

    std::byte* base_ = nullptr;
    std::size_t size_;
    std::size_t ring_bytes_;
    std::size_t key_table_bytes_;
    std::uint64_t salt_;
    RunFiles& files_;
    bool in_file_ = false;  // the pages are the file's
    LockDescriptor fd_;
    bool keeps_descriptor_ = false;  // the mapping does not hold the lock
    const std::string uuid_;
    const struct Below {
        explicit Below(const std::string& uuid);
        std::string mark;
        std::string ring;
        std::string pointer;
    } below_{uuid_};  // paths below the run's directory, created while there is memory
    std::string path_;
    std::string pointer_;  // the file in the run that names path_, or empty
    FileId id_;            // of the ring file
    HomeNote home_{};      // the latest one, flush thread only once it runs
    std::string run_;      // its path, likewise
    std::atomic<bool> left_{false};
    RingGuard guard_;
};

}  // namespace fastlog
