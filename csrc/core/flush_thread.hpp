// The flush thread: wake, drain, publish, report. It never touches Python.
//
// Ownership:
//   flush thread only    sink_, renderer_, batch_writer_, back-off and times
//   any thread           wake(), wait_written(), wait_room(), stats(), request_close(), wait_done()
// `progress_` guards what the flush thread publishes (published_, done_).
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <string>
#include <thread>
#include <vector>

#include "core/attention_bits.hpp"
#include "core/batch_writer.hpp"
#include "core/line_renderer.hpp"
#include "core/live_ring.hpp"
#include "core/monitor.hpp"
#include "core/mpsc_ring.hpp"
#include "core/nonfinite_watch.hpp"
#include "core/ring_memory.hpp"
#include "core/stream_files.hpp"

namespace fastlog {

struct StreamStats {
    std::uint64_t written = 0;  // records in the file, not counting drop markers
    std::uint64_t bytes = 0;
    std::uint64_t dropped = 0;  // filled in by the Recorder
    std::uint32_t segments = 0;
};

struct FlushThreadStats {
    StreamStats streams[kStreamCount];
    std::uint64_t missing = 0;  // device values missing in the lines of the files
    std::uint64_t errors = 0;
    std::string first_error;
    std::string last_error;
    int last_code = 0;  // its errno
    std::int64_t cpu_ns = 0;
    std::uint64_t high_water_bytes = 0;
    std::uint64_t first_record_ticks = 0;  // 0: no record yet
    double ns_per_tick = 1.0;
    bool label_known = false;
    FileId directory;  // of the files
    std::string label;
};

class FlushThread {
  public:
    struct Options {
        std::int64_t interval_ns = 100'000'000;
        Fsync fsync = Fsync::interval;
        std::int64_t fsync_interval_ns = 1'000'000'000;
        std::int64_t device_timeout_ns = 120'000'000'000;
        WatchNonfinite watch = WatchNonfinite::device;
    };
    /// What the flush thread asks of its recorder, in its own thread.
    class Owner {
      public:
        /// Called about once a second.
        virtual void tick() = 0;
        /// Takes the count of a stream's drops that no marker has reported.
        virtual std::uint64_t take_drops(Stream stream) noexcept = 0;
        /// Records an event, like any producer: adds a line with these members to the errors stream. False if
        /// there is no room now.
        virtual bool emit(const std::string& members) noexcept = 0;

      protected:
        ~Owner() = default;
    };

    /// How far ahead of the tail the flush thread makes the pages of a mapped ring writable.
    static constexpr std::size_t kAheadBytes = std::size_t{256} << 10;
    static constexpr std::int64_t kPollNs = 1'000'000;  // for a commit that somebody waits for
    static constexpr std::int64_t kFirstBackoffNs = 100'000'000;
    static constexpr std::int64_t kLongestBackoffNs = 5'000'000'000;

    /// `sink` has claimed its label, or could not do so yet.
    FlushThread(Owner& owner, MpscRing& ring, RingMemory& memory, StreamFiles& sink,
                Options options, AttentionBits& attention);
    /// The thread must have ended (wait_done() returned true and join() was called).
    ~FlushThread() = default;
    FlushThread(const FlushThread&) = delete;
    FlushThread& operator=(const FlushThread&) = delete;

    /// Starts the thread. Throws std::system_error if the system cannot start one.
    void start();

    /// Makes the thread drain now. Producers call it only when the ring has become half full.
    void wake();
    /// The same for a producer that may ask repeatedly: one notification per drain is enough.
    void wake_once() noexcept {
        if (!wake_pending_.exchange(true, std::memory_order_relaxed)) wake();
    }
    void wake_if_half_full(std::uint64_t end) noexcept {
        if (ring_.is_half_full(end)) [[unlikely]]
            wake_checked(end);
    }

    /// Sets what delivers the values of records with tickets; called before the first of them is committed.
    void set_device(DeviceValues* device) noexcept {
        device_.store(device, std::memory_order_release);
    }
    DeviceValues* device() const noexcept { return device_.load(std::memory_order_acquire); }
    /// Device values are no longer waited for: the process is about to exit.
    void give_up_values() noexcept;

    /// Waits until everything before `position` is in the files; false at the deadline.
    bool wait_written(std::uint64_t position, std::int64_t deadline_ns);
    /// Waits for one stream only: device values that another stream waits for do not delay it.
    bool wait_written(Stream stream, std::uint64_t position, std::int64_t deadline_ns);
    /// Waits until a record with `payload` bytes may fit; false at the deadline.
    bool wait_room(std::size_t payload, std::int64_t deadline_ns);

    /// Tells the thread to write everything before `final_tail` and then to end.
    void request_close(std::uint64_t final_tail);
    /// Waits for the thread to end; false at the deadline.
    bool wait_done(std::int64_t deadline_ns);
    void join();

    FlushThreadStats stats() const;
    /// The files created so far, by stream and segment. Their names are not stored: a run of months has many.
    std::vector<std::string> files() const;
    double ns_per_tick() const noexcept { return ns_per_tick_.load(std::memory_order_relaxed); }
    std::vector<std::string> take_messages();
    /// Counts and reports an error from before the thread started.
    void tell_claim(const SinkError& error) {
        if (error) note_error(error);
    }
    /// Queues a message for the user and sets the attention bit for it.
    void tell(std::string message);

  private:
    // The live ring, and whom to notify of a commit.
    class Source final : public LiveRing {
      public:
        Source(FlushThread& flush_thread, MpscRing& ring, RingMemory& memory)
            : LiveRing(ring, memory), flush_thread_(flush_thread) {}
        DeviceValues* device() override { return flush_thread_.device(); }
        bool must_settle(std::uint64_t position, std::int64_t made_ns, MissingReason& why) override;
        void rendered_metrics(const RecordHeader& record, const LineRenderer& renderer) override;

      private:
        void committed(const CommitSlot& slot) noexcept override;
        void released() noexcept override;

        FlushThread& flush_thread_;
    };

    template <class Reached>
    bool wait_reached(Reached&& reached, std::int64_t deadline_ns);
    void run();
    void emit_events() noexcept;
    bool attend(bool closing, std::uint64_t final_tail);
    bool drain();
    void publish_progress() noexcept;
    void notify_waiters() noexcept;
    void back_off() noexcept;
    void publish_facts(std::int64_t cpu_ns);
    void publish_files() noexcept;
    void housekeeping(bool now_please);
    void add_final_drops();
    void note_error(const SinkError& error);
    void count_error() noexcept;
    void describe_error(const SinkError& error);
    void note_text(int code, const std::string& text);
    void leave_ring_file();
    void note_exception(const std::exception& error) noexcept;
    std::int64_t nap_ns(bool closing) const noexcept;
    void sleep_until(std::int64_t deadline_ns);
    void wake_checked(std::uint64_t end) noexcept;

    Owner& owner_;
    MpscRing& ring_;
    RingMemory& memory_;
    AttentionBits& attention_;
    const Options options_;
    std::thread thread_;

    // Flush thread only.
    StreamFiles& sink_;
    LineRenderer renderer_;
    NonfiniteWatch watch_;
    Source source_;
    BatchWriter batch_writer_;
    std::int64_t backoff_ns_ = 0;
    bool told_error_ = false;
    std::int64_t last_facts_ns_ = 0;
    std::int64_t last_tick_ns_ = 0;
    std::int64_t last_sync_ns_ = 0;

    // Producers and flush thread.
    alignas(kCacheLine) std::atomic<bool> wake_pending_{false};
    std::atomic<std::uint32_t> waiters_{0};
    std::atomic<std::uint64_t> written_to_[kStreamCount]{};  // per stream, like the ring's head
    std::atomic<DeviceValues*> device_{nullptr};
    std::atomic<bool> give_up_values_{false};
    std::atomic<double> ns_per_tick_{1.0};

    // Guarded by wake_monitor_.
    Monitor wake_monitor_;
    bool wake_requested_ = false;
    bool closing_ = false;
    std::uint64_t final_tail_ = 0;

    // Guarded by progress_.
    mutable Monitor progress_;
    FlushThreadStats published_;
    std::vector<std::string> messages_;
    bool done_ = false;
};

}  // namespace fastlog
