#include "core/quarantine.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>

namespace fastlog {

SinkError quarantine(RunFiles& files, const std::string& directory, const std::string& path,
                     const std::string& reason) {
    constexpr unsigned kTries = 1000;
    const std::string name_of_place = directory + "/quarantine";
    const std::string base = path.substr(path.rfind('/') + 1);
    const std::string text = reason + "\n";
    files.make_directory(name_of_place);
    const Descriptor place(
        files, files.open(AT_FDCWD, name_of_place, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
    if (place.get() < 0) return {errno, name_of_place};
    for (unsigned n = 0; n < kTries; ++n) {
        const std::string name = n == 0 ? base : base + "." + std::to_string(n);
        const std::string note = name + ".reason";
        struct stat info;
        if (files.stat_at(place.get(), name, info) == 0) continue;
        const Descriptor fd(files, files.open(place.get(), note, O_WRONLY | O_CREAT | O_EXCL));
        if (fd.get() < 0 && errno == EEXIST) continue;
        // If there is no room for the reason, it is only in the report: what matters is the move.
        if (fd.get() >= 0 && write_all(files, fd.get(), text.data(), text.size(), 0, note)) {
            files.unlink(place.get(), note);
        }
        if (files.rename(AT_FDCWD, path, place.get(), name) == 0) return {};
        const int code = errno;
        if (fd.get() >= 0) files.unlink(place.get(), note);
        return {code, path};
    }
    return {EEXIST, name_of_place + "/" + base};
}

}  // namespace fastlog
