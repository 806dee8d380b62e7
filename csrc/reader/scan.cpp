#include "reader/scan.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

#include "core/quiet_thread.hpp"
#include "reader/chunk_reader.hpp"

namespace fastlog::reader {
namespace {

// Below this a thread costs more than it brings.
constexpr std::uint64_t kLeastBytes = std::uint64_t{2} << 20;
constexpr std::uint64_t kLeastPart = std::uint64_t{1} << 20;
// How many times as much as their files compressed lines are, about: it decides on threads only.
constexpr std::uint64_t kExpansion = 8;

}  // namespace

std::vector<SegmentSize> measure(const std::vector<Source>& sources) {
    std::vector<SegmentSize> sizes;
    for (const Source& source : sources) {
        for (const Segment& segment : source.segments) {
            const SegmentFile file(segment);
            const std::uint64_t expected =
                segment.read_on ? file.disk_size() * kExpansion : file.size();
            sizes.push_back(file.error() == 0 ? SegmentSize{file.size(), expected, 0}
                                              : SegmentSize{0, 0, file.error()});
        }
    }
    return sizes;
}

std::vector<ScanTask> cut(const std::vector<Source>& sources, const std::vector<SegmentSize>& sizes,
                          std::uint64_t part) {
    std::vector<ScanTask> tasks;
    auto size = sizes.begin();
    for (std::size_t s = 0; s < sources.size(); ++s) {
        for (std::size_t i = 0; i < sources[s].segments.size(); ++i, ++size) {
            if (size->error != 0 || sources[s].segments[i].read_on) {
                tasks.push_back({s, i, 0, size->bytes, size->error});
                continue;
            }
            for (std::uint64_t begin = 0; begin < size->bytes; begin += part) {
                tasks.push_back({s, i, begin, std::min(begin + part, size->bytes), 0});
            }
        }
    }
    return tasks;
}

std::unique_ptr<Chunk> read_part(const Segment& segment, Stream stream, const ScanTask& task,
                                 const Options& options, ChunkReader& reader,
                                 const std::atomic<bool>* cancelled) {
    auto chunk = std::make_unique<Chunk>();
    chunk->error = task.error;
    if (task.error != 0) return chunk;
    const SegmentFile file(segment, cancelled);
    chunk->error = file.error();
    if (chunk->error == 0) {
        reader.read(file, task.begin, task.end, stream, options, *chunk);
    }
    return chunk;
}

std::unique_ptr<Chunk> read_part(const std::vector<Source>& sources, const ScanTask& task,
                                 const Options& options, ChunkReader& reader,
                                 const std::atomic<bool>* cancelled) {
    const Source& source = sources[task.source];
    return read_part(source.segments[task.segment], source.stream, task, options, reader,
                     cancelled);
}

namespace {

bool has_compressed(const std::vector<Source>& sources) {
    const auto is_compressed = [](const Segment& segment) { return segment.read_on != nullptr; };
    return std::any_of(sources.begin(), sources.end(), [&](const Source& source) {
        return std::any_of(source.segments.begin(), source.segments.end(), is_compressed);
    });
}

/// The state of a scan by several threads. The tasks are dealt in order.
///
/// next, cancelled: any thread. done, error, taken: under the mutex.
struct Shared {
    std::atomic<std::size_t> next{0};
    std::atomic<bool> cancelled{false};
    std::mutex mutex;
    std::condition_variable ready;  // a part was read, or there is an error
    std::condition_variable room;   // a part was taken
    std::vector<std::unique_ptr<Chunk>> done;
    std::size_t taken = 0;
    std::exception_ptr error;
};

void work(const std::vector<Source>& sources, const std::vector<ScanTask>& tasks,
          const Options& options, std::size_t ahead, Shared& shared) {
    try {
        ChunkReader reader;
        for (;;) {
            const std::size_t task = shared.next.fetch_add(1, std::memory_order_relaxed);
            if (task >= tasks.size()) return;
            {
                std::unique_lock lock(shared.mutex);
                shared.room.wait(lock, [&] {
                    return shared.cancelled.load(std::memory_order_relaxed) ||
                           task - shared.taken < ahead;
                });
            }
            if (shared.cancelled.load(std::memory_order_relaxed)) return;
            auto chunk = read_part(sources, tasks[task], options, reader, &shared.cancelled);
            const std::lock_guard lock(shared.mutex);
            shared.done[task] = std::move(chunk);
            shared.ready.notify_one();
        }
    } catch (...) {
        const std::lock_guard lock(shared.mutex);
        if (!shared.error) shared.error = std::current_exception();
        shared.cancelled.store(true, std::memory_order_relaxed);
        shared.ready.notify_one();
        shared.room.notify_all();
    }
}

void take_all(const std::vector<ScanTask>& tasks, Shared& shared,
              const std::function<void(Part&&)>& take, const std::function<void()>& go_on) {
    for (std::size_t task = 0; task < tasks.size(); ++task) {
        std::unique_ptr<Chunk> chunk;
        while (!chunk) {
            {
                std::unique_lock lock(shared.mutex);
                shared.ready.wait_for(lock, std::chrono::milliseconds(100), [&] {
                    return shared.done[task] != nullptr || shared.error != nullptr;
                });
                if (shared.error) std::rethrow_exception(shared.error);
                chunk = std::move(shared.done[task]);
            }
            if (!chunk) go_on();
        }
        take({tasks[task].source, tasks[task].segment, std::move(chunk)});
        const std::lock_guard lock(shared.mutex);
        shared.taken = task + 1;
        shared.room.notify_all();
    }
}

/// Ends the threads of a scan, however it ended.
class Threads {
  public:
    explicit Threads(Shared& shared) : shared_(shared) {}
    ~Threads() {
        {
            const std::lock_guard lock(shared_.mutex);
            shared_.cancelled.store(true, std::memory_order_relaxed);
            shared_.room.notify_all();
        }
        for (std::thread& thread : threads_) thread.join();
    }
    Threads(const Threads&) = delete;
    Threads& operator=(const Threads&) = delete;

    std::vector<std::thread>& get() noexcept { return threads_; }

  private:
    Shared& shared_;
    std::vector<std::thread> threads_;
};

}  // namespace

void scan(const std::vector<Source>& sources, const Options& options, const ScanLimits& limits,
          const std::function<void(Part&&)>& take, const std::function<void()>& go_on) {
    const unsigned most =
        limits.threads != 0 ? limits.threads : std::max(1U, std::thread::hardware_concurrency());
    const std::vector<SegmentSize> sizes = measure(sources);
    std::uint64_t bytes = 0;
    for (const SegmentSize& size : sizes) bytes += size.expected;
    // Some parts for each thread, so that none is left alone with the last one.
    const std::vector<ScanTask> tasks =
        cut(sources, sizes,
            std::clamp(bytes / (most * std::uint64_t{4}) + 1, kLeastPart,
                       std::max(kLeastPart, limits.part_bytes)));
    const auto threads = static_cast<unsigned>(std::max<std::uint64_t>(
        std::min<std::uint64_t>({most, tasks.size(), bytes / kLeastBytes}), 1));
    // The caller's thread asks whether to go on; it does not while somebody else's code reads.
    if (threads < 2 && !has_compressed(sources)) {
        ChunkReader reader;
        for (const ScanTask& task : tasks) {
            take({task.source, task.segment, read_part(sources, task, options, reader)});
            go_on();
        }
        return;
    }
    Shared shared;
    shared.done.resize(tasks.size());
    const std::size_t ahead = std::max<std::size_t>(limits.ahead, threads);
    Threads running(shared);
    try {
        for (unsigned i = 0; i < threads; ++i) {
            running.get().push_back(
                start_quiet_thread([&] { work(sources, tasks, options, ahead, shared); }));
        }
    } catch (const std::system_error&) {
        if (running.get().empty()) throw;  // fewer threads do it, too
    }
    take_all(tasks, shared, take, go_on);
}

}  // namespace fastlog::reader
