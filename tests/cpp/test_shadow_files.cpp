// A view of a run's files: what a recovery on it says and shows, and that nothing is written.
#include <fcntl.h>
#include <sys/file.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "core/recovery.hpp"
#include "core/ring_view.hpp"
#include "core/shadow_files.hpp"
#include "test_support.hpp"

using namespace fastlog;
using namespace fastlog::test;

namespace {

const FileEdits kNothing;

std::string read_through(RunFiles& files, const std::string& path, std::size_t block = 3) {
    const Descriptor fd(files, files.open(AT_FDCWD, path, O_RDONLY));
    std::string content;
    std::string part(block, '\0');
    for (ssize_t n; (n = files.read_at(fd.get(), part.data(), block, content.size())) > 0;) {
        content.append(part, 0, static_cast<std::size_t>(n));
    }
    return content;
}

std::uint64_t size_through(RunFiles& files, const std::string& path) {
    struct stat info;
    REQUIRE(files.stat_at(AT_FDCWD, path, info) == 0);
    return static_cast<std::uint64_t>(info.st_size);
}

std::string shown(const FileEdit& edit, const std::string& on_disk) {
    std::string content;
    for (const FileRange& range : edit.kept) {
        content += on_disk.substr(range.begin, range.end - range.begin);
    }
    return content.append(edit.pending);
}

/// Files of which the system refuses something.
struct Refusing final : PosixFiles {
    int code = 0;
    bool locks = false;
    int lock(int fd, int operation) noexcept override {
        if (!locks) return PosixFiles::lock(fd, operation);
        errno = code;
        return -1;
    }
    ssize_t read_at(int fd, void* into, std::size_t size, std::uint64_t offset) noexcept override {
        if (locks) return PosixFiles::read_at(fd, into, size, offset);
        errno = code;
        return -1;
    }
};

}  // namespace

TEST_SUITE("shadow files") {
    TEST_CASE("should show a file that is cut and written on, and leave the real one as it is") {
        TempDir dir;
        const std::string path = dir / "log.jsonl";
        write_file(path, "0123456789");
        ShadowFiles files(dir.path(), kNothing, {});
        {
            const Descriptor fd(files, files.open(AT_FDCWD, path, O_RDWR, 0));
            CHECK(files.cut(fd.get(), 4) == 0);
            CHECK(files.write_at(fd.get(), "abc", 3, 4) == 3);
            CHECK(files.write_at(fd.get(), "BCd", 3, 5) == 3);
            CHECK(files.write_at(fd.get(), "x", 1, 3) == -1);
            CHECK(files.write_at(fd.get(), "x", 1, 9) == -1);
            CHECK(files.write_at(fd.get(), "xyz", 3, 8) == 3);
            CHECK(files.cut(fd.get(), 8) == 0);
        }
        CHECK(read_through(files, path) == "0123aBCd");
        CHECK(size_through(files, path) == 8);
        CHECK(read_file(path) == "0123456789");
        const FileEdits edits = files.edits();
        REQUIRE(edits.size() == 1);
        CHECK(shown(edits.at("log.jsonl"), "0123456789") == "0123aBCd");
        CHECK(edits.at("log.jsonl").kept.size() == 1);
    }

    TEST_CASE("should keep ranges of a file that is written anew in its place") {
        TempDir dir;
        const std::string path = dir / "log.jsonl";
        write_file(path, "0123456789");
        FileEdits before;
        before["log.jsonl"] = {{{0, 4}, {6, 10}}, "abcd", false};
        ShadowFiles files(dir.path(), before, {});
        CHECK(read_through(files, path) == "01236789abcd");
        const int directory = files.open(AT_FDCWD, dir.path(), O_RDONLY | O_DIRECTORY, 0);
        FileId id;
        {
            const Descriptor from(files, files.open(directory, "log.jsonl", O_RDWR, 0));
            const Descriptor to(files,
                                files.open(directory, "new", O_RDWR | O_CREAT | O_EXCL, 0600));
            CHECK(files.append_range(from.get(), 1, 4, to.get(), 0) == 0);
            CHECK(files.append_range(from.get(), 6, 4, to.get(), 4) == 0);
            CHECK(files.append_range(from.get(), 10, 4, to.get(), 8) == -1);
            id = files.id_of(to.get());
            CHECK(files.rename(directory, "new", directory, "log.jsonl") == 0);
            CHECK(files.open(directory, "new", O_RDWR, 0) == -1);
            struct stat info;
            CHECK((files.stat(from.get(), info) == 0 && info.st_nlink == 0));
        }
        CHECK(files.id_at(directory, "log.jsonl") == id);
        CHECK(read_through(files, path) == "123689ab");
        const FileEdits edits = files.edits();
        CHECK(shown(edits.at("log.jsonl"), "0123456789") == "123689ab");
    }

    TEST_CASE("should list, make and remove names as the system would") {
        TempDir dir;
        write_file(dir / "a", "");
        write_file(dir / "b", "");
        FileEdits before;
        before["c"] = {{}, "text", false};
        before["b"].removed = true;
        ShadowFiles files(dir.path(), before, {});
        const Descriptor run(files, files.open(AT_FDCWD, dir.path(), O_RDONLY | O_DIRECTORY, 0));
        const auto names = [&] {
            std::vector<std::string> found;
            CHECK(files.list(run.get(), ".", found));
            std::erase_if(found, [](const std::string& name) { return name[0] == '.'; });
            return found;
        };
        CHECK(names() == std::vector<std::string>{"a", "c"});
        CHECK(files.open(run.get(), "b", O_RDWR, 0) == -1);
        CHECK(files.open(run.get(), "a", O_RDWR | O_CREAT | O_EXCL, 0) == -1);
        CHECK(files.open(run.get(), "c", O_RDWR | O_CREAT | O_EXCL, 0) == -1);
        files.close(files.open(run.get(), "d", O_RDWR | O_CREAT | O_EXCL, 0));
        CHECK(files.unlink(run.get(), "a") == 0);
        CHECK(files.unlink(run.get(), "a") == -1);
        CHECK(names() == std::vector<std::string>{"c", "d"});
        CHECK(files.edits().at("a").removed);
        CHECK(std::filesystem::exists(dir / "a"));
        CHECK_FALSE(std::filesystem::exists(dir / "d"));
        CHECK(read_through(files, dir / "c") == "text");
    }

    TEST_CASE("should refuse more text, and more ranges, than it may hold") {
        TempDir dir;
        write_file(dir / "log.jsonl", "0123456789");
        ShadowFiles files(dir.path(), kNothing, {4, 2});
        const Descriptor from(files, files.open(AT_FDCWD, dir / "log.jsonl", O_RDWR, 0));
        const Descriptor to(files, files.open(AT_FDCWD, dir / "new", O_RDWR | O_CREAT, 0600));
        CHECK(files.append_range(from.get(), 0, 1, to.get(), 0) == 0);
        CHECK(files.append_range(from.get(), 1, 1, to.get(), 1) == 0);  // the same range goes on
        CHECK(files.append_range(from.get(), 3, 1, to.get(), 2) == 0);
        CHECK(files.shattered().empty());
        CHECK(files.append_range(from.get(), 5, 1, to.get(), 3) == -1);
        CHECK(files.shattered() == dir / "log.jsonl");
        CHECK(files.write_at(from.get(), "abcd", 4, 10) == 4);
        CHECK_FALSE(files.is_full());
        CHECK(files.write_at(from.get(), "e", 1, 14) == -1);
        CHECK(files.is_full());
    }

    TEST_CASE("should share its lock with other readers, and keep a recovery away") {
        TempDir dir;
        write_file(dir / "x.ring", "");
        ShadowFiles files(dir.path(), kNothing, {});
        ShadowFiles others(dir.path(), kNothing, {});
        const Descriptor ours(files, files.open(AT_FDCWD, dir / "x.ring", O_RDWR, 0));
        const Descriptor theirs(others, others.open(AT_FDCWD, dir / "x.ring", O_RDWR, 0));
        const Descriptor real(posix_files(), posix_files().open(AT_FDCWD, dir / "x.ring", O_RDWR));
        CHECK(files.lock(ours.get(), LOCK_EX | LOCK_NB) == 0);
        CHECK(others.lock(theirs.get(), LOCK_EX | LOCK_NB) == 0);
        CHECK(posix_files().lock(real.get(), LOCK_EX | LOCK_NB) == -1);
    }

    TEST_CASE("should hold no more descriptors than are open") {
        TempDir dir;
        ShadowFiles files(dir.path(), kNothing, {});
        const auto open_now = [] {
            return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
        };
        const auto before = open_now();
        for (int i = 0; i < 50; ++i) {
            const std::string path = dir / std::to_string(i);
            write_file(path, "0123456789");
            const Descriptor fd(files, files.open(AT_FDCWD, path, O_RDWR, 0));
            if (i % 2 != 0) CHECK(files.cut(fd.get(), 5) == 0);
        }
        CHECK(open_now() == before);
        CHECK(files.edits().size() == 25);
        CHECK(read_through(files, dir / "1") == "01234");
    }

    TEST_CASE("should believe no ring damaged that the system does not let it read or lock") {
        for (const bool locks : {false, true}) {
            TempDir dir;
            std::filesystem::create_directory(dir / ".fastlog");
            const std::string ring = dir / ".fastlog/x.ring";
            write_file(ring, std::string(20000, 'x'));
            Refusing files;
            files.code = locks ? ENOLCK : EIO;
            files.locks = locks;
            const RecoveryReport report = recover_ring(dir.path(), ring, files);
            CHECK(report.outcome == RecoveryReport::Outcome::failed);
            CHECK(report.reason.starts_with((locks ? "lock " : "read ") + ring));
            CHECK(std::filesystem::exists(ring));
        }
    }
}
