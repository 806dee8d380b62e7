// The ring under every order in which a few threads can take turns.
//
// The ring is built over an Atomic that stops before each operation. A scheduler runs one thread at a
// time and decides at each stop who goes on; all decisions with at most `kPreemptions` unforced
// switches are tried, depth first ("iterative context bounding", Musuvathi and Qadeer, PLDI 2007).
// This finds wrong logic under sequential consistency; wrong memory orders are ThreadSanitizer's
// part, in test_mpsc_ring_threads.cpp.
#include <pthread.h>

#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "test_support.hpp"

using namespace fastlog;
using namespace fastlog::test;

namespace {

constexpr int kPreemptions = kSanitized ? 2 : 3;

class Scheduler {
  public:
    static Scheduler* current;

    explicit Scheduler(std::size_t workers) : bodies_(workers), finished_(workers, true) {
        for (std::size_t w = 0; w < workers; ++w) threads_.emplace_back([this, w] { serve(w); });
    }
    ~Scheduler() {
        lock();
        stop_ = true;
        unlock_and_wake();
        for (auto& t : threads_) t.join();
    }

    /// Runs the bodies to their ends under one schedule.
    void run(std::vector<std::function<void()>> bodies) {
        lock();
        bodies_ = std::move(bodies);
        finished_.assign(bodies_.size(), false);
        depth_ = 0;
        preemptions_ = 0;
        current = this;
        running_ = choose(kNobody);
        unlock_and_wake();
        lock();
        while (running_ != kNobody) ::pthread_cond_wait(&turn_, &mutex_);
        current = nullptr;
        unlock_and_wake();
    }

    /// Goes on to the next schedule; false when all have been run.
    bool advance() {
        choices_.resize(depth_);
        while (!choices_.empty() && choices_.back().taken + 1 == choices_.back().options) {
            choices_.pop_back();
        }
        if (choices_.empty()) return false;
        ++choices_.back().taken;
        return true;
    }

    /// Called by the running worker: somebody else may go first.
    void stop_here() {
        const std::size_t self = running_;
        const std::size_t next = choose(self);
        if (next == self) return;
        lock();
        running_ = next;
        ::pthread_cond_broadcast(&turn_);
        while (running_ != self) ::pthread_cond_wait(&turn_, &mutex_);
        unlock();
    }

  private:
    static constexpr std::size_t kNobody = SIZE_MAX;
    struct Choice {
        std::size_t taken;
        std::size_t options;
    };

    // `self` first, so that choice 0 is to go on; the others only while there are switches left.
    std::size_t choose(std::size_t self) {
        std::vector<std::size_t> options;
        if (self != kNobody) options.push_back(self);
        if (self == kNobody || preemptions_ < kPreemptions) {
            for (std::size_t w = 0; w < finished_.size(); ++w) {
                if (w != self && !finished_[w]) options.push_back(w);
            }
        }
        if (options.empty()) return kNobody;
        if (options.size() == 1) return options[0];
        if (depth_ == choices_.size()) choices_.push_back({0, options.size()});
        const Choice& choice = choices_[depth_++];
        if (choice.options != options.size()) std::abort();  // a run must be repeatable
        if (self != kNobody && choice.taken != 0) ++preemptions_;
        return options[choice.taken];
    }

    void serve(std::size_t self) {
        lock();
        for (;;) {
            while (!stop_ && running_ != self) ::pthread_cond_wait(&turn_, &mutex_);
            if (stop_) break;
            unlock();
            bodies_[self]();
            lock();
            finished_[self] = true;
            running_ = choose(kNobody);
            ::pthread_cond_broadcast(&turn_);
        }
        unlock();
    }

    void lock() { ::pthread_mutex_lock(&mutex_); }
    void unlock() { ::pthread_mutex_unlock(&mutex_); }
    void unlock_and_wake() {
        ::pthread_cond_broadcast(&turn_);
        unlock();
    }

    pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t turn_ = PTHREAD_COND_INITIALIZER;
    std::size_t running_ = kNobody;
    bool stop_ = false;
    // Touched by the running worker only (handed on under the mutex), and between runs.
    std::vector<std::function<void()>> bodies_;
    std::vector<bool> finished_;
    std::vector<Choice> choices_;
    std::size_t depth_ = 0;
    int preemptions_ = 0;
    std::vector<std::thread> threads_;
};
Scheduler* Scheduler::current = nullptr;

/// std::atomic, with a stop before each operation while a scheduler runs.
template <class T>
class SteppedAtomic {
  public:
    SteppedAtomic() noexcept = default;
    T load(std::memory_order) const noexcept {
        stop();
        return value_.load();
    }
    void store(T value, std::memory_order) noexcept {
        stop();
        value_.store(value);
    }
    T fetch_or(T bits, std::memory_order) noexcept {
        stop();
        return value_.fetch_or(bits);
    }
    bool compare_exchange_weak(T& expected, T desired, std::memory_order,
                               std::memory_order) noexcept {
        stop();
        return value_.compare_exchange_strong(expected, desired);
    }

  private:
    static void stop() {
        if (Scheduler::current != nullptr) Scheduler::current->stop_here();
    }
    std::atomic<T> value_{};
};

using SteppedRing = BasicTestRing<SteppedAtomic>;

// A ring and what was done to it. One thread runs at a time, so plain fields will do.
struct World {
    explicit World(std::uint64_t start) : r(1024) {
        std::string text;
        for (std::uint64_t at = 0; at < start; at += kRecordAlign) {
            r.put("");
            r.take(text);
        }
    }

    /// Claims, checks that nobody else has these bytes, writes, commits.
    void produce(const std::string& text, std::size_t size) {
        const std::string payload = text + std::string(size - text.size(), '.');
        SteppedRing::Ring::Claim claim{};
        const ClaimStatus status = r.ring.try_claim(payload.size(), claim);
        if (status != ClaimStatus::claimed) {
            refused += status == ClaimStatus::full ? 1 : 0;
            closed += status == ClaimStatus::closed ? 1 : 0;
            return;
        }
        const std::size_t at = static_cast<std::size_t>(claim.at - r.memory.get());
        if (at + record_size(size) > 1024) bad = "a record beyond the memory";
        for (std::size_t b = at; b < at + record_size(size); ++b) {
            if (owner[b % 1024] != 0) bad = "bytes that somebody else has";
            owner[b % 1024] = text[0];
        }
        accepted.push_back(text);
        r.fill(claim, payload);
        r.ring.commit(claim);
    }

    /// Looks `times` for a record; gives the bytes back one record at a time.
    void consume(int times) {
        for (int i = 0; i < times; ++i) {
            const RecordHeader* record = r.ring.peek(r.cursor);
            if (record == nullptr) continue;
            const std::uint64_t end = SteppedRing::Ring::after(r.cursor, *record);
            if (record->kind != RecordKind::pad) {
                const std::string_view payload(reinterpret_cast<const char*>(record + 1),
                                               record->length);
                const std::size_t dots = payload.find('.');
                if (payload.find_first_not_of('.', dots) != std::string_view::npos) bad = "torn";
                read.emplace_back(payload.substr(0, dots));
                for (std::uint64_t b = r.cursor; b < end; ++b) owner[b % 1024] = 0;
            }
            r.cursor = end;
            r.ring.release_to(end);
        }
    }

    /// After all threads: what was accepted must come out once, each producer's in order.
    void check() {
        consume(200);
        if (r.cursor != r.ring.tail()) bad = "records left in the ring";
        for (const char* producer : {"a", "b", "c"}) {
            std::vector<std::string> in;
            std::vector<std::string> out;
            for (const auto& text : accepted) {
                if (text.starts_with(producer)) in.push_back(text);
            }
            for (const auto& text : read) {
                if (text.starts_with(producer)) out.push_back(text);
            }
            if (in != out) bad = "lost, doubled or out of order";
        }
        if (accepted.size() != read.size()) bad = "not as many read as accepted";
    }

    SteppedRing r;
    char owner[1024] = {};
    std::vector<std::string> accepted;
    std::vector<std::string> read;
    int refused = 0;
    int closed = 0;
    std::string bad;
};

struct Outcome {
    std::uint64_t schedules = 0;
    std::uint64_t refused = 0;
    std::uint64_t closed = 0;
};

/// Runs `bodies(world)` under all schedules.
template <class Bodies>
Outcome explore(std::size_t workers, std::uint64_t start, Bodies&& bodies) {
    Scheduler scheduler(workers);
    Outcome outcome;
    do {
        World world(start);
        scheduler.run(bodies(world));
        world.check();
        ++outcome.schedules;
        outcome.refused += static_cast<std::uint64_t>(world.refused);
        outcome.closed += static_cast<std::uint64_t>(world.closed);
        CAPTURE(outcome.schedules);
        REQUIRE(world.bad == "");
    } while (scheduler.advance());
    return outcome;
}

using Bodies = std::vector<std::function<void()>>;

}  // namespace

TEST_SUITE("mpsc_ring interleavings") {
    TEST_CASE("should keep two producers and the consumer apart across the wrap") {
        const Outcome outcome = explore(3, 1024 - 64, [](World& w) -> Bodies {
            return {[&w] {
                        w.produce("a0", 50);
                        w.produce("a1", 10);
                    },
                    [&w] {
                        w.produce("b0", 20);
                        w.produce("b1", 70);
                    },
                    [&w] { w.consume(5); }};
        });
        CHECK(outcome.schedules > scaled(10'000u, 1000u));
        CHECK(outcome.refused == 0);
    }

    TEST_CASE("should never hand out bytes twice in a ring that is nearly full") {
        const Outcome outcome = explore(3, 1024 - 512, [](World& w) -> Bodies {
            for (int i = 0; i < 7; ++i) w.produce("c" + std::to_string(i), 96);
            return {[&w] {
                        w.produce("a0", 96);
                        w.produce("a1", 96);
                    },
                    [&w] { w.produce("b0", 70); }, [&w] { w.consume(2); }};
        });
        CHECK(outcome.schedules > scaled(3000u, 300u));
        CHECK(outcome.refused > 0);                      // full was met ...
        CHECK(outcome.refused < 3 * outcome.schedules);  // ... and was not the only answer
    }

    TEST_CASE("should refuse or keep each record whole when closed at any moment") {
        const Outcome outcome = explore(3, 1024 - 32, [](World& w) -> Bodies {
            return {[&w] {
                        w.produce("a0", 40);
                        w.produce("a1", 40);
                    },
                    [&w] {
                        const std::uint64_t final_tail = w.r.ring.close();
                        if (w.r.ring.tail() != final_tail) w.bad = "the tail moved after close()";
                    },
                    [&w] { w.consume(4); }};
        });
        CHECK(outcome.closed > 0);
        CHECK(outcome.closed < 2 * outcome.schedules);
        CHECK(outcome.refused == 0);
    }

    TEST_CASE("should not say full to a producer that looked at the tail long ago") {
        // One record of room at any time; the consumer makes it before each producer is through.
        const Outcome outcome = explore(2, 0, [](World& w) -> Bodies {
            for (int i = 0; i < 7; ++i) w.produce("c" + std::to_string(i), 96);
            return {[&w] { w.produce("a0", 96); },
                    [&w] {
                        w.consume(1);
                        w.produce("b0", 96);
                    }};
        });
        CHECK(outcome.refused == 0);  // 8 places, 7 taken, one freed before the ninth
    }
}
