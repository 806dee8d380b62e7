// The ring between real threads; ThreadSanitizer checks the memory orders here.
#include <sched.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "test_support.hpp"

using namespace fastlog;
using namespace fastlog::test;

namespace {

// A payload says who wrote it, as which, and every byte of the rest follows from that.
struct Mark {
    std::uint32_t producer;
    std::uint32_t number;
};

std::size_t length_of(const Mark& mark, std::size_t most) {
    const std::uint32_t mix = (mark.producer * 2654435761u) ^ (mark.number * 40503u);
    // Every 16th may be long, so that pads of all sizes come up.
    return sizeof mark + (mark.number % 16 == 0 ? mix % (most - sizeof mark + 1) : mix % 60);
}

std::byte filler(const Mark& mark, std::size_t i) {
    return static_cast<std::byte>(mark.number * 7 + mark.producer * 31 + i);
}

void write_mark(std::byte* at, const Mark& mark, std::size_t length) {
    std::memcpy(at, &mark, sizeof mark);
    for (std::size_t i = sizeof mark; i < length; ++i) at[i] = filler(mark, i);
}

bool intact(const std::byte* at, const Mark& mark, std::size_t length, std::size_t most) {
    if (length != length_of(mark, most)) return false;
    for (std::size_t i = sizeof mark; i < length; ++i) {
        if (at[i] != filler(mark, i)) return false;
    }
    return true;
}

// What a producer does until it is done or the ring is closed; returns how many were accepted.
std::uint32_t produce(MpscRing& ring, std::uint32_t producer, std::uint32_t count) {
    Mark mark{producer, 0};
    while (mark.number < count) {
        const std::size_t length = length_of(mark, ring.max_payload());
        MpscRing::Claim claim{};
        switch (ring.try_claim(length, claim)) {
            case ClaimStatus::claimed:
                MpscRing::fill_header(claim, static_cast<std::uint32_t>(length), 0, producer,
                                      RecordKind::fragment, Stream::log);
                write_mark(MpscRing::payload_of(claim), mark, length);
                ring.commit(claim);
                ++mark.number;
                break;
            case ClaimStatus::closed:
                return mark.number;
            default:
                ::sched_yield();
        }
    }
    return mark.number;
}

// The consumer's half: checks every record as it comes.
class Checker {
  public:
    Checker(MpscRing& ring, std::size_t producers) : ring_(ring), next_(producers, 0) {}

    /// Reads all that is there; false when something was wrong.
    bool drain(std::size_t batch) {
        std::size_t records = 0;
        while (const RecordHeader* record = ring_.peek(cursor_)) {
            if (record->kind != RecordKind::pad && !check(*record)) return false;
            cursor_ = MpscRing::after(cursor_, *record);
            if (++records % batch == 0) ring_.release_to(cursor_);
        }
        ring_.release_to(cursor_);
        return true;
    }
    std::uint64_t cursor() const { return cursor_; }
    const std::vector<std::uint32_t>& counts() const { return next_; }

  private:
    bool check(const RecordHeader& record) {
        const auto* payload = reinterpret_cast<const std::byte*>(&record + 1);
        Mark mark;
        std::memcpy(&mark, payload, sizeof mark);
        // The next of its producer: nothing twice, nothing missing, nothing out of order.
        return record.kind == RecordKind::fragment && record.thread_id == mark.producer &&
               mark.producer < next_.size() && next_[mark.producer]++ == mark.number &&
               intact(payload, mark, record.length, ring_.max_payload());
    }

    MpscRing& ring_;
    std::uint64_t cursor_ = 0;
    std::vector<std::uint32_t> next_;
};

// So many records of each producer, or what they can in five seconds: a small ring changes hands at each turn, which
// takes milliseconds where others keep the processors busy.
void run_producers(std::size_t capacity, std::size_t producers, std::uint32_t each,
                   std::size_t batch) {
    CAPTURE(capacity);
    CAPTURE(producers);
    TestRing r(capacity);
    std::vector<std::uint32_t> accepted(producers, 0);
    std::vector<std::thread> threads;
    for (std::uint32_t p = 0; p < producers; ++p) {
        threads.emplace_back([&, p] { accepted[p] = produce(r.ring, p, each); });
    }
    Checker checker(r.ring, producers);
    const std::vector<std::uint32_t> all(producers, each);
    bool ok = true;
    const std::int64_t deadline = monotonic_ns() + 5'000'000'000;
    while (ok && checker.counts() != all && monotonic_ns() < deadline) {
        const std::uint64_t before = checker.cursor();
        ok = checker.drain(batch);
        if (checker.cursor() == before) ::sched_yield();
    }
    r.ring.close();
    for (auto& thread : threads) thread.join();
    ok = ok && checker.drain(batch);
    CHECK(ok);
    CHECK(checker.counts() == accepted);
    CHECK(checker.cursor() == r.ring.tail());
    CHECK(checker.cursor() > 10 * capacity);
}

}  // namespace

TEST_SUITE("mpsc_ring threads") {
    TEST_CASE("should hold every record of one producer in order") {
        run_producers(1024, 1, scaled(400'000u, 100'000u), 1);
    }

    TEST_CASE("should hold every record of many producers exactly once and in order per producer") {
        run_producers(1024, 2, scaled(200'000u, 60'000u), 1);
        run_producers(4096, 4, scaled(100'000u, 30'000u), 3);
        run_producers(65536, 8, scaled(100'000u, 30'000u), 64);
    }

    TEST_CASE("should lose nothing that was accepted when it is closed while threads produce") {
        for (int round = 0; round < scaled(30, 10); ++round) {
            constexpr std::size_t kProducers = 4;
            TestRing r(2048);
            std::uint32_t accepted[kProducers] = {};
            std::vector<std::thread> threads;
            for (std::uint32_t p = 0; p < kProducers; ++p) {
                threads.emplace_back([&, p] { accepted[p] = produce(r.ring, p, UINT32_MAX); });
            }
            Checker checker(r.ring, kProducers);
            bool ok = true;
            const std::int64_t deadline = far_deadline();
            const auto go_on = [&] { return ok && monotonic_ns() < deadline; };
            const std::uint64_t some = 1024 * static_cast<std::uint64_t>(round);
            while (go_on() && checker.cursor() < some) ok = checker.drain(2);
            const std::uint64_t final_tail = r.ring.close();
            while (go_on() && checker.cursor() != final_tail) ok = checker.drain(2);
            for (auto& thread : threads) thread.join();
            CHECK(ok);
            CHECK(r.ring.tail() == final_tail);
            for (std::size_t p = 0; p < kProducers; ++p) CHECK(checker.counts()[p] == accepted[p]);
        }
    }

    TEST_CASE("should tell every one of several closers the same final tail") {
        TestRing r(1024);
        std::thread producer([&] { produce(r.ring, 0, UINT32_MAX); });
        Checker checker(r.ring, 1);
        bool ok = true;
        const std::int64_t deadline = far_deadline();
        while (ok && checker.cursor() == 0 && monotonic_ns() < deadline) ok = checker.drain(1);
        std::uint64_t tails[3] = {};
        std::vector<std::thread> closers;
        for (auto& tail : tails) closers.emplace_back([&] { tail = r.ring.close(); });
        for (auto& closer : closers) closer.join();
        producer.join();
        CHECK(tails[0] == r.ring.tail());
        CHECK(tails[1] == tails[0]);
        CHECK(tails[2] == tails[0]);
        REQUIRE(ok);
        REQUIRE(checker.drain(1));
        CHECK(checker.cursor() == tails[0]);
    }
}
