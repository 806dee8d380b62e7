#include "core/recorder.hpp"

#include <algorithm>
#include <cstdio>
#include <mutex>

#include "core/kill_point.hpp"

namespace fastlog {
namespace {

std::int64_t deadline_after(std::int64_t timeout_ns) {
    const std::int64_t now = monotonic_ns();
    return timeout_ns > INT64_MAX - now ? INT64_MAX : now + timeout_ns;
}

}  // namespace

// The label is claimed first: the ring file contains it, for whoever has to recover its records.
RingSpec Recorder::ring_spec(const RecorderOptions& options, StreamFiles& sink, SinkError& error) {
    error = sink.claim();
    RingSpec spec;
    spec.place = error ? RingPlace::memory : options.ring_place;
    spec.ring_bytes = options.ring_bytes;
    spec.run_directory = options.sink.directory;
    spec.label = sink.label();
    spec.stamp = options.sink.stamp;
    spec.segment_bytes = options.sink.segment_bytes;
    spec.rank = options.rank;
    return spec;
}

namespace {

MpscRing ring_in(const RingMemory& memory) noexcept {
    return {memory.control(), memory.data(), memory.ring_bytes(), memory.salt(), memory.mapped()};
}

}  // namespace

ThreadSlot& HotPage::find_slot() noexcept { return core->counters().find_or_add(); }

Recorder::Recorder(RecorderOptions options, std::shared_ptr<HotPage> page)
    : options_(std::move(options)),
      sink_(options_.sink),
      memory_(ring_spec(options_, sink_, claim_error_), ring_error_),
      label_(sink_.label()),
      page_(std::move(page)),
      ring_(page_->ring = ring_in(memory_)),
      attention_(page_->attention),
      slots_(std::shared_ptr<ThreadSlot>(page_, page_->slots), HotPage::kNearSlots),
      keys_(memory_.key_table(), memory_.key_table_bytes()),
      flush_thread_(*this, ring_, memory_, sink_,
                    FlushThread::Options{options_.flush_interval_ns, options_.fsync,
                                         options_.fsync_interval_ns, options_.device_timeout_ns,
                                         options_.watch_nonfinite},
                    attention_) {
    page_->counters_id = slots_.id();
    page_->core = this;
    if (!claim_error_) {
        claim_error_ = sink_.keep_notes(&memory_);
    } else {
        memory_.mark_unclaimed(options_.sink.directory);
    }
    flush_thread_.tell_claim(claim_error_);
    if (ring_error_ && !claim_error_) {
        const std::string why = "it could not " + ring_error_.what + " (errno " +
                                std::to_string(ring_error_.code) + "). ";
        flush_thread_.tell(
            memory_.mapped() ? "foundry_fastlog keeps its ring in " + memory_.path() + ": " + why +
                                   "A killed process loses nothing, but the disk's write-back may "
                                   "delay record()."
                             : "foundry_fastlog keeps its ring in memory only: " + why +
                                   "A killed process then loses what it recorded in the last " +
                                   std::to_string(options_.flush_interval_ns / 1'000'000) +
                                   " ms; everything else works.");
    }
    watch();
    try {
        flush_thread_.start();  // last: nothing may throw once the thread runs
    } catch (...) {
        forget();
        throw;
    }
    claim_undo_.keep();
    file_undo_.keep();
}

Recorder::~Recorder() { forget(); }

Recorder::Submit Recorder::refused(ClaimStatus status) noexcept {
    switch (status) {
        case ClaimStatus::closed:
            return Submit::closed;
        case ClaimStatus::too_large:
            return Submit::too_large;
        default:
            return Submit::full;
    }
}

bool Recorder::wait_for_room(std::size_t payload) {
    const std::uint64_t begin = span_ticks();
    const bool room = flush_thread_.wait_room(payload, deadline_after(options_.block_timeout_ns));
    if (!room) vain_wait_at_.store(ring_.head(), std::memory_order_relaxed);
    const std::uint64_t waited = span_ticks() - begin;
    ThreadSlot::add(slot().blocked_ticks, waited);
    CallerTime::take_out(waited);
    return room;
}

void Recorder::count_drop(Stream stream, bool too_large) noexcept {
    note_drops(stream, 1);
    auto& told = too_large ? told_too_large_ : told_drop_;
    if (told.exchange(true, std::memory_order_relaxed)) return;
    try {
        tell_drop(too_large);
    } catch (const std::bad_alloc&) {
        told.store(false, std::memory_order_relaxed);  // reported with the next one
    }
}

void Recorder::note_drops(Stream stream, std::uint64_t count) noexcept {
    const auto s = static_cast<std::size_t>(stream);
    ThreadSlot::add(slot().dropped, count);
    all_drops_[s].fetch_add(count, std::memory_order_relaxed);
    memory_.drops()[s].fetch_add(count, std::memory_order_relaxed);
    attention_.set(AttentionBits::kDrops);
}

void Recorder::count_lost_calls(CallKind call, Stream stream, std::uint64_t calls) noexcept {
    slot().count_calls(call, calls);
    note_drops(stream, calls);
}

void Recorder::tell_drop(bool too_large) {
    if (too_large) {
        flush_thread_.tell(
            "foundry_fastlog dropped a record larger than " + std::to_string(max_payload()) +
            " bytes (an eighth of the ring): shorten its values or raise ring_bytes. "
            "Further ones are counted in stats()['dropped'] without a message.");
    } else {
        flush_thread_.tell(
            "foundry_fastlog's ring of " + std::to_string(options_.ring_bytes) +
            " bytes is full and records are being dropped: the disk is slower than the "
            "training loop records. Each gap is marked in its file and counted in "
            "stats()['dropped']; raise ring_bytes or record less often.");
    }
}

void Recorder::submit_drop_markers() {
    const std::unique_lock lock(marker_mutex_, std::try_to_lock);
    if (!lock.owns_lock()) return;  // another thread is at it
    attention_.clear(AttentionBits::kDrops);
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        const std::uint64_t count = memory_.drops()[s].exchange(0, std::memory_order_relaxed);
        if (count == 0) continue;
        const Submit result = submit(RecordKind::drops, static_cast<Stream>(s), now_ticks(),
                                     slot().thread(), &count, sizeof count);
        if (result == Submit::accepted) continue;
        memory_.drops()[s].fetch_add(count, std::memory_order_relaxed);  // no room yet: next time
        attention_.set(AttentionBits::kDrops);
    }
}

bool Recorder::flush(std::int64_t timeout_ns) {
    return flush_thread_.wait_written(ring_.tail(), deadline_after(timeout_ns));
}

bool Recorder::flush(Stream stream, std::int64_t timeout_ns) {
    return flush_thread_.wait_written(stream, ring_.tail(), deadline_after(timeout_ns));
}

bool Recorder::close(std::int64_t timeout_ns) {
    attention_.set(AttentionBits::kClosed);
    const std::lock_guard lock(close_mutex_);
    if (joined_) return true;
    const std::int64_t deadline = deadline_after(timeout_ns);
    // Pending values get half of the time. While the ring is open, events for non-finite values find room in
    // it; lines after one that is given up also have theirs.
    if (flush_thread_.device() != nullptr || options_.watch_nonfinite == WatchNonfinite::all) {
        if (!flush_thread_.wait_written(ring_.tail(), deadline_after(timeout_ns / 2))) {
            flush_thread_.give_up_values();
            flush_thread_.wait_written(ring_.tail(), deadline_after(timeout_ns / 4));
        }
    }
    std::uint64_t open = 0;
    python_until_.compare_exchange_strong(open, CallerTime::ticks(), std::memory_order_relaxed);
    open = 0;
    closed_at_.compare_exchange_strong(open, now_ticks(), std::memory_order_release);
    flush_thread_.request_close(ring_.close());
    // A thread that saw no bit set may have recorded since: its values get half of the remaining time.
    const std::int64_t now = monotonic_ns();
    if (!flush_thread_.wait_done(now + (deadline - now) / 2)) flush_thread_.give_up_values();
    if (!flush_thread_.wait_done(deadline)) return false;
    flush_thread_.join();
    collector_.stop(deadline);
    memory_.remove_file(sink_.own_directory());  // everything is in the files
    KILL_POINT("ring_removed");
    sink_.close();
    memory_.release();
    joined_ = true;
    return true;
}

// A marker that the closed ring refused is back in the count once its thread has left the lock.
std::uint64_t Recorder::take_drops(Stream stream) noexcept {
    const std::lock_guard lock(marker_mutex_);
    return memory_.drops()[static_cast<std::size_t>(stream)].exchange(0, std::memory_order_relaxed);
}

// The flush thread must never wait for room that only it can free.
bool Recorder::emit(const std::string& members) noexcept {
    ThreadSlot& own = slot();
    const Submit result = submit(RecordKind::fragment, Stream::errors, now_ticks(), own.thread(),
                                 members.data(), members.size());
    if (result == Submit::full) return false;
    if (result != Submit::accepted) return true;  // the ring is closed: the line itself says so
    own.count_call(CallKind::event);
    ThreadSlot::add(own.accepted, 1);
    return true;
}

void Recorder::tick() {
    check_budget();
    if (options_.sink.worker || !memory_.mapped()) return;
    collector_.look();
    for (std::string& message : collector_.take_messages()) flush_thread_.tell(std::move(message));
}

void Recorder::check_budget() {
    if (reported_budget_) return;
    const RecorderStats now = stats();
    constexpr double kSettleSeconds = 5.0;
    if (now.wall_s < kSettleSeconds || now.overhead_fraction <= options_.overhead_budget) return;
    reported_budget_ = true;
    char text[320];
    std::snprintf(text, sizeof text,
                  "foundry_fastlog took %.2f %% of wall time since the first record, over the "
                  "budget of %.2f %% (%llu calls, %.3f s blocked). Record less often, or raise "
                  "overhead_budget. This is logged once; stats() has the current figures.",
                  100 * now.overhead_fraction, 100 * options_.overhead_budget,
                  static_cast<unsigned long long>(now.calls.accepted + now.calls.dropped),
                  now.blocked_s);
    flush_thread_.tell(text);
}

RecorderStats Recorder::stats() const {
    RecorderStats s;
    s.calls = slots_.totals();
    s.flush = flush_thread_.stats();
    s.ring_bytes = memory_.ring_bytes();
    if (memory_.mapped()) s.ring_path = memory_.path();
    s.key_sets = keys_.size();
    s.device_missing = s.flush.missing + missing_in_fragments_.load(std::memory_order_relaxed);
    if (const DeviceValues* device = flush_thread_.device()) {
        const std::uint64_t settled = device->counts.settled.load(std::memory_order_relaxed);
        const std::uint64_t sent = device->counts.sent.load(std::memory_order_relaxed);
        s.device_waiting = sent > settled ? sent - settled : 0;
        s.device_values = sent;
    }
    const double seconds_per_tick = s.flush.ns_per_tick / 1e9;
    for (std::size_t i = 0; i < kStreamCount; ++i) {
        s.flush.streams[i].dropped = all_drops_[i].load(std::memory_order_relaxed);
    }
    for (std::size_t k = 0; k < kCallKinds; ++k) {
        if (s.calls.samples[k] == 0) continue;
        s.mean_ns[k] = static_cast<double>(s.calls.sampled_ticks[k]) /
                       static_cast<double>(s.calls.samples[k]) * s.flush.ns_per_tick;
    }
    s.blocked_s = static_cast<double>(s.calls.blocked_ticks) * seconds_per_tick;
    const std::uint64_t first = s.flush.first_record_ticks;
    const std::uint64_t closed = closed_at_.load(std::memory_order_acquire);
    const std::uint64_t python =
        (closed != 0 ? python_until_.load(std::memory_order_relaxed) : CallerTime::ticks()) -
        python_before_;
    s.logging_s = (s.calls.estimated_ticks() + static_cast<double>(python)) * seconds_per_tick;
    const std::uint64_t end = closed != 0 ? closed : now_ticks();
    if (first != 0 && end > first) {
        s.wall_s = static_cast<double>(end - first) * seconds_per_tick;
        s.overhead_fraction = s.logging_s / s.wall_s;
    }
    return s;
}

}  // namespace fastlog
