// No ticket is used up where calls of the driver fail. What lines say then is in tests/device.
#include <vector>

#include "test_device_support.hpp"

using namespace fastlog;
using namespace fastlog::test;

namespace {

constexpr std::uint32_t kMany = 2 * DevicePool::kTickets;

}  // namespace

TEST_SUITE("device faults") {
    TEST_CASE("should not use tickets up while the driver makes no events") {
        FakeMachine machine;
        TestPool p;
        const FakeStream stream = machine.stream();
        const DeviceScalar scalar = machine.scalar(1);
        REQUIRE(::fake_fail("cuEventCreate", 2, -1) == 0);
        for (std::uint32_t i = 0; i < kMany; ++i) {
            REQUIRE(p.reason(p.send({scalar}, stream)) == +MissingReason::driver_error);
        }
        std::uint64_t missing = 0;
        CHECK(p.pool.begin_block(kDevice, stream, missing) == kNoTicket);
        CHECK(missing == missing_bits(MissingReason::driver_error, 2));
        REQUIRE(::fake_fail("cuEventCreate", 0, 0) == 0);
        p.finish(p.send({scalar}, stream));
        p.finish(p.expect(0));
    }

    TEST_CASE("should not use tickets up for values of which no copy is under way") {
        FakeMachine machine;
        TestPool p;
        const FakeStream stream = machine.stream();
        const DeviceScalar good = machine.scalar(1);
        REQUIRE(::fake_break(0, FAKE_ILLEGAL_ADDRESS) == 0);  // and no question has told it yet
        for (std::uint32_t i = 0; i < kMany; ++i) {
            const Sent sent = p.send(std::vector<DeviceScalar>(9, good), stream);
            REQUIRE(p.reason(sent, 8) == +MissingReason::driver_error);
            REQUIRE(sent.chain.flags() == 0);
        }
        CHECK(p.pool.stats().sent == 0);  // not even a ticket's event could be made
        REQUIRE(::fake_break(0, 0) == 0);
        const DeviceScalar bad{12345, DType::float32};
        for (std::uint32_t i = 0; i < kMany; ++i) {
            const Sent sent = p.send({bad}, stream);
            REQUIRE(p.error(sent) == FAKE_INVALID_VALUE);
            REQUIRE(sent.chain.flags() == 0);
        }
        CHECK(p.pool.stats().waiting == 0);
        // Eight that do not come before one that does: the chain begins with the second ticket.
        std::vector<DeviceScalar> mixed(8, bad);
        mixed.push_back(good);
        const Sent sent = p.send(mixed, stream);
        REQUIRE(p.arrives(sent));
        CHECK(p.error(sent, 7) == FAKE_INVALID_VALUE);
        CHECK(p.number(sent, 8) == 1);
        p.release(sent);
    }

    TEST_CASE("should lose the ticket, and nothing else, whose event was not recorded") {
        FakeMachine machine;
        TestPool p;
        const FakeStream stream = machine.stream();
        const auto scalars = machine.scalars(12, 1);
        p.finish(p.send(scalars, stream));  // the stream is known to take events
        REQUIRE(::fake_fail("cuEventRecord", 400, 1) == 0);
        const Sent sent = p.send(scalars, stream);
        const std::uint16_t lost = sent.chain.first;
        REQUIRE(p.arrives(sent));
        CHECK(p.error(sent, 7) == 400);
        CHECK(p.number(sent, 8) == 9);
        p.release(sent);
        CHECK(p.pool.stats().waiting == 0);
        for (int i = 0; i < 20; ++i) {
            const Sent next = p.send(scalars, stream);
            CHECK(next.chain.first != lost);
            CHECK(next.chain.last != lost);
            p.finish(next);
        }
    }

    TEST_CASE("should put nothing under way on a stream that takes no event of ours") {
        FakeMachine machine;
        TestPool p;
        const DeviceScalar scalar = machine.scalar(1);
        const FakeStream own = machine.stream();
        const FakeStream foreign = ::fake_context_stream(::fake_context(0), 0);
        p.finish(p.send({scalar}, own));
        ::fake_reset_counts();
        for (std::uint32_t i = 0; i < kMany; ++i) {
            const Sent sent = p.send({scalar}, foreign);
            REQUIRE(!sent.taken);
            REQUIRE(sent.chain.flags() == 0);
        }
        CHECK(machine.count("cuMemcpyDtoHAsync_v2") == 0);
        CHECK(p.pool.stats().waiting == 0);
        std::uint64_t missing = 0;
        CHECK(p.pool.begin_block(kDevice, foreign, missing) == kNoTicket);
        CHECK(missing == missing_bits(MissingReason::other_context));
        CHECK(p.pool.stats().waiting == 0);
        p.finish(p.send({scalar}, own));  // no ticket was used up
        CHECK(machine.count("cuEventCreate") <= 3);
    }
}
