// The producers' side of values of devices: copies under way, tickets, and what goes wrong with them.
#include <algorithm>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "test_device_support.hpp"

using namespace fastlog;
using namespace fastlog::test;

namespace {

constexpr DeviceId kDevice{DeviceKind::cuda, 0};
using State = DeviceValues::State;

}  // namespace

TEST_SUITE("device pool") {
    TEST_CASE("should make nothing before the first value is sent") {
        const FakeMachine machine;
        TestPool p;
        CHECK(p.pool.stats().sent == 0);
        CHECK(p.pool.has_driver(DeviceKind::cuda));
        CHECK_FALSE(p.pool.has_driver(DeviceKind::xpu));
        p.reader.begin_round();
        for (const char* name : {"cuDevicePrimaryCtxRetain", "cuMemHostAlloc", "cuEventCreate",
                                 "cuCtxSetCurrent", "contexts_created"}) {
            CHECK(machine.count(name) == 0);
        }
    }

    TEST_CASE("should deliver what the device held when it was sent, not what came later") {
        FakeMachine machine;
        TestPool p;
        const FakeStream stream = machine.stream();
        const DeviceScalar scalar = machine.scalar(1);
        std::vector<Sent> sent;
        for (float value = 0; value < 20; ++value) {
            REQUIRE(::fake_store(stream, scalar.address, &value, sizeof value) == 0);
            sent.push_back(p.send({scalar}, stream));
        }
        for (std::size_t i = 0; i < sent.size(); ++i) {
            REQUIRE(p.arrives(sent[i]));
            CHECK(p.number(sent[i]) == static_cast<double>(i));
            p.release(sent[i]);
        }
        CHECK(machine.count("synchronisations") == 0);
        CHECK(machine.count("pageable_copies") == 0);
        CHECK(machine.count("contexts_created") == 0);
    }

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

    TEST_CASE("should chain values of several devices and streams into one record") {
        FakeMachine machine(2);
        TestPool p;
        Sent sent;
        sent.out.resize(12);
        const FakeStream streams[] = {machine.stream(0), machine.stream(1), machine.stream(0)};
        for (std::size_t part = 0; part < 3; ++part) {
            const int device = part == 1 ? 1 : 0;
            const auto scalars = machine.scalars(4, static_cast<float>(10 * part), device);
            p.pool.send({DeviceKind::cuda, device}, streams[part], scalars.data(), 4,
                        sent.out.data() + 4 * part, sent.chain);
        }
        REQUIRE(::fake_hang(streams[2]) == 0);  // behind the copies: they arrive
        REQUIRE(p.arrives(sent));
        for (std::size_t i = 0; i < 12; ++i) {
            CHECK(p.number(sent, i) == static_cast<double>(10 * (i / 4) + i % 4));
        }
        p.release(sent);
        CHECK(p.pool.stats().waiting == 0);
    }

    TEST_CASE("should leave the thread's current context as it was") {
        FakeMachine machine(2);
        TestPool p;
        DriverApi api{};
        std::string reason;
        REQUIRE(api.load(DeviceKind::cuda, reason));
        const FakeStream stream = machine.stream(1);
        const auto scalars = machine.scalars(1, 0, 1);
        in_new_thread([&] {
            DriverHandle now = &now;
            p.send(scalars, stream, 1);
            api.context_get_current(&now);
            CHECK(now == nullptr);
            DriverHandle first = nullptr;
            REQUIRE(api.primary_context_retain(&first, 0) == 0);
            REQUIRE(api.context_set_current(first) == 0);
            p.send(scalars, stream, 1);
            api.context_get_current(&now);
            CHECK(now == first);
        });
        CHECK(machine.count("contexts_created") == 0);
    }

    TEST_CASE("should make no context on a device that the framework does not use") {
        const FakeMachine machine;
        REQUIRE(::fake_set_devices(3) == 0);
        TestPool p;
        const Sent sent = p.send({{4096, DType::float32}}, nullptr, 2);
        CHECK(p.reason(sent) == +MissingReason::driver_error);
        CHECK(p.error(sent) == DriverApi::kInvalidContext);
        CHECK(machine.count("contexts_created") == 0);
        CHECK(machine.count("cuDevicePrimaryCtxRetain") == 0);
        CHECK(sent.chain.flags() == 0);
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

    TEST_CASE("should say no_slot when all tickets are in use, and go on when one is free") {
        FakeMachine machine;
        TestPool p;
        const FakeStream stream = machine.stream();
        const DeviceScalar scalar = machine.scalar(3);
        std::vector<Sent> sent;
        for (std::uint32_t i = 0; i < DevicePool::kTickets - 1; ++i) {
            sent.push_back(p.send({scalar}, stream));
        }
        CHECK(p.pool.crowded());
        // The last ticket goes to the first eight of nine values.
        sent.push_back(p.send(std::vector<DeviceScalar>(9, scalar), stream));
        CHECK(sent.back().pending(7));
        CHECK(p.reason(sent.back(), 8) == +MissingReason::no_slot);
        CHECK(p.reason(p.send({scalar}, stream)) == +MissingReason::no_slot);
        CHECK(p.reason(p.expect(1)) == +MissingReason::no_slot);
        std::uint64_t missing = 0;
        CHECK(p.pool.begin_block(kDevice, stream, missing) == kNoTicket);
        CHECK(missing == missing_bits(MissingReason::no_slot));
        std::set<std::uint16_t> tickets;
        for (const Sent& one : sent) {
            tickets.insert(one.chain.first);
            REQUIRE(p.arrives(one));
            CHECK(p.number(one) == 3);
            p.release(one);
        }
        CHECK(tickets.size() == DevicePool::kTickets);
        CHECK(*tickets.rbegin() == DevicePool::kTickets - 1);
        CHECK_FALSE(p.pool.crowded());
        p.finish(p.send({scalar}, stream));
        CHECK(machine.count("live_events") == DevicePool::kTickets);  // kept, not made anew
    }

    TEST_CASE("should know when a stream is being captured, and end no capture by asking") {
        FakeMachine machine;
        TestPool p;
        const FakeStream captured = ::fake_stream(0);
        const FakeStream other = machine.stream();
        CHECK(p.pool.capture_error(kDevice, captured) == 0);
        REQUIRE(::fake_begin_capture(captured, FAKE_GLOBAL) == 0);
        CHECK(p.pool.capture_error(kDevice, captured) == DriverApi::kFirstCaptureError);
        CHECK(p.pool.capture_error(kDevice, nullptr) == FAKE_CAPTURE_IMPLICIT);
        CHECK(p.pool.capture_error(kDevice, other) == 0);
        CHECK(::fake_end_capture(captured) == 1);
        CHECK(p.pool.capture_error(kDevice, captured) == 0);
        // What else may be wrong shows when something is sent.
        REQUIRE(::fake_fail("cuStreamIsCapturing", 719, 1) == 0);
        CHECK(p.pool.capture_error(kDevice, captured) == 0);
        REQUIRE(::fake_fail("cuStreamIsCapturing", 901, 1) == 0);
        CHECK(p.pool.capture_error(kDevice, captured) == 901);
        CHECK(p.pool.capture_error({DeviceKind::cuda, 9}, captured) == 0);
        CHECK(p.pool.capture_error({DeviceKind::other, 0}, captured) == 0);
    }

    TEST_CASE("should end no other thread's capture by its first use or by its questions") {
        FakeMachine machine;
        TestPool p;
        const FakeStream captured = machine.stream();
        const FakeStream stream = machine.stream();
        const auto scalars = machine.scalars(1, 7);
        REQUIRE(::fake_begin_capture(captured, FAKE_GLOBAL) == 0);
        in_new_thread([&] {
            const Sent sent = p.send(scalars, stream);  // allocates, makes events
            CHECK(p.arrives(sent));
            CHECK(p.number(sent) == 7);
            p.release(sent);
            DriverApi api{};
            std::string reason;
            REQUIRE(api.load(DeviceKind::cuda, reason));
        });
        CHECK(::fake_end_capture(captured) == 1);
        CHECK(machine.count("captured_ops") == 0);
    }

    TEST_CASE("should leave the producer's capture mode as it was") {
        FakeMachine machine;
        TestPool p;
        const auto scalars = machine.scalars(1, 7);
        const FakeStream stream = machine.stream();
        in_new_thread([&] {
            p.send(scalars, stream);
            DriverApi api{};
            std::string reason;
            REQUIRE(api.load(DeviceKind::cuda, reason));
            int mode = FAKE_THREAD_LOCAL;
            api.exchange_capture_mode(&mode);
            CHECK(mode == FAKE_GLOBAL);
            p.send(std::vector<DeviceScalar>(64, scalars[0]), stream);
            mode = FAKE_GLOBAL;
            api.exchange_capture_mode(&mode);
            CHECK(mode == FAKE_THREAD_LOCAL);
        });
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

    TEST_CASE("should keep what a copy reads until it has ended, and then give it back once") {
        FakeMachine machine;
        TestPool p;
        const FakeStream stream = machine.stream();
        void* references[kSlotsPerTicket];
        int kept[10];
        auto scalars = machine.scalars(10, 1);
        for (std::size_t i = 0; i < 10; ++i) scalars[i].keep = &kept[i];
        scalars[3].address = 12345;  // its copy fails: the caller's reference stays the caller's
        REQUIRE(::fake_hang(stream) == 0);
        const Sent given_up = p.send(scalars, stream);
        p.reader.give_up(given_up.chain.first, MissingReason::timeout);
        p.release(given_up);
        p.reader.begin_round();
        CHECK(!p.pool.has_kept());
        CHECK(p.pool.take_kept(references) == 0);
        REQUIRE(::fake_release(stream) == 0);
        REQUIRE(eventually([&] {
            p.reader.begin_round();
            return p.pool.has_kept() && p.pool.stats().waiting == 0;
        }));
        CHECK(p.reader.has_kept());
        std::set<void*> seen;
        std::size_t count;
        while ((count = p.pool.take_kept(references)) != 0)
            seen.insert(references, references + count);
        CHECK(seen.size() == 9);
        CHECK(seen.count(&kept[3]) == 0);
        CHECK(!p.pool.has_kept());
        CHECK(in_forked_child([&] { return p.pool.take_kept(references) == 0 ? kInChildOk : 1; }) ==
              kInChildOk);
        const Sent next = p.send({scalars[0]}, stream);  // the tickets are free again
        CHECK(
            (next.chain.first == given_up.chain.first || next.chain.first == given_up.chain.last));
        p.finish(next);
        CHECK(p.pool.take_kept(references) == 1);
    }

    TEST_CASE("should make ahead what the first values need, and not more when asked again") {
        FakeMachine machine;
        TestPool p;
        p.pool.prepare_ahead(kDevice);
        p.pool.prepare_ahead(kDevice);
        const auto events = static_cast<long>(DevicePool::kAhead);
        CHECK(machine.count("cuEventCreate") == events);
        CHECK(machine.count("cuMemHostAlloc") == 1);
        CHECK(p.pool.stats().waiting == 0);
        p.finish(p.send(machine.scalars(17, 1), machine.stream()));
        CHECK(machine.count("cuEventCreate") == events);
        ::fake_fail("cuCtxGetCurrent", 719, 1);
        p.pool.prepare_ahead(kDevice);
        p.pool.prepare_ahead({DeviceKind::cuda, 7});  // no such device: nothing happens
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
