// Flush thread and recorder when memory runs out, at each of their allocations in turn.
//
// Replaces operator new, so only in the plain build: sanitizers bring their own.
#include "test_support.hpp"

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <new>
#include <string>
#include <thread>

#include "test_recorder_support.hpp"

namespace {

thread_local bool spared = false;  // this thread always gets memory
constexpr std::int64_t kNoEnd = INT64_MIN;
std::atomic<std::int64_t> allocations_left{kNoEnd};  // of all others
std::atomic<std::int64_t> in_a_row{1};               // so many are refused behind them
std::atomic<int> refusals{0};

bool refused() noexcept {
    if (spared || allocations_left.load(std::memory_order_relaxed) == kNoEnd) return false;
    const std::int64_t left = allocations_left.fetch_sub(1, std::memory_order_relaxed);
    if (left > 0 || left <= -in_a_row.load(std::memory_order_relaxed)) return false;
    refusals.fetch_add(1, std::memory_order_relaxed);
    return true;
}

std::size_t files_in(const std::string& directory) {
    std::size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
        if (entry.is_regular_file()) ++count;
    }
    return count;
}

std::string all_files_in(const std::string& directory) {
    std::string names;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
        if (entry.is_regular_file()) names += entry.path().filename().string() + " ";
    }
    return names;
}

}  // namespace

// Not inlined: the compiler would see free() at the end of what it knows as new.
[[gnu::noinline]] void* operator new(std::size_t size) {
    void* at = refused() ? nullptr : std::malloc(size != 0 ? size : 1);
    if (at == nullptr) throw std::bad_alloc();
    return at;
}
[[gnu::noinline]] void operator delete(void* at) noexcept { std::free(at); }
[[gnu::noinline]] void operator delete(void* at, std::size_t) noexcept { std::free(at); }

using namespace fastlog;
using namespace fastlog::test;

TEST_SUITE("out of memory") {
    TEST_CASE(
        "should lose nothing when any of its allocations is refused, alone or with the next") {
        spared = true;
        std::int64_t row = 1;
        SUBCASE("alone") {}
        SUBCASE("with the next three") { row = 4; }
        in_a_row.store(row);
        int met = 0;
        int told = 0;
        for (std::int64_t nth = 0;; nth += row) {
            CAPTURE(nth);
            TempDir dir;
            TestFlushThread f(dir / "run", kHourNs, 2000);
            const std::string text(5000, 'x');
            for (std::uint64_t i = 0; i < 12; ++i) {
                // New key sets, long lines and several segments: buffers grow all the time.
                const std::string key = "key_" + std::to_string(i) + std::string(40, 'k');
                const std::string payload =
                    MetricsBuilder(static_cast<std::int64_t>(i), f.table.intern({key, "epoch"}))
                        .string(std::string_view(text).substr(0, i * 400))
                        .integer(1)
                        .payload();
                REQUIRE(f.r.put(payload, RecordKind::metrics) == ClaimStatus::claimed);
                REQUIRE(f.put(i, Stream::log) == ClaimStatus::claimed);
            }
            f.drops[2].store(3);
            refusals.store(0);
            allocations_left.store(nth);
            f.start();
            // Asked again and again, it does not wait for its back-off to pass.
            const auto soon = [] { return monotonic_ns() + 1'000'000; };
            const bool flushed = eventually([&] { return f.flush(soon()); });
            const bool closed = eventually([&] { return f.close(soon()); });
            allocations_left.store(kNoEnd);
            REQUIRE(flushed);
            REQUIRE(closed);
            const auto metrics = lines_of_stream(dir / "run", "metrics");
            REQUIRE(metrics.size() == 12);
            for (std::uint64_t i = 0; i < 12; ++i) {
                REQUIRE(metrics[i]["step"].count() == i);
                const Json& values = metrics[i]["metrics"];
                REQUIRE(values.keys().at(0) == "key_" + std::to_string(i) + std::string(40, 'k'));
                REQUIRE(values.members[0].second.text.size() == i * 400);
            }
            REQUIRE(gapless(metrics));
            REQUIRE(numbers(lines_of_stream(dir / "run", "log")) == counting(12));
            REQUIRE(marked_drops(lines_of_stream(dir / "run", "errors")) == 3);
            const FlushThreadStats stats = f.flush_thread.stats();
            REQUIRE(stats.streams[0].written == 12);
            // The first run without a refusal has been through all allocations.
            if (refusals.load() == 0) break;
            ++met;
            if (stats.errors != 0) ++told;
            REQUIRE(f.flush_thread.files().size() == files_in(dir / "run"));
        }
        CHECK(met > 100 / row);
        // Not each is a fault: some of it is shown later.
        CHECK(told > met / 2);
        spared = false;
    }

    TEST_CASE(
        "should open or say that it cannot when any allocation is refused, or some in a row") {
        spared = true;
        std::int64_t row = 1;
        SUBCASE("alone") {}
        SUBCASE("with the next three") { row = 4; }
        in_a_row.store(row);
        int met = 0;
        for (std::int64_t nth = 0;; nth += row) {
            CAPTURE(nth);
            TempDir dir;
            RecorderOptions options = options_for(dir / "a/path/that/is/longer/than/small/strings");
            std::unique_ptr<Recorder> recorder;
            refusals.store(0);
            allocations_left.store(nth);
            spared = false;
            try {
                recorder = std::make_unique<Recorder>(std::move(options));
            } catch (const std::bad_alloc&) {
                ++met;  // let out; the destructors have run
            }
            spared = true;
            allocations_left.store(kNoEnd);
            // What it had begun is gone: the next one is the first attempt.
            if (recorder == nullptr) REQUIRE(all_files_in(dir.path()) == "");
            if (recorder != nullptr) {
                REQUIRE(record_number(*recorder, 1) == Recorded::accepted);
                REQUIRE(recorder->close(60'000'000'000));
                if (refusals.load() == 0) break;
            }
        }
        CHECK(met > 10 / row);
        spared = false;
    }

    TEST_CASE("should take the records of a thread that gets no memory of its own") {
        spared = true;
        std::int64_t row = 1;
        SUBCASE("alone") {}
        SUBCASE("with the next three") { row = 4; }
        in_a_row.store(row);
        for (std::int64_t nth = 0;; nth += row) {
            CAPTURE(nth);
            TempDir dir;
            Recorder recorder(options_for(dir.path()));
            REQUIRE(record_number(recorder, 0) == Recorded::accepted);
            refusals.store(0);
            allocations_left.store(nth);
            std::thread thread([&] {
                for (std::uint64_t n = 1; n < 100; ++n) {
                    CHECK(record_number(recorder, n) == Recorded::accepted);
                }
                allocations_left.store(kNoEnd);
            });
            thread.join();
            allocations_left.store(kNoEnd);
            REQUIRE(recorder.close(60'000'000'000));
            REQUIRE(numbers(lines_of_stream(dir.path(), "metrics")) == counting(100));
            check_balance(recorder);
            if (refusals.load() == 0) break;
        }
        spared = false;
    }
}

#endif
