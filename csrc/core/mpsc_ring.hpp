// A bounded ring of variable-sized records: many producers, one consumer, no locks.
//
// All atomics of the ring are in this file. Ownership:
//   tail        producers, by compare-and-swap; its top bit is the closed flag, set once. Never goes
//               backwards.
//   head        written by the consumer only; producers read it. Never goes backwards.
//   head_cache  the producers' copy of head, so that the consumer's cache line stays out of the hot
//               path. Any producer may store an older value over a newer one: that only costs a
//               refresh.
//   stamp       of each record: written by the producer that claimed it, read by the consumer.
// Pairs (release -> acquire):
//   commit(): stamp          -> peek(): stamp        the record's bytes are complete
//   release_to(): head       -> try_claim(): head    the consumer is done with the bytes to be reused
//   try_claim(): head_cache  -> try_claim(): head_cache   passes that on from one producer to another
// The claim itself is relaxed: it only assigns positions and publishes nothing.
//
// The ring uses memory that is owned elsewhere (anonymous or a mapped file).
#pragma once

#include <atomic>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/crc32c.hpp"
#include "core/record.hpp"

namespace fastlog {

inline constexpr std::size_t kCacheLine = 64;

/// The ring's shared words: the producers' and the consumer's each on a cache line of their own.
template <template <class> class Atomic>
struct BasicRingControl {
    alignas(kCacheLine) Atomic<std::uint64_t> tail;
    Atomic<std::uint64_t> head_cache;
    alignas(kCacheLine) Atomic<std::uint64_t> head;
    alignas(kCacheLine) std::byte reserved[kCacheLine];  // files have what follows behind it
};

/// The checksum of a record at `position` and its `payload` bytes behind it: its header without stamp and crc, its
/// payload, and the position, so that neither a damaged nor a displaced record passes.
inline std::uint32_t record_crc(const RecordHeader* record, std::uint64_t position,
                                std::size_t payload, bool by_processor) noexcept {
    constexpr std::size_t kSummed = offsetof(RecordHeader, ticks);
    const std::uint64_t length = record->length;
    const auto* at = reinterpret_cast<const std::byte*>(record) + kSummed;
    std::size_t size = sizeof(RecordHeader) - kSummed + payload;
    if (by_processor) [[likely]] {
        constexpr std::uint64_t kStart = 0xFFFFFFFF;
        std::uint64_t state = crc32c_step(crc32c_step(kStart, position), length);
        state = crc32c_words(state, at, size);
        const auto crc = ~static_cast<std::uint32_t>(state);
        return size == 0 ? crc : crc32c(crc, at, size);
    }
    const std::uint64_t words[2] = {position, length};
    return crc32c(crc32c(0, words, sizeof words), at, size);
}
/// The same of a complete record. What is in padding does not matter.
inline std::uint32_t record_crc(const RecordHeader* record, std::uint64_t position) noexcept {
    return record_crc(record, position, record->kind == RecordKind::pad ? 0 : record->length,
                      hot_line.has_crc32c);
}

enum class ClaimStatus : std::uint8_t { claimed, full, closed, too_large };

/// `Atomic` is std::atomic; tests may substitute one that explores interleavings.
template <template <class> class Atomic = std::atomic>
class BasicMpscRing {
  public:
    using Control = BasicRingControl<Atomic>;
    using Stamp = Atomic<std::uint64_t>;
    static_assert(sizeof(Stamp) == sizeof(std::uint64_t));

    static constexpr std::uint64_t kClosedBit = std::uint64_t{1} << 63;

    struct Claim {
        std::uint64_t position;  // absolute position of the record
        std::byte* at;           // its address in memory
    };

    /// Of no use until another one is assigned.
    BasicMpscRing() = default;
    /// Uses `capacity` bytes (a power of two, at least 1 KiB) at `data`, both 64-byte aligned. `salt` makes
    /// this ring's stamps unique. With `checksums`, every record carries a CRC, for readers of a ring file.
    BasicMpscRing(Control* control, std::byte* data, std::size_t capacity, std::uint64_t salt,
                  bool checksums = false) noexcept
        : control_(control),
          data_(data),
          capacity_(capacity),
          salt_(salt | 1),
          checksums_(!checksums            ? Checksums::none
                     : hot_line.has_crc32c ? Checksums::by_processor
                                           : Checksums::by_program) {
        assert(capacity >= 1024 && (capacity & (capacity - 1)) == 0);
    }

    // ---- producers -----------------------------------------------------------------------------

    /// Claims room for a record with `payload` bytes. After `claimed`, the caller fills the record with
    /// fill_header() and its payload and must call commit(): nothing after it is read before.
    [[gnu::always_inline]] ClaimStatus try_claim(std::size_t payload, Claim& out) noexcept {
        if (payload > max_payload()) return ClaimStatus::too_large;
        const std::uint64_t size = record_size(payload);
        std::uint64_t tail = control_->tail.load(std::memory_order_relaxed);
        for (;;) {
            if (tail & kClosedBit) return ClaimStatus::closed;
            const std::uint64_t to_end = capacity_ - (tail & (capacity_ - 1));
            const std::uint64_t need = size <= to_end ? size : to_end + size;
            if (!has_room(tail + need, control_->head_cache.load(std::memory_order_acquire)))
                [[unlikely]] {
                const std::uint64_t head = control_->head.load(std::memory_order_acquire);
                control_->head_cache.store(head, std::memory_order_release);
                if (!has_room(tail + need, head)) {
                    // `tail` may be older than `head`; the ring is only full if nobody has moved the tail.
                    const std::uint64_t now = control_->tail.load(std::memory_order_relaxed);
                    if (now == tail) return ClaimStatus::full;
                    tail = now;
                    continue;
                }
            }
            if (!control_->tail.compare_exchange_weak(tail, tail + need, std::memory_order_relaxed,
                                                      std::memory_order_relaxed)) [[unlikely]] {
                continue;
            }
            if (need != size) [[unlikely]] {
                write_pad(tail, to_end);
                tail += to_end;
            }
            out = {tail, at(tail)};
            return ClaimStatus::claimed;
        }
    }

    /// Writes a claimed record's header except for the stamp, field by field: copying a header built
    /// elsewhere would stall on its narrow stores.
    static void fill_header(const Claim& claim, std::uint32_t length, std::uint64_t ticks,
                            std::uint32_t thread_id, RecordKind kind, Stream stream,
                            std::uint16_t flags = 0) noexcept {
        auto* header = reinterpret_cast<RecordHeader*>(claim.at);
        header->length = length;
        header->crc = 0;
        header->ticks = ticks;
        header->thread_id = thread_id;
        header->kind = kind;
        header->stream = stream;
        header->flags = flags;
    }

    /// Where a claimed record's payload goes.
    static std::byte* payload_of(const Claim& claim) noexcept {
        return claim.at + sizeof(RecordHeader);
    }

    /// Publishes a filled record with `payload` bytes, for padding 0, to the consumer.
    void commit(const Claim& claim, std::size_t payload) noexcept {
        if (checksums_ != Checksums::none) [[likely]] {
            auto* header = reinterpret_cast<RecordHeader*>(claim.at);
            header->crc =
                record_crc(header, claim.position, payload, checksums_ == Checksums::by_processor);
        }
        stamp_at(claim.at)->store(stamp_for(claim.position), std::memory_order_release);
    }

    void commit(const Claim& claim) noexcept {
        const auto* header = reinterpret_cast<const RecordHeader*>(claim.at);
        commit(claim, header->kind == RecordKind::pad ? 0 : header->length);
    }

    /// Bytes between `position` and the head as last known to the producers: an upper bound.
    std::uint64_t used_at_most(std::uint64_t position) const noexcept {
        return used_since(control_->head_cache.load(std::memory_order_relaxed), position);
    }

    bool is_half_full(std::uint64_t position) const noexcept {
        return used_at_most(position) > capacity_ / 2;
    }

    /// Refreshes the producers' copy of the head; returns the bytes between it and `position`.
    std::uint64_t used_exactly(std::uint64_t position) noexcept {
        const std::uint64_t head = control_->head.load(std::memory_order_acquire);
        control_->head_cache.store(head, std::memory_order_release);
        return used_since(head, position);
    }

    /// True if a record with `payload` bytes would find room now. Sequentially consistent, so that a waiter
    /// that announced itself before calling cannot miss release_to().
    bool room_for(std::size_t payload) noexcept {
        const std::uint64_t size = record_size(payload);
        const std::uint64_t tail = control_->tail.load(std::memory_order_seq_cst) & ~kClosedBit;
        const std::uint64_t to_end = capacity_ - (tail & (capacity_ - 1));
        const std::uint64_t need = size <= to_end ? size : to_end + size;
        return has_room(tail + need, control_->head.load(std::memory_order_seq_cst));
    }

    /// Rejects every later claim; returns the final tail. Earlier claims stay valid.
    std::uint64_t close() noexcept {
        return control_->tail.fetch_or(kClosedBit, std::memory_order_acq_rel) & ~kClosedBit;
    }

    std::uint64_t tail() const noexcept {
        return control_->tail.load(std::memory_order_acquire) & ~kClosedBit;
    }

    // ---- consumer ------------------------------------------------------------------------------

    /// The committed record at `position`, or null if it is not there yet.
    const RecordHeader* peek(std::uint64_t position) const noexcept {
        std::byte* place = at(position);
        if (stamp_at(place)->load(std::memory_order_acquire) != stamp_for(position)) return nullptr;
        return reinterpret_cast<const RecordHeader*>(place);
    }

    static std::uint64_t after(std::uint64_t position, const RecordHeader& record) noexcept {
        return position + record_size(record.length);
    }

    /// Returns all bytes before `position` to the producers.
    void release_to(std::uint64_t position) noexcept {
        control_->head.store(position, std::memory_order_seq_cst);
    }

    /// Sequentially consistent for the same reason as room_for().
    std::uint64_t head() const noexcept { return control_->head.load(std::memory_order_seq_cst); }

    // ---- facts ---------------------------------------------------------------------------------

    std::size_t capacity() const noexcept { return capacity_; }
    /// Larger records are rejected, so that a few of them cannot occupy the whole ring.
    std::size_t max_record_size() const noexcept { return capacity_ / 8; }
    std::size_t max_payload() const noexcept { return max_record_size() - sizeof(RecordHeader); }

    /// Never 0 (fresh memory), because positions are multiples of 32 and the salt is odd.
    std::uint64_t stamp_for(std::uint64_t position) const noexcept {
        return (position ^ salt_) * 0x9E3779B97F4A7C15ULL;
    }

  private:
    enum class Checksums : std::uint8_t { none, by_program, by_processor };

    bool has_room(std::uint64_t end, std::uint64_t head) const noexcept {
        return static_cast<std::int64_t>(end - head) <= static_cast<std::int64_t>(capacity_);
    }

    // A producer that was interrupted after its commit may pass a position that has already been read.
    static std::uint64_t used_since(std::uint64_t head, std::uint64_t position) noexcept {
        return position > head ? position - head : 0;
    }

    std::byte* at(std::uint64_t position) const noexcept {
        return data_ + (position & (capacity_ - 1));
    }

    static Stamp* stamp_at(std::byte* place) noexcept { return reinterpret_cast<Stamp*>(place); }

    [[gnu::noinline]] void write_pad(std::uint64_t position, std::uint64_t size) noexcept {
        const Claim claim{position, at(position)};
        fill_header(claim, static_cast<std::uint32_t>(size - sizeof(RecordHeader)), 0, 0,
                    RecordKind::pad, Stream::metrics);
        commit(claim);
    }

    // Written once at construction, then read-only for all threads.
    Control* control_ = nullptr;
    std::byte* data_ = nullptr;
    std::uint64_t capacity_ = 0;
    std::uint64_t salt_ = 0;
    Checksums checksums_ = Checksums::none;
};

using RingControl = BasicRingControl<std::atomic>;
using MpscRing = BasicMpscRing<std::atomic>;

}  // namespace fastlog
