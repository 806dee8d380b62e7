#include "core/unfinished.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "core/fork_watch.hpp"
#include "core/machine.hpp"
#include "core/recovery.hpp"
#include "core/ring_image.hpp"
#include "core/ring_memory.hpp"

namespace fastlog {
namespace {

constexpr int kOpenFlags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;

// "fastlog-" + uuid + ".ring", or the same with ".tmp"; the uuid, or nothing for other names.
std::string_view uuid_of(std::string_view name, bool& finished) {
    constexpr std::size_t kUuid = 36;
    const std::string_view prefix = kRingPrefix;
    if (!name.starts_with(prefix) || name.size() < prefix.size() + kUuid) return {};
    const std::string_view uuid = name.substr(prefix.size(), kUuid);
    const std::string_view behind = name.substr(prefix.size() + kUuid);
    finished = behind == kRingSuffix;
    if (uuid.find_first_not_of("0123456789abcdef-") != uuid.npos) return {};
    return finished || behind == std::string(kRingSuffix) + kTemporarySuffix ? uuid
                                                                             : std::string_view{};
}

// A ring under construction is empty, full of zeros, or has its header.
bool is_begun(RunFiles& files, int fd, std::string_view uuid) {
    RingFileHeader header{};
    if (files.read_at(fd, &header, sizeof header, 0) < 0) return false;
    const std::string_view magic(header.magic, sizeof header.magic);
    if (magic.find_first_not_of('\0') == magic.npos) return true;
    return magic == std::string_view(kRingMagic, sizeof kRingMagic) &&
           std::string_view(header.uuid, uuid.size()) == uuid;
}

void sweep_place(RunFiles& files, const std::string& place) {
    std::vector<std::string> names;
    files.list(AT_FDCWD, place, names);
    for (const std::string& name : names) {
        bool finished = false;
        const std::string_view uuid = uuid_of(name, finished);
        if (uuid.empty()) continue;
        const std::string path = place + "/" + name;
        const LockDescriptor fd(files, path, kOpenFlags);
        struct stat info;
        if (fd.get() >= 0 && files.stat(fd.get(), info) == 0 && S_ISREG(info.st_mode) &&
            info.st_uid == ::geteuid() && !is_young(info) &&
            files.lock(fd.get(), LOCK_EX | LOCK_NB) == 0 &&
            (finished ? RingImage::is_unused(files, fd.get(), uuid)
                      : is_begun(files, fd.get(), uuid))) {
            files.unlink(AT_FDCWD, path);
        }
    }
}

}  // namespace

void sweep_unfinished(RunFiles& files, const std::string& path, bool locked) {
    struct stat info;
    const LockDescriptor half(files, path, kOpenFlags);
    if (half.get() < 0 || files.stat(half.get(), info) != 0) return;
    if ((!locked || info.st_size == 0) && is_young(info)) return;
    if (files.lock(half.get(), LOCK_EX | LOCK_NB) == 0) files.unlink(AT_FDCWD, path);
}

void sweep_ring_places(RunFiles& files) {
    std::vector<std::string> places = temporary_places();
    places.emplace_back(kSharedMemoryPlace);
    std::sort(places.begin(), places.end());
    places.erase(std::unique(places.begin(), places.end()), places.end());
    for (const std::string& place : places) sweep_place(files, place);
}

}  // namespace fastlog
