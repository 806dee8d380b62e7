// The producers' side of values of devices, where it takes a pool of its own to see it: tickets, threads, the
// thread's state in the driver. What becomes of values is in tests/device.
#include <algorithm>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "test_device_support.hpp"

using namespace fastlog;
using namespace fastlog::test;

namespace {

using State = DeviceValues::State;

}  // namespace

TEST_SUITE("device pool") {
    TEST_CASE("should take a ticket and an event for each eight values of a record") {
        FakeMachine machine;
        for (const std::size_t count : {1u, 7u, 8u, 9u, 16u, 17u, 100u}) {
            CAPTURE(count);
            TestPool p;
            const FakeStream stream = machine.stream();
            ::fake_reset_counts();
            const Sent sent = p.send(machine.scalars(count, 5), stream);
            const long tickets = static_cast<long>((count + 7) / 8);
            CHECK(machine.count("cuEventRecord") == tickets + 1);  // one tried the stream
            CHECK(machine.count("cuMemcpyDtoHAsync_v2") == static_cast<long>(count));
            CHECK(p.pool.stats().waiting == static_cast<std::uint64_t>(tickets));
            CHECK(p.pool.stats().sent == count);
            CHECK(sent.chain.flags() == sent.chain.first + 1);
            REQUIRE(p.arrives(sent));
            std::set<std::uint32_t> slots;
            for (std::size_t i = 0; i < count; ++i) {
                CHECK(p.number(sent, i) == static_cast<double>(5 + i));
                slots.insert(sent.at(i).slot);
            }
            CHECK(slots.size() == count);
            p.release(sent);
            CHECK(p.pool.stats().waiting == 0);
        }
    }

    TEST_CASE("should leave the thread's context and its mode of captures as they were") {
        FakeMachine machine(2);
        TestPool p;
        DriverApi api{};
        std::string reason;
        REQUIRE(api.load(DeviceKind::cuda, reason));
        const FakeStream stream = machine.stream(1);
        const auto scalars = machine.scalars(64, 0, 1);
        in_new_thread([&] {
            DriverHandle now = &now;
            p.send(scalars, stream, 1);
            api.context_get_current(&now);
            CHECK(now == nullptr);
            int mode = FAKE_THREAD_LOCAL;
            api.exchange_capture_mode(&mode);
            CHECK(mode == FAKE_GLOBAL);
            DriverHandle first = nullptr;
            REQUIRE(api.primary_context_retain(&first, 0) == 0);
            REQUIRE(api.context_set_current(first) == 0);
            p.send(scalars, stream, 1);
            api.context_get_current(&now);
            CHECK(now == first);
            mode = FAKE_GLOBAL;
            api.exchange_capture_mode(&mode);
            CHECK(mode == FAKE_THREAD_LOCAL);
        });
        CHECK(machine.count("contexts_created") == 0);
    }

    TEST_CASE("should refuse devices that cannot be") {
        FakeMachine machine;
        TestPool p;
        const DeviceScalar scalar = machine.scalar(1);
        for (const int index : {-1, DevicePool::kMostDevices, 1 << 20}) {
            const Sent sent = p.send({scalar}, nullptr, index);
            CHECK(p.reason(sent) == +MissingReason::backend_error);
        }
        const Sent unknown = p.send({scalar}, nullptr, 7);
        CHECK(p.reason(unknown) == +MissingReason::driver_error);
        CHECK(p.error(unknown) == FAKE_INVALID_DEVICE);
        Sent other;
        other.out.resize(1);
        p.pool.send({DeviceKind::mps, 0}, nullptr, &scalar, 1, other.out.data(), other.chain);
        CHECK(p.reason(other) == +MissingReason::backend_error);
    }

    TEST_CASE("should let many threads send while one reads: each value in its own record") {
        FakeMachine machine(2);
        TestPool p;
        constexpr int kThreads = 3;
        const int rounds = scaled(600, 150);
        std::vector<Sent> sent[kThreads];
        std::atomic<int> ready[kThreads]{};
        std::vector<std::thread> threads;
        for (int t = 0; t < kThreads; ++t) {
            sent[t].resize(static_cast<std::size_t>(rounds));
            threads.emplace_back([&, t] {
                const int device = t % 2;
                const FakeStream stream = ::fake_stream_nonblocking(device);
                const FakePointer at = ::fake_malloc(device, 4);
                for (int i = 0; i < rounds; ++i) {
                    const auto value = static_cast<float>(t * 100'000 + i);
                    ::fake_store(stream, at, &value, sizeof value);
                    sent[t][static_cast<std::size_t>(i)] =
                        p.send(std::vector<DeviceScalar>(1 + static_cast<std::size_t>(i) % 11,
                                                         {at, DType::float32}),
                               stream, device);
                    ready[t].store(i + 1, std::memory_order_release);
                }
            });
        }
        int next[kThreads]{};
        int wrong = 0;
        const std::int64_t deadline = far_deadline();
        for (int done = 0; done < kThreads * rounds && monotonic_ns() < deadline;) {
            p.reader.begin_round();
            for (int t = 0; t < kThreads; ++t) {
                if (next[t] == ready[t].load(std::memory_order_acquire)) continue;
                const Sent& one = sent[t][static_cast<std::size_t>(next[t])];
                if (p.reader.poll(one.chain.first) == State::waiting) continue;
                for (std::size_t i = 0; i < one.out.size(); ++i) {
                    wrong += p.number(one, i) != t * 100'000 + next[t];
                }
                p.release(one);
                ++next[t];
                ++done;
            }
        }
        for (auto& thread : threads) thread.join();
        CHECK(wrong == 0);
        for (const int n : next) CHECK(n == rounds);
        CHECK(p.pool.stats().waiting == 0);
    }

    TEST_CASE("should touch neither driver nor slots in a forked child") {
        FakeMachine machine;
        TestPool p;
        const FakeStream stream = machine.stream();
        const DeviceScalar scalar = machine.scalar(4);
        std::uint64_t missing = 0;
        const std::uint16_t block = p.pool.begin_block(kDevice, stream, missing);
        REQUIRE(block != kNoTicket);
        REQUIRE(::fake_hang(stream) == 0);
        const Sent before = p.send({scalar}, stream);
        p.pool.abandon(p.send({scalar}, stream).chain);  // late
        CHECK(in_forked_child([&] {
                  const Sent sent = p.send({scalar}, stream);
                  if (p.reason(sent) != +MissingReason::forked) return 1;
                  if (p.reason(p.expect(1)) != +MissingReason::forked) return 2;
                  if (p.pool.capture_error(kDevice, stream) != 0) return 3;
                  std::uint64_t why = 0;
                  if (p.pool.begin_block(kDevice, stream, why) != kNoTicket) return 4;
                  if (why != missing_bits(MissingReason::forked)) return 5;
                  p.pool.end_block(block, stream);
                  p.reader.begin_round();
                  if (p.reader.poll(block) != State::settled) return 6;
                  if (TestPool::reason_in(p.reader.duration(block)) != +MissingReason::forked) {
                      return 7;
                  }
                  p.reader.release(block);
                  if (p.reader.poll(before.chain.first) != State::settled) return 8;
                  if (p.reason(before) != +MissingReason::forked) return 9;
                  p.release(before);
                  p.reader.begin_round();
                  return kInChildOk;
              }) == kInChildOk);
        CHECK(::fake_calls_in_child() == 0);
        p.pool.end_block(block, stream);
        REQUIRE(::fake_release(stream) == 0);
        REQUIRE(p.arrives(before));
        CHECK(p.number(before) == 4);
        p.release(before);
        REQUIRE(eventually([&] { return p.reader.poll(block) == State::settled; }));
        p.reader.release(block);
        CHECK(p.settles_down());
    }

    TEST_CASE("should give each reference back once, though its ticket is used again for fewer") {
        FakeMachine machine;
        TestPool p;
        const FakeStream stream = machine.stream();
        int kept[kSlotsPerTicket];
        auto scalars = machine.scalars(kSlotsPerTicket, 1);
        for (std::size_t i = 0; i < kSlotsPerTicket; ++i) scalars[i].keep = &kept[i];
        void* references[kSlotsPerTicket];
        const Sent first = p.send(scalars, stream);
        p.finish(first);
        CHECK(p.pool.take_kept(references) == kSlotsPerTicket);
        const Sent next = p.send({scalars[0]}, stream);
        CHECK(next.chain.first == first.chain.first);
        p.finish(next);
        CHECK(p.pool.take_kept(references) == 1);
        CHECK(references[0] == &kept[0]);
        CHECK_FALSE(p.pool.has_kept());
    }

    TEST_CASE("should make ahead what the first values need, and not more when asked again") {
        FakeMachine machine;
        TestPool p;
        for (int times = 0; times < 2; ++times) p.pool.prepare_ahead(kDevice);
        CHECK(machine.count("cuEventCreate") == static_cast<long>(DevicePool::kAhead));
        CHECK(machine.count("cuMemHostAlloc") == 1);
        CHECK(p.pool.stats().waiting == 0);
    }

    TEST_CASE("should destroy an event of a ticket that changes its use without ending a capture") {
        FakeMachine machine(2);
        TestPool p;
        const FakeStream streams[] = {machine.stream(0), machine.stream(1)};
        const std::vector<DeviceScalar> many(8 * DevicePool::kTickets, machine.scalar(1));
        p.finish(p.send(many, streams[0]));  // all tickets are of this device now
        in_new_thread([&] { REQUIRE(::fake_begin_capture(streams[0], FAKE_GLOBAL) == 0); });
        p.finish(p.send({machine.scalar(2, 1)}, streams[1], 1));
        p.pool.abandon(p.expect(1).chain);  // of a framework, that needs no event
        CHECK(machine.count("cuEventDestroy_v2") == 2);
        CHECK(::fake_end_capture(streams[0]) == 1);
    }
}
