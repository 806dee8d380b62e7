// The files of one writer: names and labels. Faults are in test_stream_files_faults.cpp.
#include <fcntl.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "core/stream_files.hpp"
#include "test_support.hpp"

using namespace fastlog;
using namespace fastlog::test;

namespace {

StreamFilesOptions in(const std::string& directory, std::string label = "", bool worker = false,
                      std::uint64_t segment_bytes = 1 << 20) {
    return {directory, "", std::move(label), worker, segment_bytes};
}

void append(StreamFiles& sink, Stream stream, std::string_view text) {
    std::size_t written = 0;
    const SinkError error = sink.write(stream, text, written);
    REQUIRE_MESSAGE(!error, error.what);
    REQUIRE(written == text.size());
}

std::vector<std::string> names_in(const std::string& directory) {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
        names.push_back(entry.path().filename().string());
    }
    std::sort(names.begin(), names.end());
    return names;
}

std::string claimed_label(const std::string& directory, const std::string& label, bool worker) {
    StreamFiles sink(in(directory, label, worker));
    const SinkError error = sink.claim();
    REQUIRE_MESSAGE(!error, error.what);
    return sink.label();
}

}  // namespace

TEST_SUITE("stream files") {
    TEST_CASE("should make the directory with its parents and an empty metrics file") {
        TempDir dir;
        StreamFiles sink(in(dir / "a/b/c"));
        CHECK_FALSE(sink.claimed());
        CHECK(sink.segments(Stream::metrics) == 0);
        CHECK_FALSE(sink.claim());
        CHECK(sink.claimed());
        CHECK(sink.label() == "");
        CHECK(read_file(dir / "a/b/c/metrics.jsonl") == "");
        CHECK(names_in(dir / "a/b/c") == std::vector<std::string>{"metrics.jsonl"});
        CHECK(sink.segments(Stream::metrics) == 1);
        CHECK_FALSE(sink.claim());  // once done, nothing more
        CHECK(sink.label() == "");
        CHECK(names_in(dir / "a/b/c").size() == 1);
    }

    TEST_CASE("should name files by stream, stamp, label and segment") {
        TempDir dir;
        StreamFiles plain(in("/runs/x"));
        CHECK(plain.path(Stream::metrics, 0) == "/runs/x/metrics.jsonl");
        CHECK(plain.path(Stream::performance, 1) == "/runs/x/performance.000001.jsonl");
        CHECK(plain.path(Stream::errors, 999'999) == "/runs/x/errors.999999.jsonl");
        CHECK(plain.path(Stream::log, 1'000'000) == "/runs/x/log.1000000.jsonl");
        StreamFiles full({dir.path(), "_2025-09-30_14-30-00", "r3", false, 1000});
        CHECK_FALSE(full.claim());
        CHECK(full.path(Stream::log, 12) == dir / "log_2025-09-30_14-30-00.r3.000012.jsonl");
        CHECK(names_in(dir.path()) ==
              std::vector<std::string>{"metrics_2025-09-30_14-30-00.r3.jsonl"});
    }

    TEST_CASE("should claim the label of a peer where one is taken") {
        TempDir dir;
        CHECK(claimed_label(dir.path(), "", false) == "");
        CHECK(claimed_label(dir.path(), "", false) == "p1");
        CHECK(claimed_label(dir.path(), "", false) == "p2");
        CHECK(claimed_label(dir.path(), "r3", false) == "r3");
        CHECK(claimed_label(dir.path(), "r3", false) == "r3-p1");
        CHECK(claimed_label(dir.path(), "w17", true) == "w17");
        CHECK(claimed_label(dir.path(), "w17", true) == "w17x1");
        CHECK(claimed_label(dir.path(), "w17", true) == "w17x2");
        CHECK(names_in(dir.path()) ==
              std::vector<std::string>{"metrics.jsonl", "metrics.p1.jsonl", "metrics.p2.jsonl",
                                       "metrics.r3-p1.jsonl", "metrics.r3.jsonl",
                                       "metrics.w17.jsonl", "metrics.w17x1.jsonl",
                                       "metrics.w17x2.jsonl"});
    }

    TEST_CASE("should leave what is there as it is") {
        TempDir dir;
        write_file(dir / "metrics.jsonl", "not ours\n");
        std::filesystem::create_symlink(dir / "elsewhere", dir / "metrics.p1.jsonl");
        std::filesystem::create_directory(dir / "metrics.p2.jsonl");
        StreamFiles sink(in(dir.path()));
        CHECK_FALSE(sink.claim());
        CHECK(sink.label() == "p3");
        append(sink, Stream::metrics, "ours\n");
        CHECK(read_file(dir / "metrics.jsonl") == "not ours\n");
        CHECK_FALSE(exists(dir / "elsewhere"));
        CHECK(read_file(dir / "metrics.p3.jsonl") == "ours\n");
    }

    TEST_CASE("should not claim a label that files of any stream or segment already have") {
        // Somebody removed the first metrics file, never copied it along, or laid files aside.
        for (const char* left : {"performance.jsonl", "errors.000000.jsonl", "log.000003.jsonl",
                                 "metrics.000001.jsonl", "metrics.jsonl.gz", "log.jsonl.1",
                                 "errors.000002.jsonl.zst"}) {
            TempDir dir;
            CAPTURE(left);
            write_file(dir / left, "old\n");
            StreamFiles sink(in(dir.path()));
            CHECK_FALSE(sink.claim());
            CHECK(sink.label() == "p1");
            append(sink, Stream::performance, "new\n");
            CHECK(read_file(dir / left) == "old\n");
            CHECK(names_in(dir.path()).size() == 3);
        }
    }

    TEST_CASE("should not be kept from a label by files of another") {
        TempDir dir;
        for (const char* other : {"performance.p1.jsonl", "performance.r10.jsonl",
                                  "performance_2025-09-30_14-30-00.jsonl", "performance.json",
                                  "performance.jsonlines", "performances.jsonl", "run.json",
                                  "performance.r1-p1.jsonl", "performance.r1.x.jsonl"}) {
            write_file(dir / other, "");
        }
        CHECK(claimed_label(dir.path(), "", false) == "");
        CHECK(claimed_label(dir.path(), "r1", false) == "r1");
        CHECK(claimed_label(dir.path(), "r10", false) == "r10-p1");
    }

    TEST_CASE("should give every one of many writers a label of its own") {
        TempDir dir;
        constexpr int kWriters = 12;
        std::vector<std::string> labels(kWriters);
        std::atomic<int> ready{0};
        Threads(kWriters, [&](int w) {
            StreamFiles sink(in(dir / "deep/run"));
            ready.fetch_add(1);
            while (ready.load() < kWriters) ::sched_yield();
            if (SinkError error = sink.claim()) FAIL_CHECK(error.what);
            labels[static_cast<std::size_t>(w)] = sink.label();
        }).join();
        std::set<std::string> expected{""};
        for (int w = 1; w < kWriters; ++w) expected.insert("p" + std::to_string(w));
        CHECK(std::set<std::string>(labels.begin(), labels.end()) == expected);
    }

    TEST_CASE("should want a rotation exactly when the next line does not fit any more") {
        TempDir dir;
        StreamFiles sink(in(dir.path(), "", false, 100));
        // An empty segment takes any line.
        CHECK_FALSE(sink.wants_rotation(Stream::metrics, 0, 100));
        CHECK_FALSE(sink.wants_rotation(Stream::metrics, 0, 5000));
        CHECK_FALSE(sink.wants_rotation(Stream::metrics, 60, 40));
        CHECK(sink.wants_rotation(Stream::metrics, 60, 41));
        append(sink, Stream::metrics, std::string(60, 'x'));
        CHECK_FALSE(sink.wants_rotation(Stream::metrics, 0, 40));
        CHECK(sink.wants_rotation(Stream::metrics, 0, 41));
        CHECK_FALSE(sink.wants_rotation(Stream::metrics, 30, 10));
        CHECK(sink.wants_rotation(Stream::metrics, 30, 11));
        CHECK_FALSE(sink.wants_rotation(Stream::log, 0, 5000));
        append(sink, Stream::metrics, std::string(40, 'x'));
        CHECK_FALSE(sink.wants_rotation(Stream::metrics, 0, 0));
        CHECK(sink.wants_rotation(Stream::metrics, 0, 1));
    }

#if defined(__linux__)  // /proc shows the open files
    TEST_CASE("should close its files, and never hand them to other programs") {
        TempDir dir;
        const auto open_files = [] {
            std::vector<std::string> all = names_in("/proc/self/fd");
            return all.size();
        };
        const std::size_t before = open_files();
        {
            StreamFiles sink(in(dir.path()));
            append(sink, Stream::metrics, "x\n");
            append(sink, Stream::errors, "x\n");
            sink.rotate(Stream::errors);
            append(sink, Stream::errors, "x\n");
            CHECK(open_files() == before + 3);  // two files and the directory
            for (const auto& name : names_in("/proc/self/fd")) {
                std::error_code gone;  // the descriptor of the listing itself
                const auto target = std::filesystem::read_symlink("/proc/self/fd/" + name, gone);
                if (gone || !target.string().starts_with(dir.path())) continue;
                CHECK((::fcntl(std::stoi(name), F_GETFD) & FD_CLOEXEC) != 0);
            }
        }
        CHECK(open_files() == before);
    }
#endif
}
