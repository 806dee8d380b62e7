// One process's recorder: ring, key table, flush thread, and the life cycle open -> closing -> closed.
// Contains no Python.
//
// Ownership: created and closed by its owner; submit() and the counters by any thread; drops_ by producers
// and, at the end, the flush thread (exchange: a drop is marked exactly once).
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "core/attention_bits.hpp"
#include "core/call_counters.hpp"
#include "core/collector.hpp"
#include "core/flush_thread.hpp"
#include "core/fork_watch.hpp"
#include "core/hot_page.hpp"
#include "core/key_table.hpp"
#include "core/mpsc_ring.hpp"
#include "core/ring_memory.hpp"

namespace fastlog {

/// What record() does when the ring is full.
enum class BackPressure : std::uint8_t {
    block,  // wait for a limited time, then drop; no further wait until something was written
    drop,   // drop at once
};

struct RecorderOptions {
    StreamFilesOptions sink;
    std::size_t ring_bytes = std::size_t{8} << 20;  // a power of two, at least 64 KiB
    BackPressure back_pressure = BackPressure::block;
    std::int64_t block_timeout_ns = 1'000'000'000;
    std::int64_t flush_interval_ns = 100'000'000;
    double overhead_budget = 0.01;  // fraction of wall time; reported once if exceeded
    RingPlace ring_place = RingPlace::file;
    std::int32_t rank = -1;  // -1: none
    Fsync fsync = Fsync::interval;
    std::int64_t fsync_interval_ns = 1'000'000'000;
    std::int64_t device_timeout_ns =
        120'000'000'000;  // after this, a value that did not arrive is missing
    WatchNonfinite watch_nonfinite = WatchNonfinite::device;
};

struct RecorderStats {
    CallTotals calls;
    FlushThreadStats flush;
    std::uint64_t ring_bytes = 0;
    std::string ring_path;  // empty: in memory only
    std::uint32_t key_sets = 0;
    std::uint64_t device_values = 0;  // that devices had to deliver
    std::uint64_t device_waiting = 0;
    std::uint64_t device_missing = 0;  // in lines
    std::uint64_t left_out = 0;        // values that no line can hold
    double blocked_s = 0;
    double logging_s = 0;
    double wall_s = 0;  // since the first record
    double overhead_fraction = 0;
    double mean_ns[kCallKinds]{};  // sampled
};

class Recorder final : ForkWatched, FlushThread::Owner {
  public:
    enum class Submit : std::uint8_t { accepted, full, closed, too_large };

    /// Opens the ring and starts the flush thread. A directory that cannot be written is not an error here:
    /// it is reported, counted and retried. Throws std::system_error without memory or thread, or
    /// std::bad_alloc; then the files that it had created are removed again.
    explicit Recorder(RecorderOptions options,
                      std::shared_ptr<HotPage> page = std::make_shared<HotPage>());
    /// Only after close() returned true. A recorder whose thread hangs must be leaked.
    ~Recorder();
    Recorder(const Recorder&) = delete;
    Recorder& operator=(const Recorder&) = delete;

    HotPage& page() noexcept { return *page_; }
    AttentionBits& attention() noexcept { return attention_; }
    ThreadSlot& slot() noexcept { return page_->slot(); }
    CallCounters& counters() noexcept { return slots_; }
    KeyTable& keys() noexcept { return keys_; }
    const RecorderOptions& options() const noexcept { return options_; }
    /// The writer's label, if the constructor could claim it.
    const std::string& label() const noexcept { return label_; }
    std::size_t max_payload() const noexcept { return ring_.max_payload(); }
    double ns_per_tick() const noexcept { return flush_thread_.ns_per_tick(); }

    /// Tries once to put a record into the ring of `page`; `write(std::byte*)` fills its `length` bytes of payload
    /// in place, and must neither fail nor run other code. Wait-free except for competition between producers.
    template <class Write>
    [[gnu::always_inline]] static Submit submit(HotPage& page, RecordKind kind, Stream stream,
                                                std::uint64_t ticks, std::uint32_t thread_id,
                                                std::size_t length, Write&& write,
                                                std::uint16_t flags = 0) noexcept {
        MpscRing::Claim claim;
        const ClaimStatus status = page.ring.try_claim(length, claim);
        if (status != ClaimStatus::claimed) [[unlikely]]
            return refused(status);
        MpscRing::fill_header(claim, static_cast<std::uint32_t>(length), ticks, thread_id, kind,
                              stream, flags);
        write(MpscRing::payload_of(claim));
        page.ring.commit(claim, length);
        const std::uint64_t end = claim.position + record_size(length);
        if (page.ring.is_half_full(end)) [[unlikely]]
            page.core->flush_thread_.wake_if_half_full(end);
        return Submit::accepted;
    }

    /// The same for this recorder, copying the payload.
    Submit submit(RecordKind kind, Stream stream, std::uint64_t ticks, std::uint32_t thread_id,
                  const void* payload, std::size_t length) noexcept {
        return submit(*page_, kind, stream, ticks, thread_id, length,
                      [&](std::byte* at) { std::memcpy(at, payload, length); });
    }

    /// True if the policy allows waiting for room now: policy block, and no wait has timed out since the last
    /// write.
    bool may_block() const noexcept {
        return options_.back_pressure == BackPressure::block &&
               vain_wait_at_.load(std::memory_order_relaxed) != ring_.head();
    }
    /// Waits for room, as long as the policy allows; call without any lock. Counts the time as blocked.
    bool wait_for_room(std::size_t payload);

    /// Counts a dropped record; the next accepted one is preceded by a marker.
    void count_drop(Stream stream, bool too_large) noexcept;
    /// Counts calls whose records were dropped before this recorder existed.
    void count_lost_calls(CallKind call, Stream stream, std::uint64_t calls) noexcept;
    /// Puts markers for counted drops into the ring if there is room.
    void submit_drop_markers();

    /// True when everything accepted before the call is in the files, including device values.
    bool flush(std::int64_t timeout_ns);
    /// The same for one stream.
    bool flush(Stream stream, std::int64_t timeout_ns);
    /// Called before the first record with tickets is submitted: `make()` returns what delivers their values,
    /// as a std::unique_ptr, which is kept.
    template <class Make>
    void use_device(Make&& make) {
        if (flush_thread_.device() != nullptr) [[likely]]
            return;
        const std::lock_guard lock(device_mutex_);
        if (device_ == nullptr) device_ = make();
        flush_thread_.set_device(device_.get());
    }
    bool has_device() const noexcept { return flush_thread_.device() != nullptr; }
    /// Counts values that a producer has sent. After use_device().
    void count_device_values(std::uint64_t sent) noexcept {
        flush_thread_.device()->counts.sent.fetch_add(sent, std::memory_order_relaxed);
    }
    /// Counts values missing in a fragment's line; for all other records the flush thread counts them.
    void count_missing_in_fragment(std::uint64_t values) noexcept {
        missing_in_fragments_.fetch_add(values, std::memory_order_relaxed);
    }
    /// Undoes the count for a record that was not accepted.
    void uncount_device_values(std::uint64_t sent) noexcept {
        flush_thread_.device()->counts.sent.fetch_sub(sent, std::memory_order_relaxed);
    }
    /// Makes the flush thread check now.
    void wake() noexcept { flush_thread_.wake_once(); }
    /// Rejects further records, writes all accepted ones, ends the thread. True when everything is written.
    /// May be called again after it returned false.
    bool close(std::int64_t timeout_ns);
    /// Marks a recorder inherited through fork() as closed: its thread and memory are the parent's.
    void abandon_in_child() noexcept { attention_.set(AttentionBits::kClosed); }
    RecorderStats stats() const;
    /// The files created so far, by stream and segment.
    std::vector<std::string> files() const { return flush_thread_.files(); }
    std::vector<std::string> take_messages() { return flush_thread_.take_messages(); }
    void tell(std::string message) { flush_thread_.tell(std::move(message)); }

  private:
    // Undoes a step of the constructor, unless the constructor completes.
    class Undo {
      public:
        Undo(Recorder& recorder, void (*undo)(Recorder&) noexcept) noexcept
            : recorder_(recorder), undo_(undo) {}
        ~Undo() {
            if (undo_ != nullptr) undo_(recorder_);
        }
        Undo(const Undo&) = delete;
        Undo& operator=(const Undo&) = delete;
        void keep() noexcept { undo_ = nullptr; }

      private:
        Recorder& recorder_;
        void (*undo_)(Recorder&) noexcept;
    };

    void notice_fork() noexcept override { attention_.set(AttentionBits::kForked); }
    void note_drops(Stream stream, std::uint64_t count) noexcept;
    void tell_drop(bool too_large);
    [[gnu::cold]] static Submit refused(ClaimStatus status) noexcept;
    static RingSpec ring_spec(const RecorderOptions& options, StreamFiles& sink, SinkError& error);
    void tick() override;
    std::uint64_t take_drops(Stream stream) noexcept override;
    bool emit(const std::string& members) noexcept override;
    void check_budget();

    const RecorderOptions options_;
    StreamFiles sink_;       // the flush thread's, once it runs
    SinkError claim_error_;  // written by the constructor
    SinkError ring_error_;   // likewise
    Undo claim_undo_{*this, [](Recorder& r) noexcept { r.sink_.withdraw(); }};
    RingMemory memory_;
    Undo file_undo_{*this,
                    [](Recorder& r) noexcept { r.memory_.remove_file(r.sink_.own_directory()); }};
    const std::string label_;
    const std::shared_ptr<HotPage> page_;
    MpscRing& ring_;  // in the page, like the next
    AttentionBits& attention_;
    CallCounters slots_;
    KeyTable keys_;
    std::mutex marker_mutex_;  // held while counted drops are made into a marker
    std::atomic<std::uint64_t> all_drops_[kStreamCount]{};  // since the start
    std::atomic<std::uint64_t> vain_wait_at_{UINT64_MAX};   // the head when a wait timed out
    std::atomic<std::uint64_t> missing_in_fragments_{0};
    std::atomic<bool> told_drop_{false};
    std::atomic<bool> told_too_large_{false};
    bool reported_budget_ = false;                  // flush thread only
    Collector collector_{options_.sink.directory};  // flush thread only
    std::atomic<std::uint64_t> closed_at_{0};       // ticks; 0 while open
    const std::uint64_t python_before_ = CallerTime::ticks();
    std::atomic<std::uint64_t> python_until_{0};  // set before closed_at_
    bool joined_ = false;                         // guarded by close_mutex_
    std::mutex close_mutex_;
    std::mutex device_mutex_;
    std::unique_ptr<DeviceValues> device_;  // guarded by device_mutex_; used by the flush thread
    FlushThread flush_thread_;
};

}  // namespace fastlog
