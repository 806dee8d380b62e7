#include "core/quarantine.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>

namespace fastlog {

SinkError quarantine(const std::string& directory, const std::string& path,
                     const std::string& reason) {
    constexpr unsigned kTries = 1000;
    const std::string name_of_place = directory + "/quarantine";
    const std::string base = path.substr(path.rfind('/') + 1);
    const std::string text = reason + "\n";
    ::mkdir(name_of_place.c_str(), kDirectoryMode);
    const Descriptor place(open_at(AT_FDCWD, name_of_place, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
    if (place.get() < 0) return {errno, name_of_place};
    for (unsigned n = 0; n < kTries; ++n) {
        const std::string name = n == 0 ? base : base + "." + std::to_string(n);
        const std::string note = name + ".reason";
        struct stat info;
        if (::fstatat(place.get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0) continue;
        const Descriptor fd(open_at(place.get(), note, O_WRONLY | O_CREAT | O_EXCL));
        if (fd.get() < 0 && errno == EEXIST) continue;
        // Where there is no room for the reason it is in the report alone: what counts is the move.
        if (fd.get() >= 0 && write_all(fd.get(), text.data(), text.size(), 0, note)) {
            ::unlinkat(place.get(), note.c_str(), 0);
        }
        if (::renameat(AT_FDCWD, path.c_str(), place.get(), name.c_str()) == 0) return {};
        const int code = errno;
        if (fd.get() >= 0) ::unlinkat(place.get(), note.c_str(), 0);
        return {code, path};
    }
    return {EEXIST, name_of_place + "/" + base};
}

}  // namespace fastlog
