// A flush_thread with all that it works on, for the tests that need no recorder around it.
#pragma once

#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/flush_thread.hpp"
#include "test_support.hpp"

namespace fastlog::test {

/// What a path looks like that cannot be written, also for root: it leads through a regular file.
class Obstacle {
  public:
    explicit Obstacle(const TempDir& dir) : file_(dir / "obstacle") { write_file(file_, ""); }
    ~Obstacle() { remove(); }
    std::string run() const { return file_ + "/run"; }
    void remove() {
        std::error_code ignored;  // removed before, by the test
        std::filesystem::remove(file_, ignored);
    }

  private:
    std::string file_;
};

/// No file of this process may grow beyond `bytes` while this lives: writes come out short, then
/// fail with EFBIG. Holds for the test runner's own output too.
class FileSizeLimit {
  public:
    explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
        ::getrlimit(RLIMIT_FSIZE, &old_);
        rlimit low = old_;
        low.rlim_cur = bytes;
        ::setrlimit(RLIMIT_FSIZE, &low);
    }
    ~FileSizeLimit() { lift(); }
    void lift() {
        ::setrlimit(RLIMIT_FSIZE, &old_);
        std::signal(SIGXFSZ, handler_);
    }

  private:
    rlimit old_{};
    void (*handler_)(int);
};

class TestFlushThread final : FlushThread::Owner {
  public:
    explicit TestFlushThread(std::string directory, std::int64_t interval_ns = kHourNs,
                             std::uint64_t segment_bytes = 1 << 20,
                             std::size_t ring_bytes = 64 << 10)
        : r(ring_bytes),
          sink({std::move(directory), "", "", false, segment_bytes}),
          claimed(sink.claim()),
          flush_thread(*this, r.ring, memory, sink, {interval_ns, Fsync::none, kHourNs},
                       attention) {
        flush_thread.tell_claim(claimed);
    }
    ~TestFlushThread() {
        if (joined_ || !started_) return;
        if (!close(far_deadline())) std::abort();  // a test failed and left the disk dead
    }

    void start() {
        flush_thread.start();
        started_ = true;
    }
    bool close(std::int64_t deadline) {
        flush_thread.request_close(r.ring.close());
        if (!flush_thread.wait_done(deadline)) return false;
        flush_thread.join();
        joined_ = true;
        return true;
    }
    bool flush(std::int64_t deadline) { return flush_thread.wait_written(r.ring.tail(), deadline); }

    /// Puts {"n":<number>} into the ring, as a recorder does: a ring half full wakes the thread.
    ClaimStatus put(std::uint64_t number, Stream stream = Stream::metrics) {
        const ClaimStatus status =
            r.put("\"n\":" + std::to_string(number), RecordKind::fragment, stream);
        if (status == ClaimStatus::claimed) flush_thread.wake_if_half_full(r.ring.tail());
        return status;
    }

    RingMemory memory{std::size_t{64} << 10};  // for its key table
    KeyTable table{memory.key_table(), memory.key_table_bytes()};
    TestRing r;
    StreamFiles sink;
    SinkError claimed;
    AttentionBits attention;
    std::atomic<int> ticks{0};
    std::atomic<std::uint64_t> drops[kStreamCount]{};
    FlushThread flush_thread;

  private:
    void tick() override { ticks.fetch_add(1); }
    std::uint64_t take_drops(Stream s) noexcept override {
        return drops[static_cast<std::size_t>(s)].exchange(0);
    }
    bool emit(const std::string&) noexcept override { return true; }

    bool started_ = false;
    bool joined_ = false;
};

/// The lines of all segments of one stream, in order.
inline std::vector<Json> lines_of_stream(const std::string& directory, const std::string& stream) {
    std::vector<Json> lines;
    for (int segment = 0;; ++segment) {
        char number[16] = "";
        if (segment != 0) std::snprintf(number, sizeof number, ".%06d", segment);
        const std::string path = directory + "/" + stream + number + ".jsonl";
        if (!exists(path)) return lines;
        for (const auto& line : lines_of(path)) lines.push_back(parse(line));
    }
}

/// True when the lines' `seq` counts from 0 without a gap.
inline bool gapless(const std::vector<Json>& lines) {
    for (std::size_t i = 0; i < lines.size(); ++i) {
        if (lines[i]["seq"].count() != i) return false;
    }
    return true;
}

/// The sum of the drop markers among lines.
inline std::uint64_t marked_drops(const std::vector<Json>& lines) {
    std::uint64_t sum = 0;
    for (const auto& line : lines) {
        if (line.has("dropped")) sum += line["dropped"].count();
    }
    return sum;
}

/// The numbers that TestFlushThread::put() wrote.
inline std::vector<std::uint64_t> numbers(const std::vector<Json>& lines) {
    std::vector<std::uint64_t> all;
    for (const auto& line : lines) {
        if (line.has("n")) all.push_back(line["n"].count());
    }
    return all;
}

inline std::vector<std::uint64_t> counting(std::uint64_t count) {
    std::vector<std::uint64_t> all(count);
    for (std::uint64_t i = 0; i < count; ++i) all[i] = i;
    return all;
}

}  // namespace fastlog::test
