// Times that a device measures: two events around a block, and what may go wrong with them.
#include <algorithm>
#include <bit>
#include <cmath>
#include <string>
#include <vector>

#include "test_device_support.hpp"

using namespace fastlog;
using namespace fastlog::test;

namespace {

constexpr DeviceId kDevice{DeviceKind::cuda, 0};
using State = DeviceValues::State;

struct Blocks : TestPool {
    std::uint64_t missing = 0;

    std::uint16_t begin(FakeStream stream) { return pool.begin_block(kDevice, stream, missing); }
    bool ends(std::uint16_t ticket) {
        return eventually([&] {
            reader.begin_round();
            return reader.poll(ticket) == State::settled;
        });
    }
    int reason(std::uint16_t ticket) const { return reason_in(reader.duration(ticket)); }
};

}  // namespace

TEST_SUITE("device blocks") {
    TEST_CASE("should measure a block on the device, in digits of nanoseconds") {
        FakeMachine machine;
        Blocks b;
        const FakeStream stream = machine.stream();
        const std::uint16_t ticket = b.begin(stream);
        REQUIRE(ticket != kNoTicket);
        REQUIRE(::fake_delay(stream, 20'000) == 0);
        b.pool.end_block(ticket, stream);
        b.reader.begin_round();
        CHECK(b.reader.poll(ticket) == State::waiting);
        REQUIRE(b.ends(ticket));
        const SettledValue found = b.reader.duration(ticket);
        REQUIRE(found.tag == ValueTag::real);
        const double seconds = std::bit_cast<double>(found.bits);
        CHECK(seconds >= 0.0199);
        CHECK(seconds < 10);
        CHECK(std::round(seconds * 1e9) / 1e9 == seconds);
        b.reader.release(ticket);
        CHECK(b.pool.stats().waiting == 0);
        CHECK(b.pool.stats().sent == 1);
        CHECK(b.begin(stream) == ticket);  // its events are used again
        CHECK(machine.count("cuEventCreate") == 2);
        CHECK(machine.count("synchronisations") == 0);
    }

    TEST_CASE("should count a block's wait from its end") {
        FakeMachine machine;
        Blocks b;
        const FakeStream stream = machine.stream();
        const std::uint16_t ticket = b.begin(stream);
        const std::int64_t begun = b.reader.made_ns(ticket);
        const std::int64_t before = monotonic_ns();
        CHECK(begun <= before);
        b.pool.end_block(ticket, stream);
        CHECK(b.reader.made_ns(ticket) >= before);
        REQUIRE(b.ends(ticket));
        b.reader.release(ticket);
    }

    TEST_CASE("should keep tickets of blocks and of copies apart") {
        FakeMachine machine;
        Blocks b;
        const FakeStream stream = machine.stream();
        const std::uint16_t block = b.begin(stream);
        const Sent sent = b.send({machine.scalar(1)}, stream);
        b.pool.end_block(block, stream);
        REQUIRE(b.ends(block));
        b.reader.release(block);
        b.finish(sent);
        for (int i = 0; i < 5; ++i) {
            CHECK(b.begin(stream) == block);
            b.pool.abandon({block, block});
            const Sent next = b.send({machine.scalar(1)}, stream);
            CHECK(next.chain.first == sent.chain.first);
            b.finish(next);
        }
    }

    TEST_CASE("should tell the driver's error of each call at the begin") {
        for (const char* name : {"cuEventCreate", "cuEventRecord", "cuCtxGetCurrent",
                                 "cuDevicePrimaryCtxRetain", "cuMemHostAlloc"}) {
            CAPTURE(name);
            FakeMachine machine;
            Blocks b;
            const FakeStream stream = machine.stream();
            REQUIRE(::fake_fail(name, 719, -1) == 0);
            in_new_thread([&] { CHECK(b.begin(stream) == kNoTicket); });
            CHECK(b.missing == missing_bits(MissingReason::driver_error, 719));
            CHECK(b.pool.stats().waiting == 0);
            REQUIRE(::fake_fail(name, 0, 0) == 0);
            const std::uint16_t ticket = b.begin(stream);
            REQUIRE(ticket != kNoTicket);
            b.pool.end_block(ticket, stream);
            REQUIRE(b.ends(ticket));
            CHECK(b.reason(ticket) == -1);
            b.reader.release(ticket);
        }
    }

    TEST_CASE("should miss the time when the end could not be recorded") {
        for (const char* name : {"cuCtxGetCurrent", "cuStreamIsCapturing", "cuEventRecord"}) {
            CAPTURE(name);
            FakeMachine machine;
            Blocks b;
            const FakeStream stream = machine.stream();
            const std::uint16_t ticket = b.begin(stream);
            REQUIRE(::fake_fail(name, 719, 1) == 0);
            b.pool.end_block(ticket, stream);
            REQUIRE(b.ends(ticket));
            CHECK(b.reason(ticket) == +MissingReason::driver_error);
            CHECK((b.reader.duration(ticket).bits >> 16) == 719);
            b.reader.release(ticket);
            CHECK(b.pool.stats().waiting == 0);
            // The ticket is as good as before.
            CHECK(b.begin(stream) == ticket);
            b.pool.end_block(ticket, stream);
            REQUIRE(b.ends(ticket));
            CHECK(b.reason(ticket) == -1);
            b.reader.release(ticket);
        }
    }

    TEST_CASE("should put nothing into a graph at the end of a block in a capture") {
        FakeMachine machine;
        Blocks b;
        const FakeStream stream = machine.stream();
        const std::uint16_t ticket = b.begin(stream);
        REQUIRE(::fake_begin_capture(stream, FAKE_GLOBAL) == 0);
        b.pool.end_block(ticket, stream);
        CHECK(::fake_end_capture(stream) == 1);
        CHECK(machine.count("captured_ops") == 0);
        REQUIRE(b.ends(ticket));
        CHECK(b.reader.duration(ticket).bits == missing_bits(MissingReason::capture));
        b.reader.release(ticket);
    }

    TEST_CASE("should miss the time that the driver does not tell") {
        FakeMachine machine;
        Blocks b;
        const FakeStream stream = machine.stream();
        const std::uint16_t ticket = b.begin(stream);
        b.pool.end_block(ticket, stream);
        REQUIRE(b.ends(ticket));
        REQUIRE(::fake_fail("cuEventElapsedTime", 400, 1) == 0);
        CHECK(b.reason(ticket) == +MissingReason::driver_error);
        CHECK(b.reason(ticket) == -1);
        b.reader.release(ticket);
    }

    TEST_CASE("should give up a block that hangs, and measure another with its events") {
        FakeMachine machine;
        Blocks b;
        const FakeStream hung = machine.stream();
        const FakeStream free = machine.stream();
        REQUIRE(::fake_hang(hung) == 0);
        const std::uint16_t ticket = b.begin(hung);
        b.pool.end_block(ticket, hung);
        b.reader.begin_round();
        CHECK(b.reader.poll(ticket) == State::waiting);
        b.reader.give_up(ticket, MissingReason::timeout);
        CHECK(b.reason(ticket) == +MissingReason::timeout);
        b.reader.release(ticket);
        CHECK(b.pool.stats().waiting == 0);  // no slot is written: nothing to wait for
        REQUIRE(b.begin(free) == ticket);
        REQUIRE(::fake_delay(free, 5'000) == 0);
        b.pool.end_block(ticket, free);
        REQUIRE(::fake_release(hung) == 0);  // its records come late, and change nothing
        REQUIRE(b.ends(ticket));
        CHECK(std::bit_cast<double>(b.reader.duration(ticket).bits) >= 0.0049);
        b.reader.release(ticket);
    }

    TEST_CASE("should take a block that was never ended back") {
        FakeMachine machine;
        Blocks b;
        const std::uint16_t ticket = b.begin(machine.stream());
        b.pool.abandon({ticket, ticket});
        CHECK(b.pool.stats().waiting == 0);
    }

    TEST_CASE("should wait for both ends of a block that changes its stream, and hold up neither") {
        FakeMachine machine;
        Blocks b;
        const FakeStream first = machine.stream();
        const FakeStream second = machine.stream();
        REQUIRE(::fake_hang(first) == 0);
        const std::uint16_t ticket = b.begin(first);
        b.pool.end_block(ticket, second);
        const Sent behind = b.send({machine.scalar(1)}, second);
        CHECK(b.arrives(behind));
        CHECK(b.reader.poll(ticket) == State::waiting);  // in the same round, asked after it
        b.reader.begin_round();
        CHECK(b.reader.poll(ticket) == State::waiting);
        CHECK(b.reader.poll(behind.chain.first) == State::settled);
        b.release(behind);
        REQUIRE(::fake_release(first) == 0);
        REQUIRE(b.ends(ticket));
        CHECK(b.reader.duration(ticket).bits == missing_bits(MissingReason::unordered));
        b.reader.release(ticket);
    }
}
