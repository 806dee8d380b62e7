#include "core/ring_home.hpp"

#include <fcntl.h>

#include <string_view>

#include "core/machine.hpp"
#include "core/ring_memory.hpp"
#include "core/writer_mark.hpp"

namespace fastlog {
namespace {

// If a pointer is on another device than the writer's, only its inode is known, which a stranger can choose.
// The writer's own pointer has the ring's name and owner.
bool is_writers(RunFiles& files, const std::string& pointer, const RingImage& ring, int fd) {
    struct stat named;
    struct stat info;
    const std::string uuid = uuid_in(pointer);
    return !uuid.empty() && uuid == std::string_view(ring.header().uuid, uuid.size()) &&
           files.stat_at(AT_FDCWD, pointer, named) == 0 && files.stat(fd, info) == 0 &&
           named.st_uid == info.st_uid;
}

}  // namespace

RingHome RingHome::find(RunFiles& files, const std::string& run_directory, const RingImage& ring,
                        int fd, const std::string& pointer, const std::string& run_before) {
    RingHome home;
    home.note_ = ring.home();
    const std::string boot = boot_id();
    home.same_boot = !boot.empty() && boot == ring.header().boot_id;
    const FileId noted{home.note_.run_device, home.note_.run_inode};
    struct stat info;
    if (files.stat_path(run_directory, info) != 0 || id_of(info).inode != noted.inode) return home;
    home.of_this_run = true;
    if (id_of(info) == noted || !home.same_boot) return home;
    // The same inode on another device: remounted since, or seen through another mount or in a snapshot. If
    // the writer's original directory is still visible, the ring belongs to that directory.
    if (!pointer.empty()) {
        const bool there = files.stat_path(run_before, info) == 0 && id_of(info) == noted;
        if (there) home.other_ = run_before;
        home.of_this_run = !there && is_writers(files, pointer, ring, fd);
    }
    home.same_boot = !home.of_this_run;
    return home;
}

bool RingHome::is_ring(const struct stat& info) const noexcept {
    const FileId id = id_of(info);
    return id.inode == note_.ring_inode && (id.device == note_.ring_device || !same_boot);
}

std::string RingHome::elsewhere(const std::string& ring, const std::string& pointer) const {
    return ring +
           " belongs to the run's directory under another path or mount, or to the run that this "
           "is a copy of" +
           (other_.empty() ? "" : ": " + other_) +
           ". Recover there; in a copy, remove the pointer " + pointer;
}

}  // namespace fastlog
