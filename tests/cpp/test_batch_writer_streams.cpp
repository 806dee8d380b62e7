// Streams advance each on its own: one whose next record waits for a device stays, the others go on.
// The device here is a script, so that every order of arrivals can be played, and after each step a
// copy of the run is recovered: whatever the step was, each record is there exactly once.
#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/batch_writer.hpp"
#include "core/recovery.hpp"
#include "core/ring_memory.hpp"
#include "test_flush_thread_support.hpp"

using namespace fastlog;
using namespace fastlog::test;

namespace {

namespace fs = std::filesystem;

class Script final : public DeviceValues {
  public:
    void begin_round() noexcept override { ++rounds; }
    State poll(std::uint16_t ticket) noexcept override {
        ++polls;
        CHECK(rounds > 0);
        CHECK(std::find(released.begin(), released.end(), ticket) == released.end());
        return arrived[ticket] ? State::settled : State::waiting;
    }
    std::int64_t made_ns(std::uint16_t ticket) const noexcept override { return ticket; }
    void give_up(std::uint16_t ticket, MissingReason) noexcept override {
        given_up.push_back(ticket);
        arrived[ticket] = true;
    }
    SettledValue value(PendingValue) const noexcept override { return {}; }
    SettledValue duration(std::uint16_t) const noexcept override { return {}; }
    void release(std::uint16_t ticket) noexcept override { released.push_back(ticket); }

    std::map<std::uint16_t, bool> arrived;
    std::vector<std::uint16_t> given_up;
    std::vector<std::uint16_t> released;
    int rounds = 0;
    int polls = 0;
};

/// A live ring in a file, committed as the flush thread does it.
class Bench final : public RecordSource {
  public:
    explicit Bench(std::uint64_t segment_bytes = 1 << 20, std::size_t ring_bytes = 16 << 10,
                   RunFiles& disk = posix_files())
        : sink({dir / "run", "", "", false, segment_bytes, false, &disk}),
          claimed(sink.claim()),
          memory(spec(dir / "run", segment_bytes, ring_bytes), ring_error),
          ring(memory.control(), memory.data(), memory.ring_bytes(), memory.salt(), true),
          renderer(memory.key_table(), memory.key_table_bytes()),
          writer(*this, sink, renderer, CommitSlot{}, Fsync::none,
                 [this](const SinkError&) { ++faults; }) {
        REQUIRE_FALSE(claimed);
        REQUIRE(memory.mapped());
        writer.commit_start();
    }

    const RecordHeader* next(std::uint64_t& position) override {
        for (;;) {
            const RecordHeader* record = ring.peek(position);
            if (record == nullptr || record->kind != RecordKind::pad) return record;
            position = MpscRing::after(position, *record);
        }
    }
    SinkError commit(CommitSlot& slot) override {
        if (refuse_commits) return {EIO, "commit"};
        const std::uint64_t epoch = memory.epoch()->load() + 1;
        slot.epoch = epoch;
        slot.crc = slot_crc(slot);
        if (at_every_point) at_every_point();
        *memory.slot(epoch) = slot;
        if (at_every_point) at_every_point();
        memory.epoch()->store(epoch);
        ring.release_to(slot.position);
        last = slot;
        if (at_every_point) at_every_point();
        return {};
    }
    DeviceValues* device() override { return asked_for++ < unknown_for ? nullptr : &script; }
    bool must_settle(std::uint64_t position, std::int64_t made_ns, MissingReason& why) override {
        CHECK(made_ns >= 0);
        why = MissingReason::timeout;
        return position < settle_before;
    }

    /// Records {"n":<next of the stream>}; a ticket of 0 or more makes it wait for that.
    bool put(Stream stream, int ticket = -1, std::size_t filling = 0) {
        auto& count = accepted[static_cast<std::size_t>(stream)];
        std::string members = "\"n\":" + std::to_string(count);
        if (filling != 0) members += ",\"x\":\"" + std::string(filling, 'x') + "\"";
        MpscRing::Claim claim{};
        if (ring.try_claim(members.size(), claim) != ClaimStatus::claimed) return false;
        MpscRing::fill_header(claim, static_cast<std::uint32_t>(members.size()), now_ticks(), 7,
                              RecordKind::fragment, stream, static_cast<std::uint16_t>(ticket + 1));
        std::memcpy(MpscRing::payload_of(claim), members.data(), members.size());
        ring.commit(claim);
        ++count;
        return true;
    }

    void drain() {
        while (writer.step() == BatchWriter::Step::wrote) {
        }
    }
    std::vector<std::uint64_t> written(const char* stream) {
        const auto lines = lines_of_stream(dir / "run", stream);
        CHECK(gapless(lines));
        return numbers(lines);
    }
    std::uint64_t ahead(Stream stream) const {
        return last.streams[static_cast<std::size_t>(stream)].ahead * kRecordAlign;
    }

    /// What a recovery of this moment would leave: each accepted record once, in order.
    void check_recovery() {
        const std::string copy = dir / "copy";
        fs::remove_all(copy);
        fs::copy(dir / "run", copy, fs::copy_options::recursive);
        const auto reports = recover_run(copy);
        REQUIRE(reports.size() == 1);
        REQUIRE(reports[0].outcome == RecoveryReport::Outcome::recovered);
        CHECK(reports[0].holes == 0);
        CHECK(reports[0].damaged == 0);
        for (std::size_t s = 0; s < kStreamCount; ++s) {
            const auto lines = lines_of_stream(copy, kStreamNames[s]);
            if (!gapless(lines)) FAIL_CHECK(kStreamNames[s], " has a gap");
            if (numbers(lines) != counting(accepted[s])) FAIL_CHECK(kStreamNames[s]);
        }
        ++recoveries;
    }

    TempDir dir;
    Script script;
    std::uint64_t accepted[kStreamCount]{};
    std::uint64_t settle_before = 0;
    int unknown_for = 0;
    int asked_for = 0;
    bool refuse_commits = false;
    int faults = 0;
    int recoveries = 0;
    CommitSlot last{};
    std::function<void()> at_every_point;
    StreamFiles sink;
    SinkError claimed;
    SinkError ring_error;
    RingMemory memory;
    MpscRing ring;
    LineRenderer renderer;
    BatchWriter writer;

  private:
    static RingSpec spec(std::string run, std::uint64_t segment_bytes, std::size_t ring_bytes) {
        RingSpec spec;
        spec.ring_bytes = ring_bytes;
        spec.run_directory = std::move(run);
        spec.segment_bytes = segment_bytes;
        return spec;
    }
};

}  // namespace

TEST_SUITE("batch writer streams") {
    TEST_CASE(
        "should write a batch again as a whole, and at once, when its run is removed meanwhile") {
        class Removing final : public PosixFiles {
          public:
            std::string run;
            ssize_t write_at(int fd, const void* bytes, std::size_t size,
                             std::uint64_t offset) noexcept override {
                if (!run.empty() && ++writes_ == 2) fs::remove_all(run);
                return PosixFiles::write_at(fd, bytes, size, offset);
            }

          private:
            int writes_ = 0;
        } disk;
        Bench b(1 << 20, 16 << 10, disk);
        disk.run = b.dir / "run";
        REQUIRE(b.put(Stream::metrics));
        REQUIRE(b.put(Stream::performance));
        CHECK(b.writer.step() == BatchWriter::Step::wrote);
        CHECK(b.written("metrics") == counting(1));
        CHECK(b.written("performance") == counting(1));
        CHECK(b.faults != 0);
    }

    TEST_CASE("should write the other streams while one waits, and that in its order later") {
        Bench b;
        b.put(Stream::metrics);
        b.put(Stream::metrics, 1);
        b.put(Stream::log);
        b.put(Stream::metrics);  // has all its values, but its turn has not come
        b.put(Stream::metrics, 2);
        b.put(Stream::log);
        b.script.arrived[2] = true;  // out of order
        b.drain();
        CHECK(b.written("metrics") == counting(1));
        CHECK(b.written("log") == counting(2));
        CHECK(b.writer.position() == b.ring.head());
        CHECK(b.ring.head() < b.ring.tail());
        b.put(Stream::log);
        b.drain();
        CHECK(b.written("log") == counting(3));
        CHECK(b.script.released.empty());
        b.script.arrived[1] = true;
        b.drain();
        CHECK(b.written("metrics") == counting(4));
        CHECK(b.script.released == std::vector<std::uint16_t>{1, 2});
        CHECK(b.ring.head() == b.ring.tail());
        CHECK(b.writer.counters().written[0] == 4);
        CHECK(b.writer.counters().written[3] == 3);
    }

    TEST_CASE(
        "should state in the commit slot how far each stream is ahead of the one that waits") {
        Bench b;
        b.put(Stream::metrics);
        const std::uint64_t waiting_at = b.ring.tail();
        b.put(Stream::metrics, 0);
        const std::uint64_t timing_at = b.ring.tail();
        b.put(Stream::performance, 1);
        b.put(Stream::log);
        b.drain();
        CHECK(b.last.position == waiting_at);
        CHECK(b.ahead(Stream::metrics) == 0);
        CHECK(b.ahead(Stream::performance) == timing_at - waiting_at);
        CHECK(b.ahead(Stream::errors) == b.ring.tail() - waiting_at);
        CHECK(b.ahead(Stream::log) == b.ring.tail() - waiting_at);
        CHECK(b.last.streams[0].seq == 1);
        CHECK(b.last.streams[3].seq == 1);
        CHECK(b.ring.head() == waiting_at);
        b.script.arrived[0] = true;
        b.drain();
        CHECK(b.last.position == timing_at);
        b.script.arrived[1] = true;
        b.drain();
        CHECK(b.last.position == b.ring.tail());
        for (std::size_t s = 0; s < kStreamCount; ++s) CHECK(b.last.streams[s].ahead == 0);
    }

    TEST_CASE("should commit nothing new while nothing moves") {
        Bench b;
        b.put(Stream::metrics, 0);
        b.put(Stream::log);
        b.drain();
        const std::uint64_t epoch = b.last.epoch;
        for (int i = 0; i < 5; ++i) CHECK(b.writer.step() == BatchWriter::Step::idle);
        CHECK(b.last.epoch == epoch);
        CHECK(b.script.rounds >= 6);
    }

    TEST_CASE("should ask about the next record of each stream only") {
        Bench b;
        for (int i = 0; i < 20; ++i) {
            b.put(Stream::metrics, 2 * i);
            b.put(Stream::performance, 2 * i + 1);
        }
        b.drain();
        b.script.polls = 0;
        CHECK(b.writer.step() == BatchWriter::Step::idle);
        CHECK(b.script.polls == 2);
    }

    TEST_CASE("should wait for the first record with tickets of all, made while it reads") {
        // The device is made known between the begin of a round and the record.
        Bench b;
        b.unknown_for = 1;
        b.put(Stream::metrics, 0);
        b.drain();
        CHECK(b.written("metrics").empty());
        CHECK(b.script.released.empty());
        b.script.arrived[0] = true;
        b.drain();
        CHECK(b.written("metrics") == counting(1));
        CHECK(b.script.released == std::vector<std::uint16_t>{0});
    }

    TEST_CASE("should give up what must not wait any longer, and write it") {
        Bench b;
        for (int i = 0; i < 3; ++i) b.put(Stream::metrics, i);
        b.drain();
        b.settle_before = b.ring.head() + 1;
        b.drain();
        CHECK(b.script.given_up == std::vector<std::uint16_t>{0});
        CHECK(b.script.released == std::vector<std::uint16_t>{0});
        CHECK(b.written("metrics") == counting(1));
        b.settle_before = b.ring.tail();
        b.drain();
        CHECK(b.script.given_up == std::vector<std::uint16_t>{0, 1, 2});
        CHECK(b.ring.head() == b.ring.tail());
    }

    TEST_CASE("should stop at its batch's size and go on there, beside a stream that waits") {
        Bench b(std::uint64_t{1} << 30, std::size_t{4} << 20);
        b.put(Stream::metrics, 0);
        constexpr std::size_t kFilling = 10'000;
        constexpr int kRecords = scaled(100, 60);
        for (int i = 0; i < kRecords; ++i) REQUIRE(b.put(Stream::log, -1, kFilling));
        REQUIRE(b.put(Stream::errors));
        int steps = 0;
        while (b.writer.step() == BatchWriter::Step::wrote) {
            ++steps;
            b.check_recovery();
        }
        CHECK(steps >=
              kRecords * static_cast<int>(kFilling) / static_cast<int>(BatchWriter::kBatchBytes));
        CHECK(b.written("log") == counting(kRecords));
        CHECK(b.written("errors") == counting(1));
        CHECK(b.written("metrics").empty());
    }

    TEST_CASE("should write a refused batch once, with the values that it was made of") {
        Bench b;
        b.put(Stream::metrics, 0);
        b.put(Stream::log);
        b.refuse_commits = true;
        for (int i = 0; i < 3; ++i) CHECK(b.writer.step() == BatchWriter::Step::refused);
        b.script.arrived[0] = true;  // not asked before the batch is committed
        b.put(Stream::log);
        CHECK(b.writer.step() == BatchWriter::Step::refused);
        CHECK(b.script.released.empty());
        CHECK(b.faults == 4);
        b.refuse_commits = false;
        b.drain();
        CHECK(b.written("metrics") == counting(1));
        CHECK(b.written("log") == counting(2));
        CHECK(b.script.released == std::vector<std::uint16_t>{0});
        b.check_recovery();
    }

    TEST_CASE(
        "should try a refused write again while a stream waits, losing and doubling nothing") {
        Bench b;
        b.put(Stream::metrics, 0);
        for (int i = 0; i < 20; ++i) b.put(Stream::log, -1, 200);
        {
            FileSizeLimit full(2'000);
            CHECK(b.writer.step() == BatchWriter::Step::refused);
            CHECK(b.writer.step() == BatchWriter::Step::refused);
            b.script.arrived[0] = true;
            CHECK(b.writer.step() == BatchWriter::Step::refused);
        }
        CHECK(b.faults >= 3);
        b.check_recovery();
        b.drain();
        CHECK(b.written("log") == counting(20));
        CHECK(b.written("metrics") == counting(1));
        b.check_recovery();
    }

    TEST_CASE("should be recovered to each record once from every point of a random life") {
        for (unsigned seed = 0; seed < scaled(6u, 2u); ++seed) {
            CAPTURE(seed);
            Bench b(seed % 2 == 0 ? 700 : 1 << 20, 4096);
            std::mt19937 random(seed);
            b.at_every_point = [&] {
                if (random() % 4 == 0) b.check_recovery();
            };
            int tickets = 0;
            std::vector<std::uint16_t> under_way;
            for (int i = 0; i < 250; ++i) {
                const auto stream = static_cast<Stream>(random() % kStreamCount);
                const int ticket = random() % 3 == 0 ? tickets : -1;
                if (b.put(stream, ticket, random() % 60)) {
                    if (ticket >= 0) under_way.push_back(static_cast<std::uint16_t>(tickets++));
                } else {
                    b.settle_before = b.ring.head() + 1;  // as the flush thread makes room
                }
                if (!under_way.empty() && random() % 3 == 0) {
                    const std::size_t which = random() % under_way.size();
                    b.script.arrived[under_way[which]] = true;
                    under_way.erase(under_way.begin() + static_cast<std::ptrdiff_t>(which));
                }
                if (random() % 3 == 0) b.writer.step();
            }
            for (int t = 0; t < tickets; ++t) {
                b.script.arrived[static_cast<std::uint16_t>(t)] = true;
            }
            b.drain();
            b.check_recovery();
            CHECK(b.recoveries > 20);
            for (std::size_t s = 0; s < kStreamCount; ++s) {
                CHECK(b.written(kStreamNames[s]) == counting(b.accepted[s]));
            }
            std::sort(b.script.released.begin(), b.script.released.end());
            REQUIRE(b.script.released.size() == static_cast<std::size_t>(tickets));
            for (int t = 0; t < tickets; ++t) {
                CHECK(b.script.released[static_cast<std::size_t>(t)] == t);
            }
        }
    }
}
