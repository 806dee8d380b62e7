// What people do to runs, readers, and recoveries.
#include <fcntl.h>

#include <algorithm>
#include <cerrno>

#include "core/recovery.hpp"
#include "world.hpp"
#include "writer.hpp"

namespace sim {
namespace {

void remove_all(SimFiles& files, const std::string& directory) {
    std::vector<std::string> names;
    if (!files.list(AT_FDCWD, directory, names)) return;
    for (const std::string& name : names) {
        const std::string path = directory + "/" + name;
        if (files.unlink(AT_FDCWD, path) != 0 && errno == EISDIR) remove_all(files, path);
    }
    files.remove_directory(directory);
}

// As `cp -a from/. to`: file by file, over what is there.
void copy_all(SimFiles& files, const std::string& from, const std::string& to) {
    files.make_directory(to);
    std::vector<std::string> names;
    if (!files.list(AT_FDCWD, from, names)) return;
    for (const std::string& name : names) {
        struct stat info;
        if (files.stat_at(AT_FDCWD, from + "/" + name, info) != 0) continue;
        if (S_ISDIR(info.st_mode)) {
            copy_all(files, from + "/" + name, to + "/" + name);
            continue;
        }
        const fastlog::Descriptor in(files, files.open(AT_FDCWD, from + "/" + name, O_RDONLY, 0));
        std::string bytes(static_cast<std::size_t>(info.st_size) + 65536, '\0');
        const ssize_t n = files.read_at(in.get(), bytes.data(), bytes.size(), 0);
        if (n < 0) continue;
        const fastlog::Descriptor out(
            files, files.open(AT_FDCWD, to + "/" + name, O_WRONLY | O_CREAT | O_TRUNC, 0644));
        fastlog::write_all(files, out.get(), bytes.data(), static_cast<std::size_t>(n), 0, name);
    }
}

// A stream's file of a run; empty when it has none.
std::string any_file(SimFiles& files, const std::string& run, std::uint64_t arg) {
    std::vector<std::string> names;
    files.list(AT_FDCWD, run, names);
    std::erase_if(names, [](const std::string& name) { return !is_stream_file(name); });
    return names.empty() ? "" : run + "/" + names[arg % names.size()];
}

Node* make_own(World& world, const std::string& path) {
    std::string name;
    Node* const above = world.disk.parent(world.disk.root(), path, name);
    if (above == nullptr || above->names.contains(name)) return nullptr;
    Node* const node = world.disk.make(above, name, false, 0644);
    if (node == nullptr) return nullptr;
    world.disk.write(*node, kForeign, 0);
    world.oracle.note_foreign(*node);
    return node;
}

void remove_something(World& world, Process& user, std::uint64_t arg) {
    const std::string file = any_file(user.files, kRun, arg / 8);
    switch (arg % 4) {
        case 0:
            // Not while a recovery is at work there: a limit that the documents name.
            if (world.opening == 0 && world.recovering == 0) remove_all(user.files, kRun);
            return;
        case 1:
            if (!file.empty() && world.opening == 0) user.files.unlink(AT_FDCWD, file);
            return;
        case 2: {
            const fastlog::Descriptor fd(user.files, user.files.open(AT_FDCWD, file, O_RDWR, 0));
            struct stat info;
            if (fd.get() < 0 || user.files.stat(fd.get(), info) != 0) return;
            user.files.cut(fd.get(), arg % 3 == 0
                                         ? 0
                                         : arg * 7 % static_cast<std::uint64_t>(info.st_size + 1));
            return;
        }
        default:
            make_own(world, std::string(kRun) + "/metrics.00000" + std::to_string(1 + arg / 8 % 3) +
                                ".jsonl");
            return;
    }
}

void rename_something(World& world, Process& user, std::uint64_t arg) {
    // Not while a recorder begins there, which goes by the run's path: a limit that the documents name.
    if (world.opening != 0) return;
    if (arg % 2 == 0) {
        Node* const all = world.disk.find(world.disk.root(), "/d");
        world.disk.rename(all, "a", all, "moved" + std::to_string(world.points()));
        world.oracle.note_moved();
        return;
    }
    const std::string file = any_file(user.files, kRun, arg / 2);
    if (file.empty() || world.opening != 0) return;
    std::string name;
    Node* const above = world.disk.parent(world.disk.root(), file, name);
    const std::string to = name + "." + std::to_string(world.points());
    if (above != nullptr && world.disk.rename(above, name, above, to) == 0) {
        world.oracle.note_renamed(*above->names.at(to));
    }
}

}  // namespace

std::vector<std::string> runs(World& world) {
    std::vector<std::string> all;
    for (const auto& [name, node] : world.disk.find(world.disk.root(), "/d")->names) {
        if (node->directory) all.push_back("/d/" + name);
    }
    return all;
}

std::function<void(Process&)> user_deed(World& world, std::uint64_t arg) {
    return [&world, arg](Process& user) {
        const Setup& setup = world.setup;
        const unsigned which = static_cast<unsigned>(arg % 4);
        if (which == 0 && setup.removes) remove_something(world, user, arg / 4);
        if (which == 1 && setup.renames) rename_something(world, user, arg / 4);
        if (which == 2 && setup.copies && world.at_copy == 0) {
            ++world.at_copy;
            world.oracle.note_copy_begun(kCopy);
            copy_all(user.files, kRun, kCopy);
            if (!user.dead) world.oracle.note_copy(kCopy);
            --world.at_copy;
        }
        if (which == 3 && setup.closes) {
            Node* const own = make_own(world, "/home/own" + std::to_string(world.points()));
            if (own != nullptr) world.close_descriptors(own, arg / 4);
        }
    };
}

std::function<void(Process&)> recoverer(World& world, const std::string& run) {
    return [&world, run](Process& process) {
        const bool copy = run == kCopy;
        if (copy && world.at_copy != 0) return;
        if (copy) ++world.at_copy;
        ++world.recovering;
        fastlog::recover_run(run, [&process] { return !process.dead; }, process.files);
        --world.recovering;
        if (copy) --world.at_copy;
    };
}

// Looks at each ring beside all that goes on. What it shows is judged when the world has come to rest.
std::function<void(Process&)> reader(World&, const std::string& run) {
    return [run](Process& process) {
        process.files.only_reads = true;
        std::vector<std::string> names;
        process.files.list(AT_FDCWD, run + "/.fastlog", names);
        const fastlog::FileEdits none;
        for (const std::string& name : names) {
            if (!name.ends_with(".ring") && !name.ends_with(".ring-at")) continue;
            const fastlog::RingView view(run, run + "/.fastlog/" + name, none,
                                         fastlog::ShadowFiles::Limits{}, process.files);
        }
    };
}

}  // namespace sim
