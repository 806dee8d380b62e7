// fork(): the child sees one bit, the parent sees nothing.
#include <unistd.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "test_recorder_support.hpp"

using namespace fastlog;
using namespace fastlog::test;

namespace {

constexpr std::int64_t kFar = 60'000'000'000;

}  // namespace

TEST_SUITE("recorder fork") {
    TEST_CASE("should mark every open recorder in the child, and none in the parent") {
        TempDir dir;
        Recorder first(options_for(dir.path()));
        Recorder second(options_for(dir.path()));
        REQUIRE(record_number(first, 0) == Recorded::accepted);
        CHECK(in_forked_child([&] {
                  if (first.attention().bits() != AttentionBits::kForked) return 1;
                  if (second.attention().bits() != AttentionBits::kForked) return 2;
                  first.abandon_in_child();
                  return first.attention().bits() ==
                                 (AttentionBits::kForked | AttentionBits::kClosed)
                             ? 0
                             : 3;
              }) == 0);
        CHECK(first.attention().bits() == 0);
        CHECK(second.attention().bits() == 0);
        REQUIRE(record_number(first, 1) == Recorded::accepted);
        REQUIRE(first.close(kFar));
        REQUIRE(second.close(kFar));
        CHECK(numbers(lines_of_stream(dir.path(), "metrics")) == counting(2));
    }

    TEST_CASE("should know nothing of recorders that are gone") {
        TempDir dir;
        auto recorder = std::make_unique<Recorder>(options_for(dir.path()));
        REQUIRE(recorder->close(kFar));
        recorder.reset();
        CHECK(in_forked_child([] { return 0; }) == 0);  // the handler would write to freed memory
    }

    TEST_CASE("should mark a child's inheritance once: a grandchild is none of its business") {
        TempDir dir;
        Recorder recorder(options_for(dir.path()));
        CHECK(in_forked_child([&] {
                  recorder.attention().clear(AttentionBits::kForked);
                  const pid_t grandchild = ::fork();
                  if (grandchild == 0) ::_exit(recorder.attention().bits() == 0 ? 0 : 1);
                  int status = 0;
                  if (::waitpid(grandchild, &status, 0) != grandchild) return 2;
                  return WIFEXITED(status) ? WEXITSTATUS(status) : 3;
              }) == 0);
        REQUIRE(recorder.close(kFar));
    }

    TEST_CASE("should lose nothing of the parent when it forks while its threads record") {
        TempDir dir;
        Recorder recorder(options_for(dir.path()));
        constexpr std::uint64_t kThreads = 3;
        std::atomic<bool> over{false};
        std::vector<std::uint64_t> accepted(kThreads, 0);
        std::vector<std::thread> threads;
        for (std::uint64_t t = 0; t < kThreads; ++t) {
            threads.emplace_back([&, t] {
                while (!over.load()) {
                    if (record_number(recorder, accepted[t]) == Recorded::accepted) ++accepted[t];
                }
            });
        }
        int wrong = 0;
        for (int i = 0; i < scaled(20, 8); ++i) {
            wrong += in_forked_child(
                [&] { return recorder.attention().bits() & AttentionBits::kForked ? 0 : 1; });
        }
        over.store(true);
        for (auto& thread : threads) thread.join();
        CHECK(wrong == 0);
        REQUIRE(recorder.close(kFar));
        std::uint64_t sum = 0;
        for (const std::uint64_t n : accepted) sum += n;
        const auto lines = lines_of_stream(dir.path(), "metrics");
        CHECK(numbers(lines).size() == sum);
        CHECK(gapless(lines));
        check_balance(recorder);
    }

// Only in the plain build. ThreadSanitizer ends a process that starts threads after it was forked from
// one with threads. GCC 12's AddressSanitizer does not take its allocator's locks around fork(): a child that
// was forked while the parent's flush thread allocates finds them held for ever.
#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
    TEST_CASE("should let a child open a recorder of its own beside the parent's") {
        TempDir dir;
        Recorder recorder(options_for(dir.path()));
        REQUIRE(record_number(recorder, 0) == Recorded::accepted);
        const auto child = [&](const std::string& label) {
            return in_forked_child([&] {
                RecorderOptions options = recorder.options();
                options.sink.label = label;
                options.sink.worker = true;
                Recorder own(std::move(options));
                if (own.attention().bits() != 0) return 1;
                if (record_number(own, 7) != Recorded::accepted) return 2;
                if (!own.close(kFar)) return 3;
                return own.stats().calls.accepted == 1 ? 0 : 4;
            });
        };
        CHECK(child("w1") == 0);
        CHECK(child("w1") == 0);  // the same pid again, one day
        REQUIRE(record_number(recorder, 1) == Recorded::accepted);
        REQUIRE(recorder.close(kFar));
        CHECK(numbers(lines_of_stream(dir.path(), "metrics")) == counting(2));
        CHECK(parse(lines_of(dir / "metrics.w1.jsonl").at(0))["n"].count() == 7);
        CHECK(parse(lines_of(dir / "metrics.w1x1.jsonl").at(0))["n"].count() == 7);
    }
#endif
}
