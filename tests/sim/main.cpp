// Plays worlds: sim [--seed N] [--worlds N | --seconds S] [--as-it-is] [--traces] [--verbose]
//               sim --script FILE [--verbose]
//
// A world that is not as it should be is shrunk (unless --as-it-is) and printed as a script, which --script
// plays. The last line has the figures; the status is 1 when there was such a world, 0 when there was none.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <string>
#include <vector>

#include "world.hpp"

namespace {

using sim::Decision;

struct Outcome {
    std::string kind;
    std::string text;
    std::vector<Decision> decisions;
    std::uint64_t points = 0;
    std::uint64_t acked = 0;
    std::uint64_t trace = 0;
};

Outcome play(std::uint64_t seed, const std::vector<Decision>* script, bool verbose = false) {
    sim::World world(seed);
    world.verbose = verbose;
    if (script != nullptr) world.replay(*script);
    world.run();
    return {world.kind(),   world.text(),         world.decisions(),
            world.points(), world.oracle.acked(), world.trace()};
}

// Leaves out what the world fails without: halves first, then ever smaller parts, at last one by one.
std::vector<Decision> shrink(std::uint64_t seed, std::vector<Decision> script,
                             const std::string& kind) {
    constexpr int kMostPlays = 4000;
    int plays = 0;
    for (std::size_t part = (script.size() + 1) / 2; part != 0 && plays < kMostPlays;) {
        bool less = false;
        for (std::size_t at = 0; at < script.size() && plays < kMostPlays; ++plays) {
            std::vector<Decision> fewer = script;
            const auto begin = fewer.begin() + static_cast<std::ptrdiff_t>(at);
            const std::size_t size = std::min(part, script.size() - at);
            fewer.erase(begin, begin + static_cast<std::ptrdiff_t>(size));
            if (play(seed, &fewer).kind == kind) {
                script = fewer;
                less = true;
            } else {
                at += part;
            }
        }
        if (part == 1 && !less) break;
        part = std::max<std::size_t>(part / 2, 1);
    }
    return script;
}

void print_script(std::uint64_t seed, const std::vector<Decision>& script) {
    std::printf("seed %lu\n", seed);
    for (const Decision& decision : script) {
        std::printf("%lu %c %lu\n", decision.at, decision.kind, decision.arg);
    }
}

bool read_script(const char* path, std::uint64_t& seed, std::vector<Decision>& script) {
    std::ifstream in(path);
    std::string word;
    if (!(in >> word >> seed) || word != "seed") return false;
    Decision decision;
    while (in >> decision.at >> decision.kind >> decision.arg) script.push_back(decision);
    return true;
}

}  // namespace

int main(int argc, char** argv) {
    std::uint64_t seed = 1;
    std::uint64_t worlds = 1000;
    double seconds = 0;
    const char* path = nullptr;
    bool verbose = false;
    bool traces = false;
    bool shrinks = true;
    for (int i = 1; i < argc; ++i) {
        const std::string name = argv[i];
        const auto value = [&] { return ++i < argc ? argv[i] : ""; };
        if (name == "--seed") seed = std::strtoull(value(), nullptr, 10);
        if (name == "--worlds") worlds = std::strtoull(value(), nullptr, 10);
        if (name == "--seconds") seconds = std::strtod(value(), nullptr);
        if (name == "--script") path = value();
        if (name == "--verbose") verbose = true;
        if (name == "--traces") traces = true;
        if (name == "--as-it-is") shrinks = false;
    }
    if (path != nullptr) {
        std::vector<Decision> script;
        if (!read_script(path, seed, script)) {
            std::fprintf(stderr, "%s is no script\n", path);
            return 2;
        }
        const Outcome outcome = play(seed, &script, verbose);
        std::printf("%s %s\n", outcome.kind.empty() ? "as it should be" : outcome.kind.c_str(),
                    outcome.text.c_str());
        return outcome.kind.empty() ? 0 : 1;
    }
    const auto begun = std::chrono::steady_clock::now();
    std::uint64_t done = 0;
    std::uint64_t points = 0;
    std::uint64_t acked = 0;
    bool failed = false;
    double took = 0;
    while (!failed && (seconds != 0 ? took < seconds : done < worlds)) {
        const Outcome outcome = play(seed + done, nullptr, verbose);
        points += outcome.points;
        acked += outcome.acked;
        if (traces) std::printf("%lu %016lx\n", seed + done, outcome.trace);
        if (!outcome.kind.empty()) {
            failed = true;
            std::printf("%s in world %lu: %s\n", outcome.kind.c_str(), seed + done,
                        outcome.text.c_str());
            std::fflush(stdout);
            const auto script =
                shrinks ? shrink(seed + done, outcome.decisions, outcome.kind) : outcome.decisions;
            std::printf("%s\n", play(seed + done, &script).text.c_str());
            print_script(seed + done, script);
        }
        ++done;
        took = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
    }
    std::printf("%lu worlds in %.1f s (%.1f s of a core), %lu points, %lu acked records, %s\n",
                done, took, static_cast<double>(std::clock()) / CLOCKS_PER_SEC, points, acked,
                failed ? "1 violation" : "0 violations");
    return failed ? 1 : 0;
}
