// Recovers what dead workers of a run left in their rings while the run continues: the rings of a hundred
// epochs would fill the disk. Runs on its own thread, which exists only while there is something to do: it
// may have to wait for the disk, and the flush thread must not.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace fastlog {

class Collector {
  public:
    static constexpr std::int64_t kEveryNs = 5'000'000'000;

    explicit Collector(std::string run_directory);
    /// Does not wait: a recovery may be stopped at any instant, and stops after its current ring.
    ~Collector();
    Collector(const Collector&) = delete;
    Collector& operator=(const Collector&) = delete;

    /// Begins a round if one is due and none is in progress. Called by one thread, the flush thread.
    void look();
    /// Stops the current round after its current ring, and waits for that until the deadline.
    void stop(std::int64_t deadline_ns);
    /// Messages about the rounds so far, each ring once.
    std::vector<std::string> take_messages();

  private:
    struct Work;  // outlives the collector as long as its thread needs it
    std::shared_ptr<Work> work_;
    std::int64_t last_ns_ = 0;
};

}  // namespace fastlog
