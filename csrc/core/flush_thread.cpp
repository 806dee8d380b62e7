#include "core/flush_thread.hpp"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <mutex>
#include <new>
#include <system_error>
#include <utility>

#include "core/quiet_thread.hpp"

namespace fastlog {

void FlushThread::Source::committed(const CommitSlot& slot) noexcept {
    flush_thread_.publish_progress();
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        flush_thread_.written_to_[s].store(slot.stream_position(static_cast<Stream>(s)),
                                           std::memory_order_seq_cst);  // see notify_waiters()
    }
}

void FlushThread::Source::released() noexcept { flush_thread_.notify_waiters(); }

// A waiting record keeps its bytes of the ring, but must not take half of the ring away from producers.
bool FlushThread::Source::must_settle(std::uint64_t position, std::int64_t made_ns,
                                      MissingReason& why) {
    if (flush_thread_.give_up_values_.load(std::memory_order_relaxed) ||
        monotonic_ns() - made_ns >= flush_thread_.options_.device_timeout_ns) {
        why = MissingReason::timeout;
        return true;
    }
    why = MissingReason::no_room;
    return ring_.tail() - position > ring_.capacity() / 2;
}

void FlushThread::Source::rendered_metrics(const RecordHeader& record,
                                           const LineRenderer& renderer) {
    flush_thread_.watch_.observe(record, renderer);
    flush_thread_.emit_events();
}

FlushThread::FlushThread(Owner& owner, MpscRing& ring, RingMemory& memory, StreamFiles& sink,
                         Options options, AttentionBits& attention)
    : owner_(owner),
      ring_(ring),
      memory_(memory),
      attention_(attention),
      options_(std::move(options)),
      sink_(sink),
      renderer_(memory.key_table(), memory.key_table_bytes()),
      watch_(options_.watch),
      source_(*this, ring, memory),
      batch_writer_(source_, sink_, renderer_, CommitSlot{}, options_.fsync,
                    [this](const SinkError& error) { note_error(error); }) {
    batch_writer_.commit_start();
    publish_facts(0);
}

void FlushThread::start() {
    thread_ = start_quiet_thread([this] { run(); });
}

// ---- called by other threads --------------------------------------------------------------------

void FlushThread::wake() {
    const std::lock_guard lock(wake_monitor_);
    wake_requested_ = true;
    wake_monitor_.notify_all();
}

void FlushThread::wake_checked(std::uint64_t end) noexcept {
    if (wake_pending_.load(std::memory_order_relaxed)) return;
    if (ring_.used_exactly(end) <= ring_.capacity() / 2) return;
    wake_once();
}

template <class Reached>
bool FlushThread::wait_reached(Reached&& reached, std::int64_t deadline_ns) {
    waiters_.fetch_add(1, std::memory_order_seq_cst);  // before wake(): see nap_ns(), publish()
    wake();
    const std::lock_guard lock(progress_);
    bool there;
    while (!(there = reached()) && monotonic_ns() < deadline_ns) {
        progress_.wait_until(deadline_ns);
    }
    waiters_.fetch_sub(1, std::memory_order_relaxed);
    return there;
}

bool FlushThread::wait_written(std::uint64_t position, std::int64_t deadline_ns) {
    return wait_reached([&] { return ring_.head() >= position; }, deadline_ns);
}

bool FlushThread::wait_written(Stream stream, std::uint64_t position, std::int64_t deadline_ns) {
    const auto& written_to = written_to_[static_cast<std::size_t>(stream)];
    return wait_reached([&] { return written_to.load(std::memory_order_seq_cst) >= position; },
                        deadline_ns);
}

bool FlushThread::wait_room(std::size_t payload, std::int64_t deadline_ns) {
    return wait_reached([&] { return ring_.room_for(payload); }, deadline_ns);
}

void FlushThread::give_up_values() noexcept {
    give_up_values_.store(true, std::memory_order_relaxed);
    wake();  // its lock orders the flag
}

void FlushThread::request_close(std::uint64_t final_tail) {
    const std::lock_guard lock(wake_monitor_);
    closing_ = true;
    final_tail_ = final_tail;
    wake_requested_ = true;
    wake_monitor_.notify_all();
}

bool FlushThread::wait_done(std::int64_t deadline_ns) {
    const std::lock_guard lock(progress_);
    while (!done_ && monotonic_ns() < deadline_ns) progress_.wait_until(deadline_ns);
    return done_;
}

void FlushThread::join() {
    if (thread_.joinable()) thread_.join();
}

FlushThreadStats FlushThread::stats() const {
    const std::lock_guard lock(progress_);
    return published_;
}

std::vector<std::string> FlushThread::files() const {
    const FlushThreadStats now = stats();
    std::uint32_t segments[kStreamCount];
    for (std::size_t s = 0; s < kStreamCount; ++s) segments[s] = now.streams[s].segments;
    return sink_.paths(now.label, segments);
}

std::vector<std::string> FlushThread::take_messages() {
    const std::lock_guard lock(progress_);
    return std::exchange(messages_, {});
}

void FlushThread::tell(std::string message) {
    {
        const std::lock_guard lock(progress_);
        messages_.push_back(std::move(message));
    }
    attention_.set(AttentionBits::kMessages);
}

// ---- the flush thread ---------------------------------------------------------------------------

void FlushThread::run() {
#if defined(__APPLE__)
    ::pthread_setname_np("fastlog-flush");
#else
    ::pthread_setname_np(::pthread_self(), "fastlog-flush");
#endif
    bool finished = false;
    bool closing = false;
    while (!finished) {
        sleep_until(monotonic_ns() + nap_ns(closing));
        std::uint64_t final_tail;
        {
            const std::lock_guard lock(wake_monitor_);
            closing = closing_;
            final_tail = final_tail_;
        }
        try {
            finished = attend(closing, final_tail);
        } catch (const std::exception& error) {
            // Out of memory. Rendered lines are in the batch, the rest is in the ring: retry.
            back_off();
            note_exception(error);
        }
    }
    const std::lock_guard lock(progress_);
    done_ = true;
    progress_.notify_all();
}

// One round; true when everything is written and the thread should end.
bool FlushThread::attend(bool closing, std::uint64_t final_tail) {
    bool finished = false;
    bool clean = drain();
    if (closing && clean && batch_writer_.position() == final_tail) {
        add_final_drops();
        clean = drain() && (options_.fsync == Fsync::none || batch_writer_.sync_committed());
        finished = clean;
    }
    // Before nap_ns() reads the tail: a producer that still saw `true` has claimed by then.
    if (clean) wake_pending_.exchange(false, std::memory_order_seq_cst);
    housekeeping(finished || !clean);
    return finished;
}

// While a record is claimed but not committed, its producer is at work and will not wake anybody. So neither
// a caller that waits for a later record nor a ring that fills up is left to the timer.
std::int64_t FlushThread::nap_ns(bool closing) const noexcept {
    if (backoff_ns_ != 0) return backoff_ns_;
    const std::uint64_t left = ring_.tail() - batch_writer_.position();
    const bool awaited = closing || waiters_.load(std::memory_order_relaxed) != 0;
    if (left > ring_.capacity() / 2 || (awaited && left != 0)) {
        return std::min(kPollNs, options_.interval_ns);
    }
    return options_.interval_ns;
}

void FlushThread::sleep_until(std::int64_t deadline_ns) {
    const std::lock_guard lock(wake_monitor_);
    while (!wake_requested_ && monotonic_ns() < deadline_ns) {
        wake_monitor_.wait_until(deadline_ns);
    }
    wake_requested_ = false;
}

// Writes everything that is committed; false if the sink refused and the batch has to be retried.
bool FlushThread::drain() {
    for (;;) {
        const std::uint64_t used = ring_.tail() - ring_.head();
        if (used > published_.high_water_bytes) {
            const std::lock_guard lock(progress_);
            published_.high_water_bytes = used;
        }
        const BatchWriter::Step step = batch_writer_.step();
        if (step == BatchWriter::Step::refused) {
            back_off();
            return false;
        }
        backoff_ns_ = 0;
        if (step == BatchWriter::Step::idle) {
            if (DeviceValues* values = device(); values != nullptr) {
                if (values->has_kept()) attention_.set(AttentionBits::kKept);
                if (std::string notice = values->take_notice(); !notice.empty()) {
                    tell(std::move(notice));
                }
            }
            return true;
        }
        housekeeping(false);  // producers may keep this loop busy for a long time
    }
}

// For values that turned NaN or infinite. An event that finds no room is recorded with the next one.
void FlushThread::emit_events() noexcept {
    while (!watch_.events().empty() && owner_.emit(watch_.events().front())) watch_.pop_event();
}

void FlushThread::back_off() noexcept {
    backoff_ns_ = backoff_ns_ == 0 ? kFirstBackoffNs : std::min(2 * backoff_ns_, kLongestBackoffNs);
}

void FlushThread::housekeeping(bool now_please) {
    const std::int64_t now = monotonic_ns();
    if (!now_please && now - last_facts_ns_ < options_.interval_ns) return;
    last_facts_ns_ = now;
    publish_facts(clock_ns(CLOCK_THREAD_CPUTIME_ID));
    if (options_.fsync == Fsync::interval && now - last_sync_ns_ >= options_.fsync_interval_ns) {
        batch_writer_.sync_committed();
        last_sync_ns_ = monotonic_ns();
    }
    memory_.populate(ring_.tail(), kAheadBytes);
    memory_.keep_lock(sink_.directory());
    if (memory_.broken()) leave_ring_file();
    if (!now_please && now - last_tick_ns_ < 1'000'000'000) return;
    last_tick_ns_ = now;
    owner_.tick();
}

void FlushThread::leave_ring_file() {
    const std::string text = "keep the ring in " + memory_.path() +
                             ": its file system has no room for its pages, or has failed";
    note_text(EIO, text);
    tell("foundry_fastlog could not " + text +
         ". Training goes on with a ring in memory: if the process is killed, it loses what it "
         "recorded in the last " +
         std::to_string(options_.interval_ns / 1'000'000) + " ms.");
    count_error();
    memory_.leave_file(sink_.own_directory());
}

// What the files hold now, for stats(): published before the head moves, because a caller that waited for the
// head may call stats() next.
void FlushThread::publish_progress() noexcept {
    publish_files();
    const std::lock_guard lock(progress_);
    const BatchWriter::Counters& counters = batch_writer_.counters();
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        published_.streams[s].written = counters.written[s];
        published_.streams[s].bytes = counters.bytes[s];
    }
    published_.missing = counters.missing;
    published_.first_record_ticks = batch_writer_.first_ticks();
}

void FlushThread::notify_waiters() noexcept {
    // A waiter counts itself before it reads the head, and this thread moves the head before it reads the
    // count, all sequentially consistent: at least one of the two sees the other.
    if (waiters_.load(std::memory_order_seq_cst) == 0) return;
    const std::lock_guard lock(progress_);
    progress_.notify_all();
}

void FlushThread::publish_facts(std::int64_t cpu_ns) {
    const double ns_per_tick = renderer_.clock().duration_ns(1'000'000'000) / 1e9;
    ns_per_tick_.store(ns_per_tick, std::memory_order_relaxed);
    publish_files();
    const std::lock_guard lock(progress_);
    published_.ns_per_tick = ns_per_tick;
    published_.cpu_ns = cpu_ns;
}

// Publishes the label and the number of files if they have changed. If there is no memory, later.
void FlushThread::publish_files() noexcept {
    bool same = published_.label_known == sink_.claimed() && published_.label == sink_.label() &&
                published_.directory == sink_.directory_id();
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        same = same && published_.streams[s].segments == sink_.segments(static_cast<Stream>(s));
    }
    if (same) return;
    try {
        std::string label = sink_.label();
        const std::lock_guard lock(progress_);
        published_.label_known = sink_.claimed();
        published_.label.swap(label);
        published_.directory = sink_.directory_id();
        for (std::size_t s = 0; s < kStreamCount; ++s) {
            published_.streams[s].segments = sink_.segments(static_cast<Stream>(s));
        }
    } catch (const std::bad_alloc& error) {
        note_exception(error);  // counted; retried with the next batch
    }
}

// Drops that no later record could mark are written as the last line of their stream.
void FlushThread::add_final_drops() {
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        batch_writer_.reserve_line(
            static_cast<Stream>(s));  // drops are not lost after take_drops()
        const std::uint64_t dropped = owner_.take_drops(static_cast<Stream>(s));
        if (dropped == 0) continue;
        batch_writer_.add_drops(static_cast<Stream>(s), dropped, now_ticks());
    }
}

void FlushThread::note_error(const SinkError& error) {
    count_error();
    describe_error(error);
}

void FlushThread::note_exception(const std::exception& error) noexcept {
    count_error();
    try {
        const bool memory = dynamic_cast<const std::bad_alloc*>(&error) != nullptr;
        describe_error({memory ? ENOMEM : EINVAL, std::string("render records: ") + error.what()});
    } catch (const std::exception&) {
        // No memory for the text either: the next error will have one.
    }
}

void FlushThread::count_error() noexcept {
    const std::lock_guard lock(progress_);
    ++published_.errors;
}

void FlushThread::note_text(int code, const std::string& text) {
    const std::lock_guard lock(progress_);
    if (published_.first_error.empty()) published_.first_error = text;
    published_.last_error = text;
    published_.last_code = code;
}

void FlushThread::describe_error(const SinkError& error) {
    std::string text = error.what + ": " + std::system_category().message(error.code) + " (errno " +
                       std::to_string(error.code) + ")";
    note_text(error.code, text);
    if (told_error_) return;
    const bool in_file = memory_.mapped() && ::access(memory_.path().c_str(), F_OK) == 0;
    tell("foundry_fastlog could not " + text + ". Training goes on, records wait in " +
         (in_file ? "the ring file " + memory_.path() : "memory") + " and the write is retried; " +
         remedy(error.code) +
         " before the ring is full. stats()['last_error'] has the latest state.");
    told_error_ = true;
}

}  // namespace fastlog
