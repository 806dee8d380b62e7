// The whole recorder over the fake driver: values of devices from record() to the line.
#include <algorithm>
#include <string>
#include <thread>
#include <vector>

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
        const auto result = recorder.submit(
            RecordKind::metrics, Stream::metrics, now_ticks(), 7, payload.size(),
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
    TEST_CASE("should write each value into the line of its own step") {
        FakeMachine machine;
        TempDir dir;
        Training t(device_options(dir));
        const FakeStream stream = machine.stream();
        const DeviceScalar scalar = machine.scalar(0);
        for (int n = 0; n < 100; ++n) {
            const auto value = static_cast<float>(1000 + n);
            REQUIRE(::fake_store(stream, scalar.address, &value, sizeof value) == 0);
            if (n % 10 == 0) REQUIRE(::fake_delay(stream, 500) == 0);
            REQUIRE(t.record(n, scalar, stream) == Recorder::Submit::accepted);
        }
        REQUIRE(t.recorder.flush(kFar));
        const auto lines = lines_of_stream(dir.path(), "metrics");
        REQUIRE(lines.size() == 100);
        for (std::size_t n = 0; n < 100; ++n) {
            CHECK(lines[n]["step"].count() == n);
            CHECK(lines[n]["metrics"]["host"].count() == n);
            CHECK(std::stod(lines[n]["metrics"]["device"].text) == 1000.0 + static_cast<double>(n));
            CHECK_FALSE(lines[n].has("missing"));
        }
        CHECK(t.pool.stats().waiting == 0);
        CHECK(machine.count("synchronisations") == 0);
        REQUIRE(t.recorder.close(kFar));
    }

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

    TEST_CASE("should write null and timeout for a value that does not come in its time") {
        FakeMachine machine;
        TempDir dir;
        RecorderOptions options = device_options(dir);
        options.device_timeout_ns = kSoon;
        Training t(std::move(options));
        const FakeStream stream = machine.stream();
        REQUIRE(::fake_hang(stream) == 0);
        const std::int64_t begin = monotonic_ns();
        REQUIRE(t.record(0, machine.scalar(1), stream) == Recorder::Submit::accepted);
        REQUIRE(t.recorder.flush(kFar));
        CHECK(monotonic_ns() - begin >= kSoon);
        const auto lines = lines_of_stream(dir.path(), "metrics");
        REQUIRE(lines.size() == 1);
        CHECK(lines[0]["metrics"]["device"].kind == Json::Kind::null);
        CHECK(lines[0]["metrics"]["host"].count() == 0);
        CHECK(t.reason(lines[0]) == "timeout");
        REQUIRE(t.recorder.close(kFar));
    }

    TEST_CASE("should give values up at its close in time, and lose no line by that") {
        FakeMachine machine;
        TempDir dir;
        Training t(device_options(dir));
        const FakeStream stream = machine.stream();
        REQUIRE(::fake_hang(stream) == 0);
        for (int n = 0; n < 10; ++n) {
            REQUIRE(t.record(n, machine.scalar(1), stream) == Recorder::Submit::accepted);
        }
        CHECK(t.recorder.close(4 * kSoon));
        const auto lines = lines_of_stream(dir.path(), "metrics");
        REQUIRE(lines.size() == 10);
        for (const auto& line : lines) CHECK(t.reason(line) == "timeout");
        CHECK(t.pool.stats().waiting == 10);  // their copies are late
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

    TEST_CASE("should make room in a ring that waits, by its oldest values") {
        FakeMachine machine;
        TempDir dir;
        Training t(device_options(dir));
        const FakeStream stream = machine.stream();
        const DeviceScalar scalar = machine.scalar(1);
        REQUIRE(::fake_hang(stream) == 0);
        std::int64_t n = 0;
        const auto half = [&] { return t.recorder.stats().flush.streams[0].written > 0; };
        while (!half() && n < 2000) t.record(n++, scalar, stream);
        const std::int64_t until = monotonic_ns() + kFar;
        while (!half() && monotonic_ns() < until) std::this_thread::yield();
        REQUIRE(half());
        for (const auto& line : lines_of_stream(dir.path(), "metrics")) {
            CHECK(t.reason(line) == "no_room");
        }
        REQUIRE(::fake_release(stream) == 0);
        REQUIRE(t.recorder.flush(kFar));
        REQUIRE(t.recorder.close(kFar));
        const auto lines = lines_of_stream(dir.path(), "metrics");
        CHECK(lines.size() == t.accepted.load());
        CHECK(t.reason(lines.back()) == "");
        CHECK(gapless(lines));
    }

    TEST_CASE("should tell of a value that turned NaN on the device, once, and again after") {
        FakeMachine machine;
        TempDir dir;
        Training t(device_options(dir));
        const FakeStream stream = machine.stream();
        const DeviceScalar nan = machine.scalar(std::numeric_limits<float>::quiet_NaN());
        const DeviceScalar fine = machine.scalar(1);
        for (int n = 0; n < 8; ++n) {
            REQUIRE(t.record(n, n == 1 || n == 2 || n == 5 ? nan : fine, stream) ==
                    Recorder::Submit::accepted);
            REQUIRE(t.recorder.flush(kFar));
        }
        REQUIRE(t.recorder.close(kFar));
        const auto lines = lines_of_stream(dir.path(), "errors");
        REQUIRE(lines.size() == 2);
        CHECK(lines[0]["event"].text == "nonfinite");
        CHECK(lines[0]["step"].count() == 1);
        CHECK(lines[0]["context"]["key"].text == "device");
        CHECK(lines[0]["context"]["value"].text == "nan");
        CHECK(lines[0]["message"].text == "device became nan at step 1");
        CHECK(lines[1]["step"].count() == 5);
        CHECK(gapless(lines));
        CHECK(t.recorder.stats().calls.accepted == 2);  // the events; tests count no others
    }

    TEST_CASE("should go on without values when the pool is exhausted") {
        FakeMachine machine;
        TempDir dir;
        RecorderOptions options = device_options(dir);
        options.ring_bytes = 4 << 20;
        Training t(std::move(options));
        const FakeStream stream = machine.stream();
        const DeviceScalar scalar = machine.scalar(1);
        REQUIRE(::fake_hang(stream) == 0);
        constexpr std::int64_t kMore = 10;
        for (std::int64_t n = 0; n < DevicePool::kTickets + kMore; ++n) {
            REQUIRE(t.record(n, scalar, stream) == Recorder::Submit::accepted);
        }
        REQUIRE(::fake_release(stream) == 0);
        REQUIRE(t.recorder.close(kFar));
        const auto lines = lines_of_stream(dir.path(), "metrics");
        REQUIRE(lines.size() == DevicePool::kTickets + kMore);
        std::int64_t missing = 0;
        for (const auto& line : lines) missing += t.reason(line) == "no_slot";
        CHECK(missing == kMore);
        CHECK(t.pool.stats().waiting == 0);
    }

    TEST_CASE("should share a pool with another recorder and outlive it") {
        FakeMachine machine;
        TempDir dir;
        TempDir other;
        Training t(device_options(dir));
        const FakeStream hung = machine.stream();
        REQUIRE(::fake_hang(hung) == 0);
        {
            Recorder gone(device_options(other));
            gone.use_device([&] { return std::make_unique<DeviceReader>(t.pool); });
            TicketChain chain;
            SettledValue value;
            const DeviceScalar scalar = machine.scalar(1);
            t.pool.send({DeviceKind::cuda, 0}, hung, &scalar, 1, &value, chain);
            const std::string payload =
                MetricsBuilder(0, gone.keys().intern({"x"})).raw(value.tag, value.bits).payload();
            REQUIRE(gone.submit(
                        RecordKind::metrics, Stream::metrics, now_ticks(), 7, payload.size(),
                        [&](std::byte* at) { std::memcpy(at, payload.data(), payload.size()); },
                        chain.flags()) == Recorder::Submit::accepted);
            REQUIRE(gone.close(20 * kSoon));
        }
        REQUIRE(t.record(0, machine.scalar(2), machine.stream()) == Recorder::Submit::accepted);
        REQUIRE(t.recorder.flush(kFar));
        CHECK(t.pool.stats().waiting == 1);
        REQUIRE(::fake_release(hung) == 0);
        CHECK(eventually([&] {
            t.recorder.wake();
            return t.pool.stats().waiting == 0;
        }));
        REQUIRE(t.recorder.close(kFar));
    }

    TEST_CASE("should lose and mix up nothing that many threads record from many streams") {
        FakeMachine machine(2);
        TempDir dir;
        RecorderOptions options = device_options(dir);
        options.back_pressure = BackPressure::drop;
        Training t(std::move(options));
        constexpr int kThreads = 4;
        const std::int64_t each = scaled(3000, 500);
        std::vector<std::thread> threads;
        for (int thread = 0; thread < kThreads; ++thread) {
            threads.emplace_back([&, thread] {
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
            });
        }
        for (auto& thread : threads) thread.join();
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
