// What happens next: drawn, or read from a script.
#include <cerrno>
#include <cstdio>

#include "world.hpp"
#include "writer.hpp"

namespace sim {
namespace {

constexpr std::uint64_t kLastDecision = 3000;  // then a world comes to its end
constexpr unsigned kMostWriters = 7;

struct Deed {
    char kind;
    unsigned weight;  // of 4096 at each point
    bool (*may)(const Setup&);
};

// Switches are drawn apart, as they are by far the most.
constexpr Deed kDeeds[] = {
    {'K', 5, [](const Setup& s) { return s.kills; }},       // the process that runs is killed
    {'X', 2, [](const Setup& s) { return s.kills; }},       // any one is
    {'F', 16, [](const Setup& s) { return s.faults; }},     // this call fails
    {'N', 4, [](const Setup& s) { return s.full; }},        // no space for a while
    {'T', 3, [](const Setup& s) { return s.full; }},        // short writes for a while
    {'W', 5, [](const Setup&) { return true; }},            // a job is started
    {'C', 6, [](const Setup& s) { return s.forks; }},       // the process that runs forks
    {'R', 6, [](const Setup& s) { return s.recoveries; }},  // somebody recovers
    {'V', 4, [](const Setup& s) { return s.readers; }},     // somebody reads
    {'D', 6, [](const Setup& s) { return s.removes || s.renames || s.copies || s.closes; }},
    {'J', 1, [](const Setup&) { return true; }},  // eleven minutes pass
    {'B', 8, [](const Setup& s) { return s.power; }},
    {'P', 2, [](const Setup& s) { return s.power; }},
};

}  // namespace

void World::decide() {
    if (replays_) {
        while (next_ < script_.size() && script_[next_].at <= points_) {
            const Decision decision = script_[next_++];
            if (decision.at == points_) apply(decision);
        }
        return;
    }
    if (points_ <= kLastDecision) draw_decision();
}

void World::draw_decision() {
    const std::uint64_t drawn = draw(rng_);
    const std::uint64_t arg = drawn >> 20;
    unsigned place = static_cast<unsigned>(drawn % 4096);
    Decision decision{points_, 0, arg % 1000};
    for (const Deed& deed : kDeeds) {
        if (place < deed.weight) {
            if (deed.may(setup)) decision.kind = deed.kind;
            break;
        }
        place -= deed.weight;
    }
    if (decision.kind == 0 && place >= 4096U - (setup.switches_often ? 1400U : 300U) - 68U) {
        decision.kind = 'S';
    }
    if (decision.kind == 0) return;
    decisions_.push_back(decision);
    apply(decision);
}

void World::apply(const Decision& decision) {
    Process& process = *current_->process;
    if (verbose) std::printf("       %lu %c %lu\n", decision.at, decision.kind, decision.arg);
    switch (decision.kind) {
        case 'S':
            return switch_to(decision.arg);
        case 'K':
            if (process.killable) kill(process);
            return;
        case 'X': {
            Process& any = *processes_[decision.arg % processes_.size()];
            if (any.killable) kill(any);
            return;
        }
        case 'F':
            fault_ = decision.arg % 8 < 4 ? EIO : decision.arg % 8 < 6 ? ENOSPC : EMFILE;
            return;
        case 'N':
            full_until_ = points_ + decision.arg;
            return;
        case 'T':
            short_until_ = points_ + decision.arg;
            return;
        case 'W':
            if (writers < kMostWriters) start_writer(*this, false);
            return;
        case 'C':
            if (writers < kMostWriters && process.writer != nullptr) start_writer(*this, true);
            return;
        case 'R': {
            const auto all = runs(*this);
            if (!all.empty()) start("recover", recoverer(*this, all[decision.arg % all.size()]));
            return;
        }
        case 'V': {
            const auto all = runs(*this);
            if (!all.empty()) start("read", reader(*this, all[decision.arg % all.size()]));
            return;
        }
        case 'D':
            return start_user(decision.arg);
        case 'J':
            disk.now_ns += 660'000'000'000;
            return;
        case 'B':
            disk.write_back(decision.arg);
            return;
        case 'P':
            return lose_power(decision.arg);
        default:
            return;
    }
}

void World::switch_to(std::uint64_t arg) {
    std::vector<Task*> others;
    for (const auto& task : tasks_) {
        if (task.get() != current_ && ready(*task)) others.push_back(task.get());
    }
    // Time passes for who sleeps, too.
    if (others.empty() || arg % 8 == 0) {
        for (const auto& task : tasks_) {
            if (task.get() != current_ && !ready(*task)) others.push_back(task.get());
        }
    }
    if (others.empty()) return;
    Task* const chosen = others[(arg / 8) % others.size()];
    if (chosen->wake_ns > disk.now_ns) disk.now_ns = chosen->wake_ns;
    chosen_ = chosen;
}

void World::start_user(std::uint64_t arg) {
    Process& user = start("user", user_deed(*this, arg));
    user.killable = false;
}

void World::lose_power(std::uint64_t arg) {
    oracle.note_power_loss();
    for (const auto& process : processes_) kill(*process);
    disk.lose_power(arg);
    ++boot;
}

}  // namespace sim
