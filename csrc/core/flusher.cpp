#include "core/flusher.hpp"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <mutex>
#include <new>
#include <system_error>
#include <utility>

namespace fastlog {

bool Flusher::Batch::empty() const noexcept { return size() == 0; }

std::size_t Flusher::Batch::size() const noexcept {
    std::size_t sum = 0;
    for (const auto& b : bytes) sum += b.size();
    return sum;
}

void Flusher::Batch::clear() noexcept {
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        bytes[s].clear();
        written[s] = 0;
        records[s] = 0;
    }
}

Flusher::Flusher(MpscRing& ring, const std::byte* key_arena, Options options, Gate& gate, Tick tick,
                 TakeDrops take_drops)
    : ring_(ring),
      gate_(gate),
      options_(std::move(options)),
      tick_(std::move(tick)),
      take_drops_(std::move(take_drops)),
      sink_(options_.sink),
      renderer_(key_arena),
      cursor_(ring.head()) {
    // Claim the label in the caller's thread, so that the file names are known when open returns.
    // Where that fails, the thread goes on trying.
    if (SinkError error = sink_.claim()) note_error(error);
    publish_facts(0);
}

void Flusher::start() {
    // The thread inherits a full signal mask: signals belong to the program's own threads.
    sigset_t all;
    sigset_t old;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &old);
    try {
        thread_ = std::thread([this] { run(); });
    } catch (...) {
        ::pthread_sigmask(SIG_SETMASK, &old, nullptr);
        throw;
    }
    ::pthread_sigmask(SIG_SETMASK, &old, nullptr);
}

// ---- called by other threads --------------------------------------------------------------------

void Flusher::wake() {
    const std::lock_guard lock(wake_monitor_);
    wake_requested_ = true;
    wake_monitor_.notify_all();
}

void Flusher::wake_checked(std::uint64_t end) noexcept {
    if (wake_pending_.load(std::memory_order_relaxed)) return;
    if (ring_.used_exactly(end) <= ring_.capacity() / 2) return;
    if (!wake_pending_.exchange(true, std::memory_order_relaxed)) wake();
}

bool Flusher::wait_written(std::uint64_t position, std::int64_t deadline_ns) {
    waiters_.fetch_add(1, std::memory_order_seq_cst);  // before wake(): see nap_ns(), publish()
    wake();
    const std::lock_guard lock(progress_);
    while (ring_.head() < position && monotonic_ns() < deadline_ns) {
        progress_.wait_until(deadline_ns);
    }
    waiters_.fetch_sub(1, std::memory_order_relaxed);
    return ring_.head() >= position;
}

bool Flusher::wait_room(std::size_t payload, std::int64_t deadline_ns) {
    waiters_.fetch_add(1, std::memory_order_seq_cst);  // before wake(): see nap_ns(), publish()
    wake();
    const std::lock_guard lock(progress_);
    bool room;
    while (!(room = ring_.room_for(payload)) && monotonic_ns() < deadline_ns) {
        progress_.wait_until(deadline_ns);
    }
    waiters_.fetch_sub(1, std::memory_order_relaxed);
    return room;
}

void Flusher::request_close(std::uint64_t final_tail) {
    const std::lock_guard lock(wake_monitor_);
    closing_ = true;
    final_tail_ = final_tail;
    wake_requested_ = true;
    wake_monitor_.notify_all();
}

bool Flusher::wait_done(std::int64_t deadline_ns) {
    const std::lock_guard lock(progress_);
    while (!done_ && monotonic_ns() < deadline_ns) progress_.wait_until(deadline_ns);
    return done_;
}

void Flusher::join() {
    if (thread_.joinable()) thread_.join();
}

FlusherStats Flusher::stats() const {
    const std::lock_guard lock(progress_);
    return published_;
}

std::vector<std::string> Flusher::take_messages() {
    const std::lock_guard lock(progress_);
    return std::exchange(messages_, {});
}

void Flusher::tell(std::string message) {
    {
        const std::lock_guard lock(progress_);
        messages_.push_back(std::move(message));
    }
    gate_.set(Gate::kMessages);
}

// ---- the flush thread ---------------------------------------------------------------------------

void Flusher::run() {
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
            // Memory ran out. What was rendered is in the batch, the rest is in the ring: try again.
            back_off();
            note_exception(error);
        }
    }
    const std::lock_guard lock(progress_);
    done_ = true;
    progress_.notify_all();
}

// One round; true when all is written and the thread is to end.
bool Flusher::attend(bool closing, std::uint64_t final_tail) {
    bool finished = false;
    bool clean = drain();
    if (closing && clean && cursor_ == final_tail) {
        add_final_drops();
        clean = drain();
        finished = clean;
    }
    // Before nap_ns() looks at the tail: a producer that still saw `true` has claimed by then.
    if (clean) wake_pending_.exchange(false, std::memory_order_seq_cst);
    housekeeping(finished || !clean);
    return finished;
}

// A record that is claimed but not committed has a producer at work on it, which will not wake
// anybody: neither whoever waits behind that record nor a ring that fills up waits for the timer.
std::int64_t Flusher::nap_ns(bool closing) const noexcept {
    if (backoff_ns_ != 0) return backoff_ns_;
    const std::uint64_t left = ring_.tail() - cursor_;
    const bool awaited = closing || waiters_.load(std::memory_order_relaxed) != 0;
    if (left > ring_.capacity() / 2 || (awaited && left != 0)) {
        return std::min(kPollNs, options_.interval_ns);
    }
    return options_.interval_ns;
}

void Flusher::sleep_until(std::int64_t deadline_ns) {
    const std::lock_guard lock(wake_monitor_);
    while (!wake_requested_ && monotonic_ns() < deadline_ns) {
        wake_monitor_.wait_until(deadline_ns);
    }
    wake_requested_ = false;
}

// Writes all that is committed; false when the sink refused and the batch has to be tried again.
bool Flusher::drain() {
    for (;;) {
        if (batch_.empty()) {
            renderer_.refresh_clock();
            fill_batch();
            if (batch_.empty()) {
                backoff_ns_ = 0;
                return true;
            }
        }
        if (!write_batch()) {
            back_off();
            return false;
        }
        backoff_ns_ = 0;
        publish();
        housekeeping(false);  // producers may keep this loop busy for long
    }
}

void Flusher::back_off() noexcept {
    backoff_ns_ = backoff_ns_ == 0 ? kFirstBackoffNs : std::min(2 * backoff_ns_, kLongestBackoffNs);
}

void Flusher::housekeeping(bool now_please) {
    const std::int64_t now = monotonic_ns();
    if (!now_please && now - last_facts_ns_ < options_.interval_ns) return;
    last_facts_ns_ = now;
    publish_facts(clock_ns(CLOCK_THREAD_CPUTIME_ID));
    if (!now_please && now - last_tick_ns_ < 1'000'000'000) return;
    last_tick_ns_ = now;
    tick_();
}

void Flusher::fill_batch() {
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        if (std::exchange(batch_rotates_[s], false)) sink_.rotate(static_cast<Stream>(s));
    }
    const std::uint64_t used = ring_.tail() - ring_.head();
    std::size_t bytes = 0;
    while (bytes < kBatchBytes) {
        const RecordHeader* record = ring_.peek(cursor_);
        if (record == nullptr) break;
        if (record->kind == RecordKind::pad) {
            cursor_ = MpscRing::after(cursor_, *record);
            continue;
        }
        const auto s = static_cast<std::size_t>(record->stream);
        line_.clear();
        renderer_.render(*record, seq_[s], line_);
        if (sink_.wants_rotation(record->stream, batch_.bytes[s].size(), line_.size())) {
            if (!batch_.empty()) {
                batch_rotates_[s] = true;  // write what belongs before it first
                break;
            }
            sink_.rotate(record->stream);
        }
        batch_.bytes[s].append(line_);
        bytes += line_.size();
        ++seq_[s];
        if (record->kind != RecordKind::drops) ++batch_.records[s];
        if (published_.first_record_ticks == 0) {
            const std::lock_guard lock(progress_);
            published_.first_record_ticks = record->ticks;
        }
        cursor_ = MpscRing::after(cursor_, *record);
    }
    if (batch_.empty() && cursor_ != ring_.head()) ring_.release_to(cursor_);  // a pad alone
    if (used > published_.high_water_bytes) {
        const std::lock_guard lock(progress_);
        published_.high_water_bytes = used;
    }
}

bool Flusher::write_batch() {
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        if (batch_.written[s] < batch_.bytes[s].size() && !write_stream(static_cast<Stream>(s))) {
            return false;
        }
    }
    return true;
}

bool Flusher::write_stream(Stream stream) {
    const auto s = static_cast<std::size_t>(stream);
    const std::uint64_t before = sink_.size(stream);
    if (SinkError found = sink_.check(stream)) {
        note_error(found);
        // What was written of this batch lay at the file's end, so it was lost first.
        const std::uint64_t lost = before - sink_.size(stream);
        batch_.written[s] -= std::min<std::uint64_t>(batch_.written[s], lost);
    }
    std::size_t written = 0;
    const auto rest = std::string_view(batch_.bytes[s]).substr(batch_.written[s]);
    const SinkError error = sink_.write(stream, rest, written);
    batch_.written[s] += written;
    if (error) note_error(error);
    return !error;
}

// Everything rendered so far is in the files: show it, and give the bytes back to the producers.
void Flusher::publish() {
    publish_files();  // before the release: who waited for it may ask for the files next
    {
        const std::lock_guard lock(progress_);
        for (std::size_t s = 0; s < kStreamCount; ++s) {
            published_.streams[s].written += batch_.records[s];
            published_.streams[s].bytes += batch_.bytes[s].size();
        }
    }
    batch_.clear();
    ring_.release_to(cursor_);
    // A waiter counts itself before it looks at the head, both sequentially consistent, and this
    // thread moves the head before it looks at the count: one of the two sees the other.
    if (waiters_.load(std::memory_order_seq_cst) != 0) {
        const std::lock_guard lock(progress_);
        progress_.notify_all();
    }
}

void Flusher::publish_facts(std::int64_t cpu_ns) {
    const double ns_per_tick = renderer_.clock().duration_ns(1'000'000'000) / 1e9;
    ns_per_tick_.store(ns_per_tick, std::memory_order_relaxed);
    publish_files();
    const std::lock_guard lock(progress_);
    published_.ns_per_tick = ns_per_tick;
    published_.cpu_ns = cpu_ns;
}

// The label and the files, where they have changed. Without memory they are shown later.
void Flusher::publish_files() noexcept {
    bool same = published_.label_known == sink_.claimed() && published_.label == sink_.label();
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        same = same && published_.streams[s].segments == sink_.segments(static_cast<Stream>(s));
    }
    if (same) return;
    try {
        std::string label = sink_.label();
        std::vector<std::string> files = sink_.paths();
        const std::lock_guard lock(progress_);
        published_.label_known = sink_.claimed();
        published_.label.swap(label);
        published_.files.swap(files);
        for (std::size_t s = 0; s < kStreamCount; ++s) {
            published_.streams[s].segments = sink_.segments(static_cast<Stream>(s));
        }
    } catch (const std::bad_alloc&) {
        return;
    }
}

// Drops that no later record could mark: said in a last line of their stream.
void Flusher::add_final_drops() {
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        std::string& bytes = batch_.bytes[s];
        bytes.reserve(bytes.size() + 256);  // room for the line: what is taken is not lost again
        const std::uint64_t dropped = take_drops_(static_cast<Stream>(s));
        if (dropped == 0) continue;
        renderer_.render_drops(dropped, now_ticks(), seq_[s], bytes);
        ++seq_[s];
    }
}

void Flusher::note_error(const SinkError& error) {
    std::string text = error.what + ": " + std::system_category().message(error.code) + " (errno " +
                       std::to_string(error.code) + ")";
    bool first;
    {
        const std::lock_guard lock(progress_);
        first = published_.first_error.empty();
        if (first) published_.first_error = text;
        published_.last_error = text;
        ++published_.errors;
    }
    if (first) {
        tell("foundry_fastlog could not " + text +
             ". Training goes on, records wait in memory and the write is tried again; free space "
             "or make the place writable before the ring is full. stats()['last_error'] has the "
             "latest state.");
    }
}

void Flusher::note_exception(const std::exception& error) noexcept {
    try {
        const bool memory = dynamic_cast<const std::bad_alloc*>(&error) != nullptr;
        note_error({memory ? ENOMEM : EINVAL, std::string("render records: ") + error.what()});
    } catch (const std::exception&) {
        const std::lock_guard lock(progress_);  // no memory for the text either
        ++published_.errors;
    }
}

}  // namespace fastlog
