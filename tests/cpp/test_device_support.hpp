// The fake driver of tests/device beneath a pool of its own, for the tests of csrc/device.
#pragma once

#include <unistd.h>

#include <bit>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "../device/fake_cuda.h"
#include "device/device_pool.hpp"
#include "device/device_reader.hpp"
#include "test_support.hpp"

namespace fastlog::test {

/// A library that the Makefile puts beside this program.
inline std::string beside_runner(const std::string& name) {
    return (std::filesystem::read_symlink("/proc/self/exe").parent_path() / name).string();
}

/// Runs in a thread of its own: what the driver knows of a thread is new there.
template <class Body>
void in_new_thread(Body&& body) {
    std::thread(std::forward<Body>(body)).join();
}

inline constexpr int kInChildOk = 0;
inline constexpr DeviceId kDevice{DeviceKind::cuda, 0};

/// A machine with `devices` active devices.
class FakeMachine {
  public:
    explicit FakeMachine(int devices = 1) {
        ::setenv("FASTLOG_CUDA_LIBRARY", beside_runner("libfake_cuda.so").c_str(), 1);
        ::fake_reset();
        REQUIRE(::fake_set_devices(devices) == 0);
        for (int i = 0; i < devices; ++i) REQUIRE(::fake_activate(i) == 0);
    }
    ~FakeMachine() { ::fake_reset(); }
    FakeMachine(const FakeMachine&) = delete;
    FakeMachine& operator=(const FakeMachine&) = delete;

    /// A scalar in a device's memory.
    DeviceScalar scalar(float value, int device = 0) {
        const FakePointer at = ::fake_malloc(device, sizeof value);
        REQUIRE(at != 0);
        REQUIRE(::fake_store_now(at, &value, sizeof value) == 0);
        return {at, DType::float32};
    }
    std::vector<DeviceScalar> scalars(std::size_t count, float first = 0, int device = 0) {
        std::vector<DeviceScalar> all;
        for (std::size_t i = 0; i < count; ++i) {
            all.push_back(scalar(first + static_cast<float>(i), device));
        }
        return all;
    }
    FakeStream stream(int device = 0) {
        const FakeStream made = ::fake_stream_nonblocking(device);
        REQUIRE(made != nullptr);
        return made;
    }
    static long count(const char* name) { return ::fake_count(name); }
};

/// What one send() gave.
struct Sent {
    std::vector<SettledValue> out;
    TicketChain chain;
    bool taken = true;  // else it is the framework's to copy

    bool pending(std::size_t i) const { return out[i].tag == ValueTag::pending; }
    PendingValue at(std::size_t i) const { return PendingValue::from(out[i].bits); }
};

/// A pool with one reader, as one recorder has it.
struct TestPool {
    DevicePool pool;
    DeviceReader reader{pool};

    Sent send(const std::vector<DeviceScalar>& scalars, DriverHandle stream, int device = 0) {
        Sent sent;
        sent.out.resize(scalars.size());
        sent.taken = pool.send({DeviceKind::cuda, device}, stream, scalars.data(), scalars.size(),
                               sent.out.data(), sent.chain);
        return sent;
    }
    Sent expect(std::size_t count) {
        Sent sent;
        sent.out.resize(count);
        pool.expect(count, sent.out.data(), sent.chain);
        return sent;
    }
    bool arrived(const Sent& sent) {
        reader.begin_round();
        return reader.poll(sent.chain.first) == DeviceValues::State::settled;
    }
    bool arrives(const Sent& sent) {
        return eventually([&] { return arrived(sent); });
    }
    SettledValue value(const Sent& sent, std::size_t i = 0) const {
        return sent.pending(i) ? reader.value(sent.at(i)) : sent.out[i];
    }
    /// A value that is a number; NaN when it is none.
    double number(const Sent& sent, std::size_t i = 0) const {
        const SettledValue found = value(sent, i);
        return found.tag == ValueTag::real ? std::bit_cast<double>(found.bits)
                                           : std::numeric_limits<double>::quiet_NaN();
    }
    /// The reason of a missing value and the driver's number; -1 when there is a value.
    static int reason_in(const SettledValue& value) {
        return value.tag == ValueTag::missing ? static_cast<int>(value.bits & 0xFF) : -1;
    }
    int reason(const Sent& sent, std::size_t i = 0) const { return reason_in(value(sent, i)); }
    std::uint64_t error(const Sent& sent, std::size_t i = 0) const {
        return value(sent, i).bits >> 16;
    }
    void release(const Sent& sent) { reader.release(sent.chain.first); }
    /// Waits for a record and releases it.
    void finish(const Sent& sent) {
        REQUIRE(arrives(sent));
        release(sent);
    }
    /// Rounds until the pool has no ticket in use.
    bool settles_down() {
        return eventually([&] {
            reader.begin_round();
            return pool.stats().waiting == 0;
        });
    }
};

constexpr int operator+(MissingReason reason) { return static_cast<int>(reason); }

}  // namespace fastlog::test
