// The flush thread's side: asking, giving up, late copies, a block. What becomes of values is in tests/device.
#include <algorithm>
#include <cmath>
#include <string>
#include <thread>
#include <vector>

#include "test_device_support.hpp"

using namespace fastlog;
using namespace fastlog::test;

namespace {

using State = DeviceValues::State;

State poll(TestPool& p, const Sent& sent) { return p.reader.poll(sent.chain.first); }

}  // namespace

TEST_SUITE("device reader") {
    TEST_CASE("should ask a busy stream once a round, for its oldest record") {
        FakeMachine machine;
        TestPool p;
        const FakeStream streams[] = {machine.stream(), machine.stream()};
        const DeviceScalar scalar = machine.scalar(1);
        std::vector<Sent> sent;
        for (const FakeStream stream : streams) REQUIRE(::fake_hang(stream) == 0);
        for (int i = 0; i < 10; ++i) {
            sent.push_back(p.send(std::vector<DeviceScalar>(9, scalar), streams[i % 2]));
        }
        for (int round = 1; round <= 3; ++round) {
            p.reader.begin_round();
            for (const Sent& one : sent) CHECK(poll(p, one) == State::waiting);
            CHECK(machine.count("cuEventQuery") == 2 * round);
        }
        REQUIRE(::fake_release(streams[1]) == 0);
        REQUIRE(::fake_wait(streams[1], 10'000'000) == 1);
        ::fake_reset_counts();
        p.reader.begin_round();
        for (int i = 0; i < 10; ++i) {
            CHECK(poll(p, sent[static_cast<std::size_t>(i)]) ==
                  (i % 2 == 0 ? State::waiting : State::settled));
        }
        CHECK(machine.count("cuEventQuery") == 1 + 5 * 2);
        REQUIRE(::fake_release(streams[0]) == 0);
        for (const Sent& one : sent) p.finish(one);
    }

    TEST_CASE("should not take the same handle on two devices for one stream") {
        FakeMachine machine(2);
        TestPool p;
        REQUIRE(::fake_hang(::fake_legacy_stream(0)) == 0);
        const Sent hung = p.send({machine.scalar(1, 0)}, nullptr, 0);
        const Sent free = p.send({machine.scalar(2, 1)}, nullptr, 1);
        CHECK(eventually([&] {
            p.reader.begin_round();
            CHECK(poll(p, hung) == State::waiting);
            return poll(p, free) == State::settled;
        }));
        CHECK(p.number(free) == 2);
        REQUIRE(::fake_release(::fake_legacy_stream(0)) == 0);
        p.finish(hung);
        p.release(free);
    }

    TEST_CASE("should take a capture's error for not yet, and any other for the end") {
        FakeMachine machine;
        TestPool p;
        const FakeStream stream = machine.stream();
        const DeviceScalar scalar = machine.scalar(6);
        const Sent sent = p.send({scalar}, stream);
        REQUIRE(::fake_wait(stream, 10'000'000) == 1);
        for (const int code : {900, 906, 908, 600}) {
            REQUIRE(::fake_fail("cuEventQuery", code, 1) == 0);
            CHECK_FALSE(p.arrived(sent));
        }
        CHECK(p.arrived(sent));
        CHECK(p.number(sent) == 6);
        p.release(sent);
    }

    TEST_CASE("should keep the slots of a broken device, and send none any more") {
        FakeMachine machine;
        TestPool p;
        const FakeStream stream = machine.stream();
        REQUIRE(::fake_hang(stream) == 0);
        const Sent first = p.send(machine.scalars(9, 6), stream);
        const Sent second = p.send({machine.scalar(6)}, stream);
        REQUIRE(::fake_break(0, FAKE_ILLEGAL_ADDRESS) == 0);
        p.reader.begin_round();
        for (const Sent* one : {&first, &second}) {
            CHECK(poll(p, *one) == State::settled);
            CHECK(p.error(*one) == FAKE_ILLEGAL_ADDRESS);
            p.release(*one);
        }
        CHECK(machine.count("cuEventQuery") == 1);  // one event told it of all
        for (int round = 0; round < 5; ++round) p.reader.begin_round();
        CHECK(p.pool.stats().waiting == 3);
        REQUIRE(::fake_break(0, 0) == 0);
        CHECK(p.error(p.send({machine.scalar(6)}, machine.stream())) == FAKE_ILLEGAL_ADDRESS);
    }

    TEST_CASE("should give a record up with its reason, but keep what has arrived of it") {
        FakeMachine machine;
        TestPool p;
        const FakeStream hung = machine.stream();
        const FakeStream free = machine.stream();
        REQUIRE(::fake_hang(hung) == 0);
        Sent sent;
        sent.out.resize(2);
        const DeviceScalar scalars[] = {machine.scalar(1), machine.scalar(2)};
        p.pool.send(kDevice, free, &scalars[0], 1, &sent.out[0], sent.chain);
        p.pool.send(kDevice, hung, &scalars[1], 1, &sent.out[1], sent.chain);
        REQUIRE(::fake_wait(free, 10'000'000) == 1);
        CHECK_FALSE(p.arrived(sent));
        p.reader.give_up(sent.chain.first, MissingReason::no_room);
        CHECK(poll(p, sent) == State::settled);
        CHECK(p.number(sent, 0) == 1);
        CHECK(p.reason(sent, 1) == +MissingReason::no_room);
        p.release(sent);
        CHECK(p.pool.stats().waiting == 1);  // whose copy may still come
        REQUIRE(::fake_release(hung) == 0);
        CHECK(p.settles_down());
    }

    TEST_CASE("should use a slot again only when the late copy into it has ended") {
        FakeMachine machine;
        TestPool p;
        const FakeStream hung = machine.stream();
        const FakeStream free = machine.stream();
        const DeviceScalar scalar = machine.scalar(99);
        REQUIRE(::fake_hang(hung) == 0);
        std::vector<std::uint16_t> late;
        for (int i = 0; i < 5; ++i) {
            const Sent sent = p.send({scalar}, hung);
            late.push_back(sent.chain.first);
            p.reader.begin_round();
            if (i % 2 == 0) {
                p.reader.give_up(sent.chain.first, MissingReason::no_room);
                p.release(sent);
            } else {
                p.pool.abandon(sent.chain);
            }
        }
        for (float value = 0; value < 50; ++value) {
            const Sent sent = p.send({machine.scalar(value)}, free);
            CHECK(std::find(late.begin(), late.end(), sent.chain.first) == late.end());
            REQUIRE(p.arrives(sent));
            CHECK(p.number(sent) == value);
            p.release(sent);
        }
        CHECK(p.pool.stats().waiting == 5);
        REQUIRE(::fake_release(hung) == 0);
        REQUIRE(p.settles_down());
        std::vector<Sent> again;
        for (int i = 0; i < 6; ++i) again.push_back(p.send({scalar}, free));
        for (const std::uint16_t number : late) {
            CHECK(std::any_of(again.begin(), again.end(),
                              [&](const Sent& sent) { return sent.chain.first == number; }));
        }
        for (const Sent& sent : again) p.finish(sent);
    }

    TEST_CASE("should see an old record's value although newer copies of nobody keep coming") {
        // The ring is full of records that wait, and what is recorded now is refused: its copies, which
        // are behind those of the records, must not stand before them.
        FakeMachine machine;
        TestPool p;
        const FakeStream stream = machine.stream();
        const DeviceScalar scalar = machine.scalar(5);
        REQUIRE(::fake_hang(stream) == 0);
        const Sent old = p.send({scalar}, stream);
        const Sent refused = p.send({scalar}, stream);
        p.pool.abandon(refused.chain);
        CHECK_FALSE(p.arrived(old));
        REQUIRE(::fake_release(stream) == 0);
        REQUIRE(::fake_wait(stream, 10'000'000) == 1);
        REQUIRE(::fake_hang(stream) == 0);
        for (int i = 0; i < 5; ++i) p.pool.abandon(p.send({scalar}, stream).chain);
        CHECK(p.arrived(old));
        CHECK(p.number(old) == 5);
        p.release(old);
        // And the ticket of the refused one comes back although newer ones are not done.
        p.reader.begin_round();
        CHECK(p.pool.stats().waiting == 5);
        REQUIRE(::fake_release(stream) == 0);
        CHECK(p.settles_down());
    }

    TEST_CASE("should give up a block that hangs, and measure another with its events") {
        FakeMachine machine;
        TestPool p;
        const FakeStream hung = machine.stream();
        const FakeStream free = machine.stream();
        std::uint64_t missing = 0;
        REQUIRE(::fake_hang(hung) == 0);
        const std::uint16_t ticket = p.pool.begin_block(kDevice, hung, missing);
        const std::int64_t before = monotonic_ns();
        CHECK(p.reader.made_ns(ticket) <= before);
        p.pool.end_block(ticket, hung);
        CHECK(p.reader.made_ns(ticket) >= before);  // it waits from its end
        p.reader.begin_round();
        CHECK(p.reader.poll(ticket) == State::waiting);
        p.reader.give_up(ticket, MissingReason::timeout);
        CHECK(p.reader.duration(ticket).bits == missing_bits(MissingReason::timeout));
        p.reader.release(ticket);
        CHECK(p.pool.stats().waiting == 0);  // no slot is written: nothing to wait for
        REQUIRE(p.pool.begin_block(kDevice, free, missing) == ticket);
        REQUIRE(::fake_delay(free, 5'000) == 0);
        p.pool.end_block(ticket, free);
        REQUIRE(::fake_release(hung) == 0);  // its records come late, and change nothing
        REQUIRE(eventually([&] {
            p.reader.begin_round();
            return p.reader.poll(ticket) == State::settled;
        }));
        CHECK(std::bit_cast<double>(p.reader.duration(ticket).bits) >= 0.0049);
        p.reader.release(ticket);
        CHECK(p.pool.stats().waiting == 0);
    }

    TEST_CASE("should keep a framework's slots until it has delivered, wanted or not") {
        TestPool p;
        const Sent given_up = p.expect(1);
        const Sent refused = p.expect(1);
        p.reader.begin_round();
        p.reader.give_up(given_up.chain.first, MissingReason::timeout);
        p.release(given_up);
        p.pool.abandon(refused.chain);
        for (int round = 0; round < 3; ++round) p.reader.begin_round();
        CHECK(p.pool.stats().waiting == 2);
        for (const Sent* sent : {&given_up, &refused}) p.pool.delivered(sent->at(0).slot);
        CHECK(p.settles_down());
    }

    TEST_CASE("should hand a framework's values from its thread to the flush thread") {
        TestPool p;
        std::atomic<int> wrong{0};
        constexpr std::size_t kRounds = 2000;
        std::vector<Sent> sent(kRounds);
        std::atomic<std::size_t> expected{0};
        std::atomic<std::size_t> read{0};
        std::thread framework([&] {
            for (std::size_t i = 0; i < kRounds; ++i) {
                while (expected.load(std::memory_order_acquire) <= i) std::this_thread::yield();
                p.pool.deliver(sent[i].at(0).slot, {ValueTag::integer, i});
                p.pool.delivered(sent[i].at(0).slot);
            }
        });
        std::thread reader([&] {
            for (std::size_t i = 0; i < kRounds; ++i) {
                while (expected.load(std::memory_order_acquire) <= i) std::this_thread::yield();
                while (!p.arrived(sent[i])) std::this_thread::yield();
                if (p.value(sent[i]).bits != i) wrong.fetch_add(1);
                p.release(sent[i]);
                read.store(i + 1, std::memory_order_relaxed);
            }
        });
        for (std::size_t i = 0; i < kRounds; ++i) {
            sent[i] = p.expect(1);
            expected.store(i + 1, std::memory_order_release);
            while (read.load(std::memory_order_relaxed) + 100 < i) std::this_thread::yield();
        }
        framework.join();
        reader.join();
        CHECK(wrong.load() == 0);
        CHECK(p.pool.stats().waiting == 0);
    }
}
