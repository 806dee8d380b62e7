#include "core/recovery.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <ctime>
#include <memory>
#include <new>
#include <thread>

#include "core/dead_ring.hpp"
#include "core/fork_watch.hpp"
#include "core/kill_point.hpp"
#include "core/labels.hpp"
#include "core/quarantine.hpp"
#include "core/ring_home.hpp"
#include "core/ring_image.hpp"
#include "core/ring_memory.hpp"
#include "core/ring_pointer.hpp"
#include "core/unfinished.hpp"
#include "core/writer_mark.hpp"

namespace fastlog {
namespace {

using Outcome = RecoveryReport::Outcome;

std::string private_directory(const std::string& run) { return run + "/" + kPrivateDirectory; }

// False if there are records, but no way to interpret their ticks.
bool is_dated(const RingImage& image) {
    std::uint64_t position = image.slot().position;
    std::uint64_t holes = 0;
    return image.slot().epoch != 0 || image.next(position, holes, holes) == nullptr;
}

// Locks a ring that no process writes. A reader that shows the ring's contents holds a shared lock while
// reading: recovery waits for it, but does not take the ring for a live one.
bool lock_dead(RunFiles& files, int fd) {
    constexpr int kTries = 200;
    for (int i = 0; i < kTries; ++i) {
        if (files.lock(fd, LOCK_EX | LOCK_NB) == 0) return true;
        if (errno != EWOULDBLOCK || files.lock(fd, LOCK_SH | LOCK_NB) != 0) return false;
        files.lock(fd, LOCK_UN);
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    errno = EWOULDBLOCK;
    return false;
}

void move_to_quarantine(RunFiles& files, const std::string& run, const std::string& path,
                        RecoveryReport& report) {
    struct stat info;
    if (files.stat_at(AT_FDCWD, path, info) == 0 && S_ISREG(info.st_mode) && info.st_size == 0 &&
        is_young(info) && find_mark(files, run, uuid_in(path)) != WriterMark::present) {
        report.outcome = Outcome::live;
        report.reason = "it is empty, and so new that its writer may still be creating it";
        return;
    }
    report.outcome = Outcome::quarantined;
    if (files.is_view()) return;
    if (const SinkError error = quarantine(files, private_directory(run), path, report.reason)) {
        report.outcome = Outcome::failed;
        report.reason += " (and could not be moved aside: " + describe(error) + ")";
        return;
    }
    unmark_writer(files, run, uuid_in(path));  // it is reported as long as it is there
}

// True for the ring of another directory: nothing is moved, because the ring may be anybody's and the pointer
// valid.
bool report_elsewhere(const RingHome& home, const std::string& pointer, RecoveryReport& report) {
    if (home.of_this_run) return false;
    report.outcome = Outcome::elsewhere;
    report.same_boot = home.same_boot;
    report.reason = home.elsewhere(report.ring, pointer);
    return true;
}

}  // namespace

const char* outcome_name(Outcome outcome) noexcept {
    switch (outcome) {
        case Outcome::live:
            return "live";
        case Outcome::recovered:
            return "recovered";
        case Outcome::quarantined:
            return "quarantined";
        case Outcome::elsewhere:
            return "elsewhere";
        case Outcome::gone:
            return "gone";
        default:
            return "failed";
    }
}

bool is_young(const struct stat& info) noexcept {
    constexpr std::time_t kYoungSeconds = 600;
    const std::time_t age = std::time(nullptr) - info.st_mtime;
    return age < kYoungSeconds && age > -kYoungSeconds;
}

RecoveryReport recover_ring(const std::string& run_directory, const std::string& path,
                            RunFiles& files, const std::vector<RecoveryReport>& before,
                            const std::function<bool(const std::string&)>& wanted) {
    RecoveryReport report;
    report.ring = path;
    const bool by_pointer = path.ends_with(kPointerSuffix);
    RingPointer pointer{path, {}, false};
    const std::string& ring = pointer.ring;
    if (by_pointer) {
        pointer = read_pointer(files, AT_FDCWD, path, report.reason);
        if (ring.empty()) {
            const int code = errno;
            if (code == 0) {
                move_to_quarantine(files, run_directory, path, report);
            } else if (code == ENOENT) {
                report.outcome = Outcome::gone;
            }
            return report;
        }
        report.ring = ring;
    }
    const LockDescriptor fd(files, ring, O_RDWR | O_NOFOLLOW | O_NONBLOCK);
    if (fd.get() < 0) {
        const int code = errno;
        // The mark is removed before the ring, and the ring before the pointer: its process or its recovery
        // was killed in between. A new one may have no mark yet, and its ring may be in another container's
        // /tmp.
        struct stat info;
        if (by_pointer && code == ENOENT && pointer.here &&
            files.stat_at(AT_FDCWD, path, info) == 0 && !is_young(info) &&
            find_mark(files, run_directory, uuid_in(path)) == WriterMark::absent) {
            report.outcome = Outcome::gone;
            if (!files.is_view()) files.unlink(AT_FDCWD, path);
            return report;
        }
        report.outcome = code != ENOENT ? Outcome::failed
                         : by_pointer   ? Outcome::elsewhere
                                        : Outcome::gone;
        report.reason = describe({code, "open " + ring});
        if (by_pointer && code == ENOENT) {
            report.reason +=
                ". It is on another host, or was lost when this host restarted: recover "
                "there, or remove the pointer " +
                path;
        }
        return report;
    }
    if (wanted) {  // not locked for that: readers take who holds the lock for its writer
        const auto image = RingImage::look(files, fd.get());
        if (image != nullptr && !wanted(image->home().label)) {
            report.outcome = Outcome::live;
            report.reason = "it is left for another recovery";
            return report;
        }
    }
    const auto find_home = [&](const RingImage& image) {
        return RingHome::find(files, run_directory, image, fd.get(), by_pointer ? path : "",
                              pointer.run);
    };
    if (!lock_dead(files, fd.get())) {
        report.outcome = errno == EWOULDBLOCK ? Outcome::live : Outcome::failed;
        if (report.outcome == Outcome::failed) report.reason = describe({errno, "lock " + ring});
        const auto living = report.outcome == Outcome::live && by_pointer
                                ? RingImage::look(files, fd.get())
                                : nullptr;
        if (living != nullptr) report_elsewhere(find_home(*living), path, report);
        return report;
    }
    struct stat info;
    if (files.stat(fd.get(), info) != 0 || info.st_nlink == 0) {
        report.outcome = Outcome::gone;
        return report;
    }
    const auto mark = [&](std::uint64_t begun) {
        return write_all(files, fd.get(), &begun, sizeof begun, kRecoveryMarkOffset, report.ring);
    };
    const auto say_begun = [&] {
        const SinkError error = files.is_view() ? SinkError{} : mark(1);
        if (error) {
            report.reason = describe(error);
        } else {
            KILL_POINT("recovery_marked");
        }
        return !error;
    };
    // Before the ring is read, which may take long: readers take who holds the lock for its writer. A pointer
    // may refer to anybody's file.
    const bool early = !files.is_view() && !by_pointer && S_ISREG(info.st_mode) &&
                       RingImage::look(files, fd.get()) != nullptr;
    if (early && !say_begun()) return report;
    const auto put_aside = [&] {
        if (early) mark(0);  // it is kept as it was
        move_to_quarantine(files, run_directory, path, report);
    };
    std::unique_ptr<RingImage> image =
        S_ISREG(info.st_mode) ? RingImage::read(files, fd.get(), report.reason) : nullptr;
    if (S_ISREG(info.st_mode) && image == nullptr && report.reason.empty()) {
        report.outcome = Outcome::failed;
        report.reason =
            errno == ENOMEM ? "not enough memory to read " + ring : describe(failed("read", ring));
        return report;
    }
    // A recovery waits for readers, but not as long as all of this may take.
    if (files.is_view()) files.lock(fd.get(), LOCK_UN);
    if (image == nullptr && report.reason == RingImage::kNewerVersion) {
        report.outcome = Outcome::failed;
        return report;
    }
    if (image == nullptr) {
        if (!S_ISREG(info.st_mode)) report.reason = ring + " is not a regular file";
        // A pointer may refer to anybody's file: only the pointer is moved.
        put_aside();
        return report;
    }
    const RingHome home = find_home(*image);
    report.same_boot = home.same_boot;
    if (by_pointer && report_elsewhere(home, path, report)) return report;
    report.label = image->home().label;
    Provenance provenance;
    const bool of_this_run = home.of_this_run;
    provenance.own_ring = of_this_run && (!image->has_notes() || home.is_ring(info));
    provenance.same_boot = report.same_boot;
    provenance.shared = info.st_nlink > 1;
    if (!provenance.own_ring) {
        const Descriptor directory(files,
                                   files.open(AT_FDCWD, run_directory, O_RDONLY | O_DIRECTORY));
        provenance.rival =
            has_rival(files, directory.get(), image->header().stamp, report.label, id_of(info)) ||
            std::any_of(before.begin(), before.end(), [&](const RecoveryReport& other) {
                return other.outcome == Outcome::recovered && other.label == report.label;
            });
    }
    image->trust_tail(provenance.certain());
    if (!provenance.certain() && !is_dated(*image)) {
        report.reason =
            "neither of its commit slots reached the disk: the times of its records are unknown";
        put_aside();
        return report;
    }
    report.epoch = image->slot().epoch;
    if (!early && !say_begun()) return report;
    try {
        drain_dead_ring(files, run_directory, fd.get(), *image, provenance, report);
    } catch (const std::bad_alloc&) {
        report.outcome = Outcome::failed;
        report.reason = "not enough memory to recover " + ring;
    }
    if (report.outcome != Outcome::recovered || files.is_view()) return report;
    // A ring that stays is marked as written: it does no harm, and is removed by the next recovery that can.
    if (const SinkError error = unmark_writer(files, run_directory, uuid_in(path))) {
        report.reason =
            "all its records are in the files, but it is still there: " + describe(error);
        return report;
    }
    KILL_POINT("recovery_unmarked");
    if ((files.unlink(AT_FDCWD, ring) != 0 && errno != ENOENT) ||
        (by_pointer && files.unlink(AT_FDCWD, path) != 0 && errno != ENOENT)) {
        report.reason = "all its records are in the files, but it is still there: " +
                        describe({errno, "remove " + ring});
    }
    KILL_POINT("recovery_ring_removed");
    return report;
}

std::vector<RecoveryReport> recover_run(const std::string& run_directory,
                                        const std::function<bool()>& go_on, RunFiles& files,
                                        const std::function<bool(const std::string&)>& wanted) {
    std::vector<RecoveryReport> reports;
    sweep_ring_places(files);
    const std::string directory = private_directory(run_directory);
    std::vector<std::string> names;
    if (!files.list(AT_FDCWD, directory, names)) return reports;
    std::sort(names.begin(), names.end());
    for (const std::string& name : names) {
        if (!go_on()) break;
        const std::string path = directory + "/" + name;
        if (name.ends_with(kRingSuffix) || name.ends_with(kPointerSuffix)) {
            reports.push_back(recover_ring(run_directory, path, files, reports, wanted));
        } else if (name.ends_with(kTemporarySuffix)) {
            sweep_unfinished(
                files, path,
                /*locked=*/name.ends_with(std::string(kRingSuffix) + kTemporarySuffix));
        }
    }
    return reports;
}

}  // namespace fastlog
