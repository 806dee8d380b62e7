// driver record: threads that record until they are killed, each counting what was accepted.
//
//   dir=RUN acks=FILE      FILE: 4 KiB; see Acks
//   life=L threads=T       what the records say of their origin
//   records=N              each thread records N times, then the recorder is closed; 0: no end
//   ring= segment= flush_us= block_ms= (0: drop) fsync=none|interval|every_flush place=file|shm|memory
//   fill=N                 longest text in a record; keys=N: a new key set every N records
//   pace=N                 about N ns of work between two records
//   stall=THREAD:N:BYTES   the thread writes BYTES of its N-th record and then stands still
//   rank=R recover=0|1     recover: finish what earlier lives left, as a start does
//   churn=N                each thread ends after N records and a new one goes on; 0: never
//   watch=0|1              one more thread asks for stats(), messages and flushes all the time
//   device=N               half of the metrics' numbers come from a device, up to N us later, and one in
//                          500 of these never; 0: all from the host
//   close_us=N             the recorder is closed after so long, while the threads record; 0: behind
//                          them
//
// A record is a function of (life, thread, n); tests/crash/acked.py has the same function.
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <string_view>
#include <thread>
#include <vector>

#include "core/json_writer.hpp"
#include "core/line_renderer.hpp"
#include "core/recorder.hpp"
#include "core/recovery.hpp"
#include "driver.hpp"
#include "driver_device.hpp"

namespace crash {
namespace {

using fastlog::CallKind;
using fastlog::KeyTable;
using fastlog::Recorder;
using fastlog::RecordKind;
using fastlog::Stream;

/// The counter file: shared with the test, which outlives us. Each counter is bumped by its thread
/// after record() has returned true.
struct Acks {
    static constexpr std::size_t kBytes = 4096;
    static constexpr std::uint64_t kOpened = 1;
    static constexpr std::uint64_t kStalled = 2;
    static constexpr std::uint64_t kClosed = 3;
    struct alignas(64) Word {
        std::atomic<std::uint64_t> value;
    };
    Word phase;
    Word acked[63];
};
static_assert(sizeof(Acks) == Acks::kBytes);

Acks* map_acks(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    void* at = fd < 0 ? MAP_FAILED
                      : ::mmap(nullptr, Acks::kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) fail("cannot map " + path);
    ::close(fd);
    return static_cast<Acks*>(at);
}

constexpr std::size_t kTextBytes = 4096;

std::string make_text() {
    constexpr std::string_view kAlphabet =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 {}[]:,\"\\\n\t\x01";
    std::string text;
    for (std::uint64_t i = 0; i < kTextBytes; ++i) {
        text.push_back(kAlphabet[mix(i) % kAlphabet.size()]);
    }
    return text;
}

/// One record, as a function of where it comes from.
struct Content {
    Content(const std::string& text, std::uint64_t life_, std::uint64_t thread_, std::uint64_t n_,
            std::uint64_t longest)
        : life(life_), thread(thread_), n(n_) {
        const std::uint64_t h = mix((life << 44) ^ (thread << 36) ^ n);
        constexpr Stream kStreams[8] = {Stream::metrics,     Stream::metrics,     Stream::metrics,
                                        Stream::performance, Stream::performance, Stream::errors,
                                        Stream::log,         Stream::system};
        stream = kStreams[h & 7];
        const std::uint64_t length = (h >> 8) % (longest + 1);
        fill = text.substr((h >> 24) % (kTextBytes - longest), length) + "\xC3\xA9";  // é
        x = static_cast<double>(h >> 11) * 0x1p-53 * 1000.0;
        if (h >> 60 == 0) x = std::numeric_limits<double>::quiet_NaN();
        ticks = h >> 24;
    }
    std::uint64_t life;
    std::uint64_t thread;
    std::uint64_t n;
    Stream stream;
    std::string fill;
    double x;
    std::uint64_t ticks;
};

template <class T>
void put(std::string& out, T value) {
    out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

class Worker {
  public:
    Worker(Recorder& recorder, LateValues& values, Acks& acks, const Arguments& arguments,
           const std::string& text, std::uint64_t thread)
        : recorder_(recorder),
          values_(values),
          acks_(acks),
          text_(text),
          thread_(thread),
          life_(arguments.number("life", 0)),
          records_(arguments.number("records", 0)),
          fill_(arguments.number("fill", 100)),
          keys_(arguments.number("keys", 64)),
          pace_ns_(arguments.number("pace", 0)),
          churn_(arguments.number("churn", 0)),
          device_us_(arguments.number("device", 0)),
          may_be_closed_(arguments.number("close_us", 0) != 0) {
        unsigned long long stalling = 0;
        unsigned long long at = 0;
        unsigned long long bytes = 0;
        const std::string stall = arguments.text("stall", "");
        if (std::sscanf(stall.c_str(), "%llu:%llu:%llu", &stalling, &at, &bytes) == 3 &&
            stalling == thread) {
            stall_at_ = at;
            stall_bytes_ = bytes;
        }
    }

    void run() {
        if (churn_ == 0) return run_to(records_);
        while (!closed_ && (records_ == 0 || next_ < records_)) {
            const std::uint64_t end = next_ + churn_;
            std::thread([this, end] { run_to(end); }).join();
        }
    }

  private:
    // Records up to the n-th, or until the recorder is closed; 0: no end.
    void run_to(std::uint64_t end) {
        std::uint64_t random = mix(life_ * 64 + thread_ + next_);
        while (!closed_ && (end == 0 || next_ < end)) {
            if (record(next_)) {
                ++next_;
                acks_.acked[thread_].value.store(next_, std::memory_order_release);
            } else {
                ::sched_yield();
            }
            if (pace_ns_ == 0) continue;
            random = mix(random);
            const std::int64_t until =
                fastlog::monotonic_ns() + static_cast<std::int64_t>(random % (2 * pace_ns_));
            while (fastlog::monotonic_ns() < until) {
            }
        }
    }

    // What the bindings do for one call: drop markers first, then submit by the policy.
    bool record(std::uint64_t n) {
        closed_ =
            may_be_closed_ && (recorder_.attention().bits() & fastlog::AttentionBits::kClosed) != 0;
        if (closed_) return false;
        if (recorder_.attention().bits() & fastlog::AttentionBits::kDrops)
            recorder_.submit_drop_markers();
        const Content content(text_, life_, thread_, n, fill_);
        payload_.clear();
        ticket_ = LateValues::kNone;
        const RecordKind kind = encode(content);
        const std::size_t held = n == stall_at_ ? stall_bytes_ : std::string::npos;
        const auto write = [&](std::byte* at) {
            std::memcpy(at, payload_.data(), std::min(held, payload_.size()));
            if (held != std::string::npos) stall();
        };
        for (;;) {
            const auto result = Recorder::submit(recorder_.page(), kind, content.stream,
                                                 fastlog::now_ticks(), recorder_.slot().thread(),
                                                 payload_.size(), write, flags_of(ticket_));
            if (result == Recorder::Submit::accepted) return true;
            if (result == Recorder::Submit::full && recorder_.may_block() &&
                recorder_.wait_for_room(payload_.size())) {
                continue;
            }
            if (ticket_ != LateValues::kNone) values_.give_back(ticket_);
            closed_ = result == Recorder::Submit::closed && may_be_closed_;
            if (closed_) return false;
            if (result != Recorder::Submit::full) fail("a record was refused for good");
            recorder_.count_drop(content.stream, false);
            return false;
        }
    }

    void stall() {
        acks_.phase.value.store(Acks::kStalled, std::memory_order_release);
        for (;;) ::pause();
    }

    RecordKind encode(const Content& c) {
        if (c.stream == Stream::metrics) return encode_metrics(c);
        if (c.stream == Stream::performance) return encode_timing(c);
        if (c.stream == Stream::system) return encode_figures(c);
        return encode_event(c);
    }

    static std::uint16_t flags_of(std::uint16_t ticket) {
        return static_cast<std::uint16_t>(ticket + 1);  // 0 of none
    }

    // Whether a device delivers a number, and when.
    void send(const Content& c) {
        const std::uint64_t h = mix(mix(c.ticks) ^ c.n);
        if (device_us_ == 0 || h % 2 == 0) return;
        const std::uint64_t us = h % 1000 == 1 ? 3'600'000'000 : (h >> 20) % device_us_;
        ticket_ = values_.send(c.x, static_cast<std::int64_t>(us * 1000));
    }

    RecordKind encode_metrics(const Content& c) {
        using fastlog::ValueTag;
        const std::string last = "k" + std::to_string(c.n / keys_);
        const std::vector<std::string_view> keys = {"life", "thread", "n", "x", last};
        fastlog::MetricsPayload head{};
        head.step = static_cast<std::int64_t>(c.n);
        head.key_set = recorder_.keys().intern(keys);
        head.count = static_cast<std::uint16_t>(keys.size());
        put(payload_, head);
        if (head.key_set != KeyTable::kNone) send(c);
        const bool pending = ticket_ != LateValues::kNone;
        for (ValueTag tag : {ValueTag::integer, ValueTag::integer, ValueTag::integer,
                             pending ? ValueTag::pending : ValueTag::real, ValueTag::string}) {
            put(payload_, tag);
        }
        payload_.resize(fastlog::metrics_values_offset(keys.size()));
        put(payload_, c.life);
        put(payload_, c.thread);
        put(payload_, c.n);
        if (pending) {
            put(payload_, fastlog::PendingValue{ticket_, 0}.bits());
        } else {
            put(payload_, c.x);
        }
        put(payload_, std::uint64_t{c.fill.size()});  // at offset 0
        payload_ += c.fill;
        if (head.key_set != KeyTable::kNone) return RecordKind::metrics;
        payload_ = fastlog::render_metrics_fragment(
            reinterpret_cast<const std::byte*>(payload_.data()), keys);
        return RecordKind::fragment;
    }

    RecordKind encode_timing(const Content& c) {
        const std::string parent = "life" + std::to_string(c.life);
        const std::string error = std::to_string(c.life) + ":" + std::to_string(c.thread) + ":" +
                                  std::to_string(c.n) + ":" + c.fill;
        fastlog::TimingPayload timing{};
        timing.step = static_cast<std::int64_t>(c.n);
        timing.duration_ticks = c.ticks;
        timing.name = recorder_.keys().intern({"work"});
        timing.parent = recorder_.keys().intern({parent});
        timing.depth = static_cast<std::uint16_t>(c.thread);
        timing.flags = fastlog::TimingPayload::kHasStep | fastlog::TimingPayload::kHasParent;
        timing.error_length = static_cast<std::uint32_t>(error.size());
        if (timing.name != KeyTable::kNone && timing.parent != KeyTable::kNone) {
            put(payload_, timing);
            payload_ += error;
            return RecordKind::timing;
        }
        payload_ = fastlog::render_timing_fragment("work", parent, timing, recorder_.ns_per_tick(),
                                                   recorder_.slot().thread_id, error);
        return RecordKind::fragment;
    }

    RecordKind encode_event(const Content& c) {
        namespace json = fastlog::json;
        const bool error = c.stream == Stream::errors;
        payload_ = "\"level\":\"INFO\",\"logger\":\"crash\",\"step\":" + std::to_string(c.n) +
                   ",\"message\":";
        json::append_string(payload_, c.fill);
        if (error) payload_ += ",\"error_type\":\"E\",\"error_message\":\"e\",\"traceback\":\"\"";
        payload_ += ",\"context\":{";
        append_origin(c);
        payload_ += "}";
        append_nonfinite(c);
        return RecordKind::fragment;
    }

    RecordKind encode_figures(const Content& c) {
        payload_ = "\"step\":" + std::to_string(c.n) + ",\"system\":{";
        append_origin(c);
        payload_ += ",\"fill\":";
        fastlog::json::append_string(payload_, c.fill);
        payload_ += "}";
        append_nonfinite(c);
        return RecordKind::fragment;
    }

    void append_origin(const Content& c) {
        payload_ += "\"life\":" + std::to_string(c.life) +
                    ",\"thread\":" + std::to_string(c.thread) + ",\"n\":" + std::to_string(c.n) +
                    ",\"x\":";
        fastlog::json::append_double(payload_, c.x);
    }

    void append_nonfinite(const Content& c) {
        if (std::isnan(c.x)) payload_ += ",\"nonfinite\":{\"x\":\"nan\"}";
    }

    Recorder& recorder_;
    LateValues& values_;
    Acks& acks_;
    const std::string& text_;
    const std::uint64_t thread_;
    const std::uint64_t life_;
    const std::uint64_t records_;
    const std::uint64_t fill_;
    const std::uint64_t keys_;
    const std::uint64_t pace_ns_;
    const std::uint64_t churn_;
    const std::uint64_t device_us_;
    const bool may_be_closed_;
    std::uint64_t next_ = 0;
    bool closed_ = false;
    std::uint64_t stall_at_ = UINT64_MAX;
    std::size_t stall_bytes_ = 0;
    std::string payload_;
    std::uint16_t ticket_ = LateValues::kNone;  // of the record that is being made
};

fastlog::RecorderOptions make_options(const Arguments& arguments) {
    fastlog::RecorderOptions options;
    options.sink.directory = arguments.text("dir");
    const std::uint64_t rank = arguments.number("rank", 0);
    if (rank != 0) options.sink.label = "r" + std::to_string(rank);
    options.rank = static_cast<std::int32_t>(rank);
    options.sink.segment_bytes = arguments.number("segment", 256 << 20);
    options.ring_bytes = arguments.number("ring", 65536);
    const std::uint64_t block_ms = arguments.number("block_ms", 1000);
    options.back_pressure =
        block_ms == 0 ? fastlog::BackPressure::drop : fastlog::BackPressure::block;
    options.block_timeout_ns = static_cast<std::int64_t>(block_ms * 1'000'000);
    options.flush_interval_ns =
        static_cast<std::int64_t>(arguments.number("flush_us", 1000) * 1000);
    const std::string fsync = arguments.text("fsync", "none");
    options.fsync = fsync == "interval"      ? fastlog::Fsync::interval
                    : fsync == "every_flush" ? fastlog::Fsync::every_flush
                                             : fastlog::Fsync::none;
    options.fsync_interval_ns =
        static_cast<std::int64_t>(arguments.number("fsync_ms", 5) * 1'000'000);
    const std::string place = arguments.text("place", "file");
    options.watch_nonfinite = fastlog::WatchNonfinite::none;  // its lines are no records of ours
    options.device_timeout_ns = 20'000'000;
    options.ring_place = place == "shm"      ? fastlog::RingPlace::shm
                         : place == "memory" ? fastlog::RingPlace::memory
                                             : fastlog::RingPlace::file;
    return options;
}

/// What a monitoring thread of a training asks for, without a pause.
void watch(Recorder& recorder, const std::atomic<bool>& stop) {
    for (std::int64_t n = 0; !stop.load(std::memory_order_relaxed); ++n) {
        recorder.stats();
        recorder.take_messages();
        recorder.flush(n % 8 * 100'000);
    }
}

}  // namespace

int record(const Arguments& arguments) {
    Acks* acks = map_acks(arguments.text("acks"));
    const std::string text = make_text();
    if (arguments.number("recover", 1) != 0) fastlog::recover_run(arguments.text("dir"));
    Recorder recorder(make_options(arguments));
    auto late = std::make_unique<LateValues>();
    LateValues& values = *late;
    if (arguments.number("device", 0) != 0) recorder.use_device([&] { return std::move(late); });
    acks->phase.value.store(Acks::kOpened, std::memory_order_release);
    std::vector<std::thread> threads;
    std::vector<Worker> workers;
    const std::uint64_t count = arguments.number("threads", 1);
    workers.reserve(count);
    for (std::uint64_t t = 0; t < count; ++t) {
        Worker& worker = workers.emplace_back(recorder, values, *acks, arguments, text, t);
        threads.emplace_back([&worker] { worker.run(); });
    }
    std::atomic<bool> stop{false};
    std::thread watcher;
    if (arguments.number("watch", 0) != 0) {
        watcher = std::thread([&recorder, &stop] { watch(recorder, stop); });
    }
    const auto close_us = static_cast<useconds_t>(arguments.number("close_us", 0));
    if (close_us != 0) {
        ::usleep(close_us);
        recorder.close(0);  // not in time, mostly: the last close() below waits for it
    }
    for (std::thread& thread : threads) thread.join();
    stop.store(true, std::memory_order_relaxed);
    if (watcher.joinable()) watcher.join();
    if (!recorder.close(std::int64_t{60} * 1'000'000'000)) {
        const fastlog::FlushThreadStats told = recorder.stats().flush;
        fail("close() was not in time: " + std::to_string(told.errors) +
             " errors, the last: " + told.last_error);
    }
    acks->phase.value.store(Acks::kClosed, std::memory_order_release);
    return 0;
}

}  // namespace crash
