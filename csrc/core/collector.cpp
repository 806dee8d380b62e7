#include "core/collector.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <ctime>
#include <exception>
#include <mutex>
#include <new>
#include <set>
#include <utility>

#include "core/clock.hpp"
#include "core/monitor.hpp"
#include "core/posix_files.hpp"
#include "core/quiet_thread.hpp"
#include "core/recovery.hpp"
#include "core/ring_memory.hpp"

namespace fastlog {
namespace {

// Returns whether there is a ring besides the one of this process.
bool has_others(const std::string& directory) {
    std::vector<std::string> names;
    posix_files().list(AT_FDCWD, directory, names);
    return std::count_if(names.begin(), names.end(), [](const std::string& name) {
               return name.ends_with(kRingSuffix) || name.ends_with(kPointerSuffix);
           }) > 1;
}

// When a name was last added or removed; 0 if that is so recent that another change may follow unseen.
std::int64_t changed_at(const std::string& directory) {
    constexpr std::time_t kSettledSeconds = 2;
    struct stat info;
    if (::stat(directory.c_str(), &info) != 0) return 0;
    const std::time_t age = std::time(nullptr) - info.st_mtime;
    return age > kSettledSeconds ? info.st_mtime : 0;
}

// Whether a label is a child process's, which says nothing of how its start ended: "r1-w7x2".
bool is_worker(const std::string& label) { return ("-" + label).find("-w") != std::string::npos; }

}  // namespace

struct Collector::Work {
    std::string run_directory;
    std::string private_directory;
    std::atomic<std::int64_t> alone_since{0};  // nobody else had a ring then; 0: somebody may have
    std::atomic<bool> stop{false};
    std::set<std::string> told;  // owned by the working thread

    Monitor monitor;
    bool busy = false;  // guarded by monitor, like the next
    std::vector<std::string> messages;

    void end() {
        const std::lock_guard lock(monitor);
        busy = false;
        monitor.notify_all();
    }
    void round() {
        const std::int64_t changed = changed_at(private_directory);
        const bool others = has_others(private_directory);
        alone_since.store(others ? 0 : changed);
        if (!others) return;
        // Recoveries that know Python note that a rank or a peer was killed: its ring is left for these.
        const auto reports =
            recover_run(run_directory, [this] { return !stop.load(); }, posix_files(), is_worker);
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
    work_->private_directory = run_directory + "/" + kPrivateDirectory;
    work_->run_directory = std::move(run_directory);
}

Collector::~Collector() { work_->stop.store(true); }

void Collector::look() {
    const std::int64_t now = monotonic_ns();
    if (now - last_ns_ < kEveryNs) return;
    last_ns_ = now;
    const std::int64_t alone_since = work_->alone_since.load();
    if (alone_since != 0 && alone_since == changed_at(work_->private_directory)) return;
    {
        const std::lock_guard lock(work_->monitor);
        if (std::exchange(work_->busy, true)) return;
    }
    try {
        start_quiet_thread([work = work_] {
            try {
                work->round();
            } catch (const std::exception&) {
                // The next round retries.
            }
            work->end();
        }).detach();
    } catch (const std::exception&) {
        work_->end();  // no thread or no memory now: the next round retries
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
