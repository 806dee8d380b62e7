#include "writer.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <utility>

#include "core/kill_point.hpp"
#include "core/recovery.hpp"

namespace sim {

using namespace fastlog;

namespace {
constexpr std::int64_t kMs = 1'000'000;
constexpr std::int64_t kIntervalNs = 100 * kMs;
const std::string kPadding(150, 'x');
const char* const kPad = kPadding.c_str();
}  // namespace

void start_writer(World& world, bool worker) {
    const unsigned number = world.writers++;
    world.start(worker ? "worker" : "job", [&world, number, worker](Process& process) {
        auto writer = std::make_shared<Writer>(world, process, number, worker);
        process.state = writer;
        process.writer = writer.get();
        writer->live();
    });
}

Writer::Writer(World& world, Process& process, unsigned its_number, bool worker)
    : number(its_number),
      world_(world),
      process_(process),
      facts_(world.oracle.add_writer(its_number)),
      worker_(worker),
      seed_(world.number_of(5000 + its_number)) {
    fsync_ = static_cast<Fsync>(draw(seed_) % 3);
    ring_bytes_ = std::size_t{4096} << (draw(seed_) % 2);  // pages, as recovery knows no others
    segment_bytes_ = draw(seed_) % 3 == 0 ? std::uint64_t{1} << 20 : 500 + draw(seed_) % 3000;
    records_ = static_cast<unsigned>(draw(seed_) % 70);
}

// As Recorder's constructor does it.
void Writer::open() {
    if (!worker_) recover_run(kRun, [this] { return alive(); }, process_.files);
    StreamFilesOptions options;
    options.directory = kRun;
    options.label = worker_ ? "w" + std::to_string(100 + number) : "";
    options.worker = worker_;
    options.segment_bytes = segment_bytes_;
    options.disk = &process_.files;
    sink_ = std::make_unique<StreamFiles>(options);
    SinkError claimed = sink_->claim();
    RingSpec spec;
    spec.place = claimed                ? RingPlace::memory
                 : draw(seed_) % 4 == 0 ? RingPlace::shm
                                        : RingPlace::file;
    spec.ring_bytes = ring_bytes_;
    spec.run_directory = kRun;
    spec.label = sink_->label();
    spec.segment_bytes = segment_bytes_;
    spec.files = &process_.files;
    SinkError refused;
    memory_ = std::make_unique<RingMemory>(spec, refused);
    ring_ = std::make_unique<MpscRing>(memory_->control(), memory_->data(), memory_->ring_bytes(),
                                       memory_->salt(), memory_->mapped());
    keys_ = std::make_unique<KeyTable>(memory_->key_table(), memory_->key_table_bytes());
    renderer_ = std::make_unique<LineRenderer>(memory_->key_table(), memory_->key_table_bytes());
    source_ = std::make_unique<Ring>(*this, *ring_, *memory_);
    batches_ = std::make_unique<BatchWriter>(*source_, *sink_, *renderer_, CommitSlot{}, fsync_,
                                             [](const SinkError&) {});
    batches_->commit_start();
    if (!claimed) sink_->keep_notes(memory_.get());
    if (alive()) world_.oracle.note_ring(facts_, memory_->path(), sink_->directory_id().inode);
    key_set_ = keys_->intern({"w", "n", "v", "pad"});
}

void Writer::live() {
    ++world_.opening;
    open();
    --world_.opening;
    if (!alive()) return;
    world_.add_task(process_, [this] { flush_loop(); });
    for (unsigned n = 0; n < records_ && alive(); ++n) {
        record();
        const std::uint64_t next = draw(seed_) % 16;
        if (next < 4) world_.sleep(static_cast<std::int64_t>(draw(seed_) % 60) * kMs);
        if (next == 5) flush();
    }
    if (!alive()) return;
    if (draw(seed_) % 4 == 0) {
        world_.kill(process_);  // os._exit()
    } else {
        close();
    }
}

// ---- the program's thread ---------------------------------------------------------------------------

bool Writer::put(RecordKind kind, Stream stream, const void* payload, std::size_t size) {
    MpscRing::Claim claim;
    if (!alive() || ring_->try_claim(size, claim) != ClaimStatus::claimed) return false;
    if (!world_.point("claimed")) return false;
    MpscRing::fill_header(claim, static_cast<std::uint32_t>(size), now_ticks(), 1, kind, stream);
    std::memcpy(MpscRing::payload_of(claim), payload, size);
    if (!world_.point("filled")) return false;
    ring_->commit(claim);
    if (kind != RecordKind::drops) ends_.push_back(claim.position + record_size(size));
    return world_.point("recorded");
}

void Writer::put_drop_markers() {
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        const std::uint64_t count = memory_->drops()[s].exchange(0, std::memory_order_relaxed);
        if (count == 0) continue;
        if (put(RecordKind::drops, static_cast<Stream>(s), &count, sizeof count)) continue;
        memory_->drops()[s].fetch_add(count, std::memory_order_relaxed);
    }
}

// Where the ring is full it waits once, then drops.
void Writer::record() {
    const std::uint64_t n = facts_.acked;
    const std::uint64_t value = value_of(number, n);
    const Stream stream = stream_of(number, n);
    const bool event = stream != Stream::metrics;
    const std::size_t pad = value % 150;
    std::byte payload[400];
    std::size_t size = 0;
    if (event) {
        size = static_cast<std::size_t>(
            std::snprintf(reinterpret_cast<char*>(payload), sizeof payload,
                          "\"level\":\"INFO\",\"w\":%u,\"n\":%lu,\"v\":%lu,\"pad\":\"%.*s\"",
                          number, n, value, static_cast<int>(pad), kPad));
    } else {
        const MetricsPayload head{static_cast<std::int64_t>(n), key_set_, 4, 0};
        const std::int64_t values[4] = {number, static_cast<std::int64_t>(n),
                                        static_cast<std::int64_t>(value),
                                        static_cast<std::int64_t>(pad)};
        std::memset(payload, 0, sizeof payload);
        std::memcpy(payload, &head, sizeof head);
        std::memset(payload + sizeof head, static_cast<int>(ValueTag::integer), 3);
        payload[sizeof head + 3] = static_cast<std::byte>(ValueTag::string);
        std::memcpy(payload + metrics_values_offset(4), values, sizeof values);
        std::memcpy(payload + metrics_strings_offset(4), kPad, pad);
        size = metrics_strings_offset(4) + pad;
    }
    put_drop_markers();
    const RecordKind kind = event ? RecordKind::fragment : RecordKind::metrics;
    for (int tries = 0; alive(); ++tries) {
        if (ring_->room_for(size)) {
            if (put(kind, stream, payload, size)) ++facts_.acked;
            return;
        }
        if (tries == 20) break;
        woken_ = true;
        world_.sleep(50 * kMs);
    }
    if (alive()) {
        memory_->drops()[static_cast<std::size_t>(stream)].fetch_add(1, std::memory_order_relaxed);
    }
}

bool Writer::wait_written(std::uint64_t position, std::int64_t timeout_ns) {
    const std::int64_t deadline = monotonic_ns() + timeout_ns;
    while (alive() && ring_->head() < position && monotonic_ns() < deadline) {
        woken_ = true;
        world_.sleep(5 * kMs);
    }
    return alive() && ring_->head() >= position;
}

void Writer::flush() {
    const std::uint64_t acked = facts_.acked;
    if (wait_written(ring_->tail(), 2000 * kMs)) world_.oracle.promise(facts_, acked, "flush");
}

void Writer::close() {
    final_tail_ = ring_->close();
    closing_ = true;
    const std::int64_t deadline = monotonic_ns() + 30'000 * kMs;
    while (alive() && !done_ && monotonic_ns() < deadline) {
        woken_ = true;
        world_.sleep(5 * kMs);
    }
    if (!alive()) return;
    while (alive() && !done_ && !world_.setup.may_refuse()) world_.sleep(1000 * kMs);
    if (!alive()) return;
    if (!done_) return world_.kill(process_);  // its time is up, and it leaves with what it has
    world_.oracle.promise(facts_, facts_.acked, "close");
    memory_->remove_file(sink_->own_directory());
    KILL_POINT("ring_removed");
    if (alive()) facts_.closed = true;
    sink_->close();
}

// ---- the flush thread -------------------------------------------------------------------------------

void Writer::flush_loop() {
    while (alive() && !done_) {
        const std::int64_t until = monotonic_ns() + (backoff_ns_ != 0 ? backoff_ns_ : kIntervalNs);
        while (alive() && !woken_ && monotonic_ns() < until) {
            resting_ = true;
            world_.sleep(10 * kMs);
            resting_ = false;
        }
        woken_ = false;
        if (alive()) done_ = attend();
    }
}

bool Writer::attend() {
    bool finished = false;
    memory_->keep_lock(sink_->directory());
    bool clean = drain();
    if (closing_ && clean && batches_->position() == final_tail_) {
        add_final_drops();
        clean = drain() && (fsync_ == Fsync::none || batches_->sync_committed());
        finished = clean;
        if (clean && fsync_ != Fsync::none) note_durable(committed_);
    }
    if (fsync_ == Fsync::interval && monotonic_ns() - synced_ns_ >= 1000 * kMs) {
        if (batches_->sync_committed()) note_durable(committed_);
        synced_ns_ = monotonic_ns();
    }
    return finished && alive();
}

bool Writer::drain() {
    while (alive()) {
        const BatchWriter::Step step = batches_->step();
        if (step == BatchWriter::Step::refused) {
            backoff_ns_ = backoff_ns_ == 0 ? kIntervalNs : std::min(2 * backoff_ns_, 5000 * kMs);
            return false;
        }
        backoff_ns_ = 0;
        if (fsync_ == Fsync::every_flush) note_durable(committed_);
        if (step == BatchWriter::Step::idle) return true;
    }
    return false;
}

void Writer::add_final_drops() {
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        const std::uint64_t dropped = memory_->drops()[s].exchange(0, std::memory_order_relaxed);
        if (dropped != 0) batches_->add_drops(static_cast<Stream>(s), dropped, now_ticks());
    }
}

void Writer::note_durable(std::uint64_t position) {
    if (!alive()) return;
    while (facts_.durable < ends_.size() && ends_[facts_.durable] <= position) ++facts_.durable;
}

}  // namespace sim
