// The ring alone under ThreadSanitizer: producers and a consumer that touch every payload byte, over
// many laps of a small ring. A weakened order (a relaxed stamp or head) is a reported race on the
// payload, whatever the processor makes of it.
//
//   ring_race RECORDS_PER_PRODUCER
#include <sched.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "core/mpsc_ring.hpp"

namespace {

constexpr std::size_t kCapacity = 4096;
constexpr unsigned kProducers = 3;
struct alignas(64) Data {
    std::byte bytes[kCapacity];
};

std::size_t payload_size(std::uint64_t n) { return 8 + (n * 37) % 300; }

}  // namespace

int main(int count, char** words) {
    const std::uint64_t records = count > 1 ? std::strtoull(words[1], nullptr, 10) : 20'000;
    fastlog::RingControl control{};
    auto data = std::make_unique<Data>();
    fastlog::MpscRing ring(&control, data->bytes, kCapacity, 12345, true);

    std::vector<std::thread> producers;
    for (unsigned p = 0; p < kProducers; ++p) {
        producers.emplace_back([&ring, records, p] {
            for (std::uint64_t n = 0; n < records;) {
                fastlog::MpscRing::Claim claim;
                const std::size_t size = payload_size(n);
                if (ring.try_claim(size, claim) != fastlog::ClaimStatus::claimed) {
                    ::sched_yield();
                    continue;
                }
                fastlog::MpscRing::fill_header(claim, static_cast<std::uint32_t>(size), n, p,
                                               fastlog::RecordKind::metrics,
                                               fastlog::Stream::metrics);
                std::memset(fastlog::MpscRing::payload_of(claim), static_cast<int>(n % 251), size);
                ring.commit(claim);
                ++n;
            }
        });
    }

    std::uint64_t next[kProducers]{};
    std::uint64_t position = 0;
    for (std::uint64_t got = 0; got < records * kProducers;) {
        const fastlog::RecordHeader* record = ring.peek(position);
        if (record == nullptr) {
            ::sched_yield();
            continue;
        }
        if (record->kind != fastlog::RecordKind::pad) {
            const auto* payload = reinterpret_cast<const unsigned char*>(record + 1);
            bool right = record->thread_id < kProducers &&
                         record->ticks == next[record->thread_id] &&
                         record->length == payload_size(record->ticks);
            for (std::uint32_t i = 0; right && i < record->length; ++i) {
                right = payload[i] == record->ticks % 251;
            }
            if (!right) {
                std::fprintf(stderr, "ring_race: a wrong record at %llu\n",
                             static_cast<unsigned long long>(position));
                std::_Exit(3);
            }
            ++next[record->thread_id];
            ++got;
        }
        position = fastlog::MpscRing::after(position, *record);
        ring.release_to(position);
    }
    for (std::thread& producer : producers) producer.join();
    std::printf("%llu records\n", static_cast<unsigned long long>(records * kProducers));
    return 0;
}
