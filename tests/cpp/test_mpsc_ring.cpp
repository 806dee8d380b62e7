// The ring as one thread sees it: layout, wrap, full, closed. Producers against each other are in
// test_mpsc_ring_threads.cpp and test_mpsc_ring_interleavings.cpp.
#include <algorithm>
#include <deque>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "test_support.hpp"

using namespace fastlog;
using namespace fastlog::test;

namespace {

constexpr std::size_t kSmall = 1024;  // the smallest ring there is: 32 headers

/// A ring in which `bytes` have been written and read already.
std::unique_ptr<TestRing> ring_at(std::uint64_t bytes, std::size_t capacity = kSmall) {
    auto r = std::make_unique<TestRing>(capacity);
    std::string read;
    for (std::uint64_t done = 0; done < bytes; done += kRecordAlign) {
        REQUIRE(r->put("") == ClaimStatus::claimed);
        REQUIRE(r->take(read));
    }
    REQUIRE(r->ring.tail() == bytes);
    REQUIRE(r->ring.head() == bytes);
    return r;
}

}  // namespace

TEST_SUITE("mpsc_ring") {
    TEST_CASE("should size a record as its header and its payload in whole 32 bytes") {
        CHECK(record_size(0) == 32);
        CHECK(record_size(1) == 64);
        CHECK(record_size(32) == 64);
        CHECK(record_size(33) == 96);
    }

    TEST_CASE("should hand over header and payload unchanged") {
        TestRing r(kSmall);
        MpscRing::Claim claim{};
        REQUIRE(r.ring.try_claim(5, claim) == ClaimStatus::claimed);
        MpscRing::fill_header(claim, 5, 123456789, 4711, RecordKind::timing, Stream::errors);
        std::memcpy(MpscRing::payload_of(claim), "hello", 5);
        r.ring.commit(claim);

        const RecordHeader* record = r.ring.peek(0);
        REQUIRE(record != nullptr);
        CHECK(record->length == 5);
        CHECK(record->crc == 0);
        CHECK(record->ticks == 123456789);
        CHECK(record->thread_id == 4711);
        CHECK(record->kind == RecordKind::timing);
        CHECK(record->stream == Stream::errors);
        CHECK(record->flags == 0);
        CHECK(std::string(reinterpret_cast<const char*>(record + 1), 5) == "hello");
        CHECK(MpscRing::after(0, *record) == 64);
    }

    TEST_CASE("should find nothing in fresh memory") {
        TestRing r(kSmall);
        CHECK(r.ring.peek(0) == nullptr);
        CHECK(r.ring.tail() == 0);
        CHECK(r.ring.head() == 0);
    }

    TEST_CASE("should not read part way through writing") {
        TestRing r(kSmall);
        MpscRing::Claim claim{};
        REQUIRE(r.ring.try_claim(8, claim) == ClaimStatus::claimed);
        CHECK(r.ring.peek(0) == nullptr);
        r.fill(claim, "complete");
        CHECK(r.ring.peek(0) == nullptr);
        r.ring.commit(claim);
        CHECK(r.ring.peek(0) != nullptr);
    }

    TEST_CASE("should not read past a record that is not committed yet") {
        TestRing r(kSmall);
        MpscRing::Claim first{};
        MpscRing::Claim second{};
        REQUIRE(r.ring.try_claim(1, first) == ClaimStatus::claimed);
        REQUIRE(r.ring.try_claim(1, second) == ClaimStatus::claimed);
        r.fill(second, "b");
        r.ring.commit(second);
        std::string read;
        CHECK_FALSE(r.take(read));
        r.fill(first, "a");
        r.ring.commit(first);
        REQUIRE(r.take(read));
        CHECK(read == "a");
        REQUIRE(r.take(read));
        CHECK(read == "b");
        CHECK_FALSE(r.take(read));
    }

    TEST_CASE("should insert padding on wrap") {
        auto r = ring_at(kSmall - 64);
        MpscRing::Claim claim{};
        REQUIRE(r->ring.try_claim(50, claim) == ClaimStatus::claimed);  // 96 bytes, 64 are left
        CHECK(claim.position == kSmall);
        CHECK(claim.at == r->memory.get());
        CHECK(r->ring.tail() == kSmall + 96);

        const RecordHeader* pad = r->ring.peek(kSmall - 64);
        REQUIRE(pad != nullptr);
        CHECK(pad->kind == RecordKind::pad);
        CHECK(MpscRing::after(kSmall - 64, *pad) == kSmall);
    }

    TEST_CASE("should refuse what is larger than an eighth of the ring") {
        TestRing r(kSmall);
        CHECK(r.ring.max_record_size() == 128);
        CHECK(r.ring.max_payload() == 96);
        CHECK(r.put(std::string(96, 'x')) == ClaimStatus::claimed);
        CHECK(r.put(std::string(97, 'x')) == ClaimStatus::too_large);
        CHECK(r.ring.tail() == 128);
        MpscRing::Claim claim{};
        CHECK(r.ring.try_claim(kSmall, claim) == ClaimStatus::too_large);
    }

    TEST_CASE("should refuse a payload whose size overflows with its header") {
        TestRing r(kSmall);
        MpscRing::Claim claim{};
        for (std::size_t less = 0; less < 80; ++less) {
            CAPTURE(less);
            REQUIRE(r.ring.try_claim(std::numeric_limits<std::size_t>::max() - less, claim) ==
                    ClaimStatus::too_large);
        }
        CHECK(r.ring.tail() == 0);
    }

    TEST_CASE("should refuse claims once closed, and keep those made before") {
        TestRing r(kSmall);
        REQUIRE(r.put("before") == ClaimStatus::claimed);
        MpscRing::Claim pending{};
        REQUIRE(r.ring.try_claim(7, pending) == ClaimStatus::claimed);
        CHECK(r.ring.close() == 128);
        CHECK(r.ring.close() == 128);
        CHECK(r.ring.tail() == 128);
        CHECK(r.put("after") == ClaimStatus::closed);
        CHECK(r.put(std::string(500, 'x')) == ClaimStatus::too_large);
        r.fill(pending, "pending");
        r.ring.commit(pending);
        std::string read;
        REQUIRE(r.take(read));
        CHECK(read == "before");
        REQUIRE(r.take(read));
        CHECK(read == "pending");
        CHECK_FALSE(r.take(read));
        CHECK(r.put("after") == ClaimStatus::closed);
    }

    TEST_CASE("should say closed, not full, when both are true") {
        TestRing r(kSmall);
        while (r.put("") == ClaimStatus::claimed) {
        }
        r.ring.close();
        CHECK(r.put("") == ClaimStatus::closed);
        CHECK_FALSE(r.ring.room_for(0));
        r.ring.release_to(32);
        CHECK(r.ring.room_for(0));  // the closed bit does not count as a position
        CHECK(r.put("") == ClaimStatus::closed);
    }

    TEST_CASE("should never take a stamp of an earlier lap for one of this") {
        TestRing r(kSmall);
        std::string read;
        for (std::uint64_t lap = 0; lap < 50; ++lap) {
            // Claim the whole ring over the stale records of the lap before; commit from the back.
            std::vector<MpscRing::Claim> claims(kSmall / 32);
            for (auto& claim : claims) REQUIRE(r.ring.try_claim(0, claim) == ClaimStatus::claimed);
            for (auto claim = claims.rbegin(); claim != claims.rend(); ++claim) {
                REQUIRE(r.ring.peek(claim->position) == nullptr);
                r.fill(*claim, "");
                REQUIRE(r.ring.peek(claim->position) == nullptr);
                r.ring.commit(*claim);
                REQUIRE(r.ring.peek(claim->position) != nullptr);
            }
            for (std::size_t i = 0; i < claims.size(); ++i) REQUIRE(r.take(read));
        }
    }

    TEST_CASE("should not take a payload that imitates a header for a record") {
        // Payloads made of whole, genuine, committed records: every 32 bytes of memory then hold a
        // stamp that was valid somewhere. None of them may pass where it lies.
        TestRing r(kSmall);
        std::string read;
        std::string genuine;
        for (int lap = 0; lap < 8; ++lap) {
            while (r.ring.tail() % kSmall != 0 || r.ring.tail() == r.ring.head()) {
                REQUIRE(r.put("") == ClaimStatus::claimed);
                const std::uint64_t at = r.ring.tail() - 32;
                genuine.append(reinterpret_cast<const char*>(r.ring.peek(at)), 32);
            }
            while (r.take(read)) {
            }
            for (std::size_t i = 0; i < 8; ++i) {  // this lap: 8 records of 96 bytes of imitation
                REQUIRE(r.put(std::string_view(genuine).substr(genuine.size() - 96 * (i + 1),
                                                               96)) == ClaimStatus::claimed);
            }
            while (r.take(read)) {
            }
            REQUIRE(r.ring.head() % kSmall == 0);
            for (std::uint64_t at = r.ring.head(); at < r.ring.head() + kSmall; at += 32) {
                REQUIRE(r.ring.peek(at) == nullptr);
            }
        }
    }

    TEST_CASE("should sum up a record alike with the processor's instruction and without") {
        CHECK(crc32c(0, "123456789", 9) == 0xE3069283);  // RFC 3720's check value
        CHECK(crc32c_software(0, "123456789", 9) == 0xE3069283);
        if (!hot_line.has_crc32c) return;
        constexpr std::size_t kMost = 100;
        alignas(RecordHeader) std::byte memory[sizeof(RecordHeader) + kMost];
        std::minstd_rand random(1);
        for (std::size_t size = 0; size <= kMost; ++size) {
            for (std::byte& byte : memory) byte = static_cast<std::byte>(random());
            auto* const record = reinterpret_cast<RecordHeader*>(memory);
            record->length = static_cast<std::uint32_t>(size);
            record->kind = RecordKind::metrics;
            const std::uint64_t position = random() * kRecordAlign;
            const std::uint32_t crc = record_crc(record, position, size, false);
            CHECK(record_crc(record, position, size, true) == crc);
            CHECK(record_crc(record, position) == crc);
            CHECK(record_crc(record, position + kRecordAlign) != crc);
            record->kind = RecordKind::pad;  // whose contents do not count
            CHECK(record_crc(record, position) == record_crc(record, position, 0, false));
        }
    }

    TEST_CASE("should make stamps that differ by position and by salt, and are never zero") {
        TestRing a(kSmall, 2);
        TestRing b(kSmall, 4);
        std::vector<std::uint64_t> stamps;
        for (std::uint64_t at = 0; at < 32 * 20'000; at += 32) {
            stamps.push_back(a.ring.stamp_for(at));
            stamps.push_back(b.ring.stamp_for(at));
        }
        std::sort(stamps.begin(), stamps.end());
        // Salts 3 and 5 differ below the alignment, so no position of one is one of the other.
        CHECK(std::adjacent_find(stamps.begin(), stamps.end()) == stamps.end());
        CHECK(stamps.front() != 0);
    }

    TEST_CASE("should know how full it is") {
        auto r = ring_at(256);
        REQUIRE(r->put("") == ClaimStatus::claimed);
        CHECK(r->ring.used_exactly(r->ring.tail()) == 32);
        CHECK(r->ring.used_at_most(r->ring.tail()) == 32);
        REQUIRE(r->put("") == ClaimStatus::claimed);
        CHECK(r->ring.used_at_most(r->ring.tail()) == 64);
        r->ring.release_to(r->ring.tail());
        CHECK(r->ring.used_at_most(r->ring.tail()) == 64);  // an upper bound: not looked again
        CHECK(r->ring.used_exactly(r->ring.tail()) == 0);
        CHECK(r->ring.used_at_most(r->ring.tail()) == 0);
    }

    TEST_CASE("should count nothing in use before a position that is read already") {
        // A producer that was interrupted after its commit asks with an old position.
        auto r = ring_at(256);
        CHECK(r->ring.used_exactly(128) == 0);
        CHECK(r->ring.used_at_most(128) == 0);
    }

    TEST_CASE("should do what a map of bytes says, for any sizes, over many laps") {
        for (const std::size_t capacity : {kSmall, std::size_t{2048}, std::size_t{16384}}) {
            std::mt19937_64 random(capacity);
            TestRing r(capacity);
            std::vector<bool> used(capacity, false);  // the oracle: which bytes of memory are taken
            struct Expected {
                std::string payload;
                std::vector<std::size_t> bytes;
            };
            std::deque<Expected> expected;
            std::size_t at = 0;
            std::uint64_t counts[2] = {0, 0};
            for (int i = 0; i < scaled(60'000, 6'000); ++i) {
                if (random() % 100 < 55) {
                    const std::size_t most = r.ring.max_payload();
                    const std::string payload(random() % (random() % 4 == 0 ? most + 1 : 40), 'a');
                    std::vector<std::size_t> bytes;
                    const std::size_t size = (32 + payload.size() + 31) / 32 * 32;
                    std::size_t begin = at;
                    if (begin + size > capacity) {
                        for (; begin < capacity; ++begin) bytes.push_back(begin);
                        begin = 0;
                    }
                    for (std::size_t b = begin; b < begin + size; ++b) bytes.push_back(b);
                    const bool fits =
                        std::none_of(bytes.begin(), bytes.end(), [&](auto b) { return used[b]; });
                    REQUIRE(r.ring.room_for(payload.size()) == fits);
                    REQUIRE(r.put(payload) == (fits ? ClaimStatus::claimed : ClaimStatus::full));
                    ++counts[fits ? 1 : 0];
                    if (!fits) continue;
                    for (auto b : bytes) used[b] = true;
                    at = (begin + size) % capacity;
                    expected.push_back({payload, std::move(bytes)});
                } else {
                    std::string read;
                    REQUIRE(r.take(read) == !expected.empty());
                    if (expected.empty()) continue;
                    REQUIRE(read == expected.front().payload);
                    for (auto b : expected.front().bytes) used[b] = false;
                    expected.pop_front();
                }
            }
            CHECK(counts[0] > 100);
            CHECK(counts[1] > 1000);
        }
    }
}
