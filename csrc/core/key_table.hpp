// Interned key sets: a record carries a number instead of its keys.
//
// Thread ownership: intern() may be called by any thread (serialised by a mutex, off the hot path); entries
// are append-only and never change once published. The flush thread reads them without the mutex: `published`
// (release, in intern) pairs with its load (acquire, in the reader).
//
// The entries are stored in a memory span, so that whoever finds the ring can render its records:
//   u64 published bytes (atomic), then per key set, in order of its id:
//   u32 entry bytes | u32 key count | u32 crc32c of the rest of the entry
//   per key: u32 length, UTF-8 bytes | padding to 8
// The checksum is for readers of a ring file: after a power loss an entry may span a page that reached the
// disk and one that did not.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace fastlog {

class KeyTable {
  public:
    static constexpr std::uint32_t kNone = 0xFFFFFFFFu;
    static constexpr std::uint32_t kMaxSets = 65536;
    /// A longer key is written into each record itself, as quoted JSON. So no line is longer than 64 times
    /// its record in the ring: two copies of a key (the second in "nonfinite") and 32 more bytes correspond
    /// to the 9 bytes of a value; a timing's name and parent correspond to a record of 64 bytes.
    static constexpr std::size_t kMaxKeyText = 256;

    /// Uses `bytes` of zeroed, 8-byte aligned memory at `arena`.
    KeyTable(std::byte* arena, std::size_t bytes) noexcept;

    /// True if a record may refer to this key by the number of its set.
    static bool fits(std::string_view key);

    /// The id of this sequence of keys; kNone if the table is full or a key does not fit (the caller then
    /// writes the keys into the record itself).
    std::uint32_t intern(const std::vector<std::string_view>& keys);

    std::uint32_t size() const noexcept { return count_.load(std::memory_order_relaxed); }

    /// Iterates over published entries in the order of their ids; one reader, any thread.
    class Reader {
      public:
        Reader(const std::byte* arena, std::size_t bytes) noexcept
            : arena_(arena), capacity_(bytes - kHeaderBytes) {}
        /// Fetches the next key set; false if no further one is published, or if an entry is damaged (an
        /// arena found in a file): nothing outside the arena is read.
        bool next(std::vector<std::string_view>& keys);

      private:
        const std::byte* arena_;
        std::uint64_t capacity_;
        std::uint64_t offset_ = 0;
    };

  private:
    using Published = std::atomic<std::uint64_t>;
    static constexpr std::size_t kHeaderBytes = sizeof(std::uint64_t);

    std::byte* arena_;
    std::size_t capacity_;
    std::atomic<std::uint32_t> count_{0};
    std::mutex mutex_;
    std::unordered_map<std::string, std::uint32_t> ids_;  // guarded by mutex_
};

}  // namespace fastlog
