// One world: a disk, a clock, processes, and whoever decides what happens next.
//
// Everything that is decided is a Decision at a numbered point. From a seed they are drawn as the world goes;
// from a script they are read. All else follows from the seed and from them, so that a world can be played
// again, and played with fewer decisions.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "disk.hpp"
#include "fiber.hpp"
#include "files.hpp"
#include "oracle.hpp"

namespace sim {

struct Decision {
    std::uint64_t at = 0;
    char kind = 0;  // a row of kDeeds in decide.cpp
    std::uint64_t arg = 0;
};

/// What a world may have, drawn from its seed: few things at once are more likely to meet.
struct Setup {
    explicit Setup(std::uint64_t seed);
    bool run_suits;  // rings may lie in the run itself
    bool overlay;    // a mapping holds no lock, as on overlayfs
    bool kills, faults, full, forks, recoveries, readers, removes, renames, copies, closes, power;
    /// Whether the disk may keep refusing a process: elsewhere one that closes comes to its end.
    bool may_refuse() const noexcept { return faults || full || closes; }
    bool switches_often;
};

struct Process {
    explicit Process(World& world) : files(world) {}
    unsigned number = 0;
    const char* role = "";
    bool killable = true;
    bool dead = false;
    unsigned tasks = 0;
    SimFiles files;
    std::shared_ptr<void> state;  // goes with its last task
    Writer* writer = nullptr;
};

class World {
  public:
    explicit World(std::uint64_t seed);
    ~World();
    World(const World&) = delete;
    World& operator=(const World&) = delete;

    /// Reads its decisions in place of drawing them.
    void replay(std::vector<Decision> script);
    void run();

    const std::vector<Decision>& decisions() const noexcept { return decisions_; }
    std::uint64_t points() const noexcept { return points_; }
    std::uint64_t trace() const noexcept { return trace_; }
    /// The kind of what must not be, and what was seen; empty when all is well.
    const std::string& kind() const noexcept { return kind_; }
    const std::string& text() const noexcept { return text_; }
    void fail(const std::string& kind, const std::string& text);
    bool failed() const noexcept { return !kind_.empty(); }

    // ---- for what runs in it ---------------------------------------------------------------------

    /// Something else may happen now. False when the process that runs is dead.
    bool point(const char* name, const char* path = "");
    int take_fault() noexcept;
    bool no_space() const noexcept { return points_ < full_until_; }
    bool short_write() const noexcept { return points_ < short_until_; }
    void sleep(std::int64_t ns);
    Process& process() noexcept { return *current_->process; }
    bool idle() const noexcept { return current_ == nullptr; }

    Process& start(const char* role, std::function<void(Process&)> body);
    void add_task(Process& process, std::function<void()> body);
    void kill(Process& process);
    /// Somebody in a recording process closes what is not its own; its file gets their numbers.
    void close_descriptors(Node* own, std::uint64_t arg);
    std::uint64_t number_of(std::uint64_t what) const noexcept;  // drawn from the seed, for good

    const std::uint64_t seed;
    const Setup setup;
    Disk disk;
    Oracle oracle{*this};
    unsigned writers = 0;
    unsigned opening = 0;     // recorders that begin
    unsigned recovering = 0;  // recoveries at work, of others
    unsigned boot = 1;
    unsigned at_copy =
        0;  // who writes to the copy: copying and recovering there at once is nobody's wish
    std::uint64_t randoms = 0;
    bool verbose = false;

  private:
    struct Task {
        Task(Process& its, std::function<void()> body) : fiber(std::move(body)), process(&its) {}
        Fiber fiber;
        Process* process;
        std::int64_t wake_ns = 0;
    };
    bool ready(const Task& task) const noexcept;
    Task* pick();
    void reap(Task* task);
    void decide();
    void draw_decision();
    void apply(const Decision& decision);
    void switch_to(std::uint64_t arg);
    void start_user(std::uint64_t arg);
    void lose_power(std::uint64_t arg);
    void settle();

    std::uint64_t rng_;
    std::vector<Decision> decisions_;
    std::vector<Decision> script_;
    std::size_t next_ = 0;
    bool replays_ = false;
    std::uint64_t points_ = 0;
    std::uint64_t trace_ = 0xcbf29ce484222325ULL;
    int fault_ = 0;
    std::uint64_t full_until_ = 0;
    std::uint64_t short_until_ = 0;
    std::vector<std::unique_ptr<Process>> processes_;
    std::vector<std::unique_ptr<Task>> tasks_;
    Task* current_ = nullptr;
    Task* last_ = nullptr;
    Task* chosen_ = nullptr;
    std::string kind_;
    std::string text_;
};

/// The world that runs now: what the core asks of the machine is answered by it.
World*& the_world() noexcept;

// The people in it: users.cpp.
std::function<void(Process&)> user_deed(World& world, std::uint64_t arg);
std::function<void(Process&)> recoverer(World& world, const std::string& run);
std::function<void(Process&)> reader(World& world, const std::string& run);
/// All directories of runs, copies too.
std::vector<std::string> runs(World& world);

inline constexpr const char* kRun = "/d/a";
inline constexpr const char* kCopy = "/d/copy";

}  // namespace sim
