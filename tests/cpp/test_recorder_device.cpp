// The whole recorder over the fake driver, between threads. What becomes of values is in tests/device.
#include <algorithm>
#include <string>
#include <thread>

#include "test_device_support.hpp"
#include "test_recorder_support.hpp"

using namespace fastlog;
using namespace fastlog::test;

namespace {

constexpr std::int64_t kFar = 60'000'000'000;
constexpr std::int64_t kSoon = 50'000'000;

RecorderOptions device_options(const TempDir& dir) {
    RecorderOptions options = options_for(dir.path());
    options.flush_interval_ns = 1'000'000;
    return options;
}

/// A recorder and a pool, as the bindings use them.
struct Training {
    explicit Training(RecorderOptions options) : recorder(std::move(options)) {}

    /// record(n, host=n, device=<scalar>): the value is on its way.
    Recorder::Submit record(std::int64_t n, DeviceScalar scalar, FakeStream stream,
                            int device = 0) {
        const std::uint32_t keys = recorder.keys().intern({"host", "device"});
        TicketChain chain;
        SettledValue value;
        recorder.use_device([&] { return std::make_unique<DeviceReader>(pool); });
        pool.send({DeviceKind::cuda, device}, stream, &scalar, 1, &value, chain);
        MetricsBuilder builder(n, keys);
        builder.integer(n).raw(value.tag, value.bits);
        const std::string payload = builder.payload();
        const auto result = Recorder::submit(
            recorder.page(), RecordKind::metrics, Stream::metrics, now_ticks(), 7, payload.size(),
            [&](std::byte* at) { std::memcpy(at, payload.data(), payload.size()); }, chain.flags());
        if (result == Recorder::Submit::accepted) {
            ++accepted;
        } else {
            pool.abandon(chain);
        }
        return result;
    }
    std::string reason(const Json& line) const {
        return line.has("missing") ? line["missing"]["device"].text : "";
    }

    DevicePool pool;
    Recorder recorder;
    std::atomic<std::uint64_t> accepted{0};
};

}  // namespace

TEST_SUITE("recorder device") {
    TEST_CASE("should flush a stream although another waits for its device") {
        FakeMachine machine;
        TempDir dir;
        Training t(device_options(dir));
        const FakeStream stream = machine.stream();
        REQUIRE(::fake_hang(stream) == 0);
        REQUIRE(t.record(0, machine.scalar(1), stream) == Recorder::Submit::accepted);
        REQUIRE(record_number(t.recorder, 0, Stream::log) == Recorded::accepted);
        CHECK(t.recorder.flush(Stream::log, kFar));
        CHECK(lines_of_stream(dir.path(), "log").size() == 1);
        CHECK_FALSE(t.recorder.flush(Stream::metrics, kSoon));
        CHECK_FALSE(t.recorder.flush(kSoon));
        CHECK(t.recorder.flush(Stream::performance, kFar));  // that has nothing
        REQUIRE(::fake_release(stream) == 0);
        CHECK(t.recorder.flush(Stream::metrics, kFar));
        CHECK(lines_of_stream(dir.path(), "metrics").size() == 1);
        REQUIRE(t.recorder.close(kFar));
    }

    TEST_CASE("should close in its time although a thread records meanwhile what does not come") {
        // It saw no bit set, and commits while close() waits for what was there then.
        FakeMachine machine;
        TempDir dir;
        Training t(device_options(dir));
        const FakeStream slow = machine.stream();
        const FakeStream hung = machine.stream();
        const DeviceScalar scalar = machine.scalar(1);
        REQUIRE(::fake_delay(slow, kSoon / 1000) == 0);
        REQUIRE(::fake_hang(hung) == 0);
        REQUIRE(t.record(0, scalar, slow) == Recorder::Submit::accepted);
        std::thread late([&] {
            while ((t.recorder.attention().bits() & AttentionBits::kClosed) == 0)
                std::this_thread::yield();
            const std::int64_t until = monotonic_ns() + kSoon / 10;
            while (monotonic_ns() < until) std::this_thread::yield();
            t.record(1, scalar, hung);
        });
        CHECK(t.recorder.close(20 * kSoon));
        late.join();
        const auto lines = lines_of_stream(dir.path(), "metrics");
        REQUIRE(lines.size() == t.accepted.load());
        CHECK(t.reason(lines[0]) == "");
        if (lines.size() == 2) CHECK(t.reason(lines[1]) == "timeout");
    }

    TEST_CASE("should lose and mix up nothing that many threads record from many streams") {
        FakeMachine machine(2);
        TempDir dir;
        RecorderOptions options = device_options(dir);
        options.back_pressure = BackPressure::drop;
        Training t(std::move(options));
        constexpr int kThreads = 4;
        const std::int64_t each = scaled(3000, 500);
        Threads(kThreads, [&](int thread) {
            const int device = thread % 2;
            const FakeStream stream = ::fake_stream_nonblocking(device);
            const FakePointer at = ::fake_malloc(device, 4);
            for (std::int64_t i = 0; i < each; ++i) {
                const std::int64_t n = thread * 100'000 + i;
                const auto value = static_cast<float>(n);
                ::fake_store(stream, at, &value, sizeof value);
                if (i % 100 == 0) ::fake_delay(stream, 300);
                t.record(n, {at, DType::float32}, stream, device);
                if (i % 16 == 0) record_number(t.recorder, 0, Stream::log);
            }
        }).join();
        REQUIRE(t.recorder.close(kFar));
        const auto lines = lines_of_stream(dir.path(), "metrics");
        CHECK(gapless(lines));
        CHECK(lines.size() == t.accepted.load());
        std::size_t wrong = 0;
        std::size_t values = 0;
        for (const auto& line : lines) {
            const Json& value = line["metrics"]["device"];
            if (t.reason(line) != "") {
                wrong += t.reason(line) != "no_room" && t.reason(line) != "no_slot";
                continue;
            }
            ++values;
            wrong += std::stod(value.text) != std::stod(line["step"].text);
        }
        CHECK(wrong == 0);
        CHECK(values > 0);
        CHECK(machine.count("synchronisations") == 0);
    }
}
