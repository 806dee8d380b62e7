#include "core/labels.hpp"

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>
#include <memory>
#include <string_view>
#include <vector>

#include "core/ring_image.hpp"
#include "core/ring_memory.hpp"
#include "core/ring_pointer.hpp"

namespace fastlog {
namespace {

// "metrics" + stamp + [.label] + [.segment] + ".jsonl" + [.gz, .1, ...]; false for other names. Compressed or
// renamed files still hold their writer's lines.
bool parse_label(std::string_view name, const std::string& stamp, std::string& label) {
    constexpr std::string_view kEnd = ".jsonl";
    const std::size_t end = name.find(kEnd);
    if (end == name.npos) return false;
    const std::string_view behind = name.substr(end + kEnd.size());
    if (!behind.empty() && behind[0] != '.') return false;
    name = name.substr(0, end);
    for (const std::string_view stream : kStreamNames) {
        if (!name.starts_with(stream)) continue;
        std::string_view rest = name.substr(stream.size());
        if (!rest.starts_with(stamp)) return false;
        rest.remove_prefix(stamp.size());
        const std::size_t dot = rest.rfind('.');
        const bool numbered = dot != std::string_view::npos && dot + 1 < rest.size() &&
                              rest.find_first_not_of("0123456789", dot + 1) == rest.npos;
        if (numbered) rest = rest.substr(0, dot);
        if (!rest.empty() && rest[0] != '.') return false;
        label = rest.empty() ? "" : rest.substr(1);
        return true;
    }
    return false;
}

// Opens each ring in the private directory, including those that are stored elsewhere.
template <class Look>
void for_each_ring(RunFiles& files, int directory, Look&& look) {
    std::vector<std::string> names;
    files.list(directory, kPrivateDirectory, names);
    for (const std::string& name : names) {
        std::string path = std::string(kPrivateDirectory) + "/" + name;
        if (name.ends_with(kPointerSuffix)) {
            std::string reason;
            path = read_pointer(files, directory, path, reason).ring;
        } else if (!name.ends_with(kRingSuffix)) {
            continue;
        }
        const Descriptor ring(
            files,
            path.empty() ? -1 : files.open(directory, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
        look(ring.get());
    }
}

}  // namespace

std::set<std::string> labels_in_use(RunFiles& files, int directory, const std::string& stamp) {
    std::set<std::string> labels;
    std::string label;
    std::vector<std::string> names;
    files.list(directory, ".", names);
    for (const std::string& name : names) {
        if (parse_label(name, stamp, label)) labels.insert(label);
    }
    for_each_ring(files, directory, [&](int ring) {
        if (RingImage::read_label(files, ring, stamp, label)) labels.insert(label);
    });
    return labels;
}

bool has_rival(RunFiles& files, int directory, const std::string& stamp, const std::string& label,
               FileId ring) {
    bool found = false;
    for_each_ring(files, directory, [&](int other) {
        std::string its;
        found = found || (files.id_of(other) != ring &&
                          RingImage::read_label(files, other, stamp, its) && its == label);
    });
    return found;
}

std::vector<LiveWriter> live_writers(RunFiles& files, const std::string& run_directory) {
    std::vector<LiveWriter> found;
    const Descriptor directory(files, files.open(AT_FDCWD, run_directory, O_RDONLY | O_DIRECTORY));
    if (directory.get() < 0) return found;
    for_each_ring(files, directory.get(), [&](int ring) {
        if (ring < 0) return;
        if (files.lock(ring, LOCK_SH | LOCK_NB) == 0 || errno != EWOULDBLOCK) return;
        const std::unique_ptr<RingImage> image = RingImage::look(files, ring);
        if (image == nullptr || image->has_recovery_mark()) return;
        const RingFileHeader& of = image->header();
        found.push_back(
            {image->home().label, of.host, of.boot_id, of.pid, of.pid_namespace, of.process_start});
    });
    return found;
}

}  // namespace fastlog
