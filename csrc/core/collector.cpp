#include "core/collector.hpp"

#include <dirent.h>

#include <atomic>
#include <exception>
#include <mutex>
#include <new>
#include <set>
#include <string_view>
#include <utility>

#include "core/clock.hpp"
#include "core/monitor.hpp"
#include "core/quiet_thread.hpp"
#include "core/recovery.hpp"
#include "core/ring_memory.hpp"

namespace fastlog {
namespace {

// Whether there is a ring beside the one of this process.
bool has_others(const std::string& run_directory) {
    const std::unique_ptr<DIR, int (*)(DIR*)> listing(
        ::opendir((run_directory + "/" + kPrivateDirectory).c_str()), &::closedir);
    int rings = 0;
    while (const dirent* entry = listing && rings < 2 ? ::readdir(listing.get()) : nullptr) {
        const std::string_view name = entry->d_name;
        if (name.ends_with(kRingSuffix) || name.ends_with(kPointerSuffix)) ++rings;
    }
    return rings > 1;
}

}  // namespace

struct Collector::Work {
    std::string run_directory;
    std::atomic<bool> stop{false};
    std::set<std::string> told;  // of the thread at work

    Monitor monitor;
    bool busy = false;  // guarded by monitor, as is the next
    std::vector<std::string> messages;

    void end() {
        const std::lock_guard lock(monitor);
        busy = false;
        monitor.notify_all();
    }
    void round() {
        const auto reports = recover_run(run_directory, [this] { return !stop.load(); });
        for (const RecoveryReport& report : reports) {
            if (report.outcome != RecoveryReport::Outcome::quarantined ||
                !told.insert(report.ring).second) {
                continue;
            }
            const std::lock_guard lock(monitor);
            messages.push_back("foundry_fastlog moved a damaged ring file aside, " + report.ring +
                               ": " + report.reason);
        }
    }
};

Collector::Collector(std::string run_directory) : work_(std::make_shared<Work>()) {
    work_->run_directory = std::move(run_directory);
}

Collector::~Collector() { work_->stop.store(true); }

void Collector::look() {
    const std::int64_t now = monotonic_ns();
    if (now - last_ns_ < kEveryNs) return;
    last_ns_ = now;
    if (!has_others(work_->run_directory)) return;
    {
        const std::lock_guard lock(work_->monitor);
        if (std::exchange(work_->busy, true)) return;
    }
    try {
        start_quiet_thread([work = work_] {
            try {
                work->round();
            } catch (const std::exception&) {
                // The next round tries again.
            }
            work->end();
        }).detach();
    } catch (const std::exception&) {
        work_->end();  // no thread or no memory now: the next round
    }
}

void Collector::stop(std::int64_t deadline_ns) {
    work_->stop.store(true);
    const std::lock_guard lock(work_->monitor);
    while (work_->busy && monotonic_ns() < deadline_ns) work_->monitor.wait_until(deadline_ns);
}

std::vector<std::string> Collector::take_messages() {
    const std::lock_guard lock(work_->monitor);
    return std::exchange(work_->messages, {});
}

}  // namespace fastlog
