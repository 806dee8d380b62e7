#include "world.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "core/recovery.hpp"
#include "writer.hpp"

namespace sim {
namespace {

constexpr std::uint64_t kMostPoints = 60'000;  // no world of ours takes so many: somebody hangs

std::uint64_t mixed(std::uint64_t a, std::uint64_t b) {
    std::uint64_t seed = a ^ (b * 0xD6E8FEB86659FD93ULL);
    return draw(seed);
}

}  // namespace

World*& the_world() noexcept {
    static World* world = nullptr;
    return world;
}

Setup::Setup(std::uint64_t seed) {
    std::uint64_t bits = mixed(seed, 77);
    const auto half = [&bits] {
        bits = bits >> 1;
        return (bits & 1) != 0;
    };
    run_suits = half() || half();
    kills = half() || half();
    faults = half();
    full = half() && half();
    forks = half();
    recoveries = half() || half();
    readers = half() && half();
    removes = half() && half();
    renames = half() && half();
    copies = half() && half();
    // Both together leave a process adrift: a limit that the documents name.
    closes = half() && half() && !renames;
    power = half() && half();
    switches_often = half();
    // A lock that somebody closes there is taken again, but not at once: a limit that the documents name.
    overlay = half() && half() && !closes;
}

World::World(std::uint64_t the_seed) : seed(the_seed), setup(the_seed), rng_(mixed(the_seed, 1)) {
    the_world() = this;
    disk.oracle = &oracle;
    disk.now_ns = 1'800'000'000'000'000'000;
    disk.keeps_platter = setup.power;
    for (const char* name : {"d", "tmp", "dev"}) disk.make(disk.root(), name, true, 0755);
    disk.make(disk.find(disk.root(), "/dev"), "shm", true, 0755);
    disk.make(disk.root(), "home", true, 0755);
    disk.commit_names();
}

World::~World() { the_world() = nullptr; }

void World::replay(std::vector<Decision> script) {
    script_ = std::move(script);
    replays_ = true;
}

std::uint64_t World::number_of(std::uint64_t what) const noexcept {
    return mixed(seed, 1000 + what);
}

void World::fail(const std::string& kind, const std::string& text) {
    if (failed()) return;
    kind_ = kind;
    text_ = text;
}

// ---- what runs --------------------------------------------------------------------------------------

Process& World::start(const char* role, std::function<void(Process&)> body) {
    processes_.push_back(std::make_unique<Process>(*this));
    Process& process = *processes_.back();
    process.number = static_cast<unsigned>(processes_.size());
    process.role = role;
    add_task(process, [body = std::move(body), &process] { body(process); });
    return process;
}

void World::add_task(Process& process, std::function<void()> body) {
    tasks_.push_back(std::make_unique<Task>(process, std::move(body)));
    ++process.tasks;
}

bool World::ready(const Task& task) const noexcept {
    return task.wake_ns <= disk.now_ns || task.process->dead;
}

World::Task* World::pick() {
    if (Task* const chosen = std::exchange(chosen_, nullptr)) return chosen;
    if (last_ != nullptr && ready(*last_)) return last_;
    Task* first = nullptr;
    for (const auto& task : tasks_) {
        if (ready(*task)) return task.get();
        if (first == nullptr || task->wake_ns < first->wake_ns) first = task.get();
    }
    if (first != nullptr) disk.now_ns = first->wake_ns;
    return first;
}

void World::reap(Task* task) {
    Process& process = *task->process;
    std::erase_if(tasks_, [task](const auto& other) { return other.get() == task; });
    if (last_ == task) last_ = nullptr;
    if (chosen_ == task) chosen_ = nullptr;
    if (--process.tasks != 0) return;
    process.state.reset();
    process.dead = true;
    process.files.die();
}

void World::run() {
    const unsigned begin = 1 + static_cast<unsigned>(number_of(1) % 3);
    for (unsigned n = 0; n < begin; ++n) start_writer(*this, false);
    while (Task* const next = pick()) {
        current_ = last_ = next;
        next->fiber.resume();
        current_ = nullptr;
        if (next->fiber.ended()) reap(next);
        if (failed() || points_ > kMostPoints) {
            if (!failed())
                fail("hang", std::string("nobody comes to an end, as ") +
                                 (last_ == nullptr ? "" : last_->process->role));
            for (const auto& process : processes_) kill(*process);
        }
    }
    if (!failed()) settle();
}

void World::kill(Process& process) {
    if (process.dead) return;
    process.dead = true;
    process.files.die();
    oracle.note_death(process);
}

void World::close_descriptors(Node* own, std::uint64_t arg) {
    std::vector<Process*> recording;
    for (const auto& process : processes_) {
        if (process->dead || process->writer == nullptr) continue;
        // What it has for a moment is a limit that the documents name.
        if (process->writer->resting()) recording.push_back(process.get());
    }
    if (!recording.empty()) recording[arg % recording.size()]->files.close_all(own);
}

bool World::point(const char* name, const char* path) {
    if (current_ == nullptr) return true;
    Process& process = *current_->process;
    if (process.dead) return false;
    ++points_;
    disk.now_ns += 1000;
    for (const char* at = name; *at != '\0'; ++at) trace_ = (trace_ ^ *at) * 0x100000001b3ULL;
    trace_ = (trace_ ^ process.number) * 0x100000001b3ULL;
    if (verbose) {
        std::printf("%6lu %2u %-8s %s %s\n", points_, process.number, process.role, name, path);
    }
    fault_ = 0;
    const int code = errno;
    decide();
    const int fault = fault_;
    if (chosen_ != nullptr && chosen_ != current_) {
        last_ = nullptr;
        current_->fiber.stop();
    }
    fault_ = fault;
    errno = code;
    return !process.dead;
}

int World::take_fault() noexcept { return std::exchange(fault_, 0); }

void World::sleep(std::int64_t ns) {
    if (current_ == nullptr) {
        disk.now_ns += ns;
        return;
    }
    if (current_->process->dead || !point("sleep")) return;
    Task* const task = current_;
    task->wake_ns = disk.now_ns + ns;
    if (chosen_ == task) chosen_ = nullptr;
    task->fiber.stop();
    task->wake_ns = 0;
}

// ---- the end ----------------------------------------------------------------------------------------

// All is recovered, and then judged. What a view showed before is what recovery made.
void World::settle() {
    fault_ = 0;
    full_until_ = short_until_ = 0;
    disk.now_ns += 700'000'000'000;  // what is half made is old
    SimFiles files(*this);
    for (const std::string& run : runs(*this)) {
        oracle.foresee(run, files);
        const auto reports = fastlog::recover_run(run, [] { return true; }, files);
        oracle.compare(run, reports);
        for (const auto& report : fastlog::recover_run(run, [] { return true; }, files)) {
            oracle.note_left(run, report);
        }
    }
    if (!failed()) oracle.judge();
}

}  // namespace sim
