// A sink when the file system does not do as told, where it takes a disk of its own or a moment between two calls
// to see it. Works for root too: no permissions are involved. The rest is in tests/integration (test_moved_files.py,
// test_recorder_faults.py) and tests/faults.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>
#include <utility>

#include "core/stream_files.hpp"
#include "test_support.hpp"

using namespace fastlog;
using namespace fastlog::test;

namespace {

StreamFilesOptions in(const std::string& directory, RunFiles& disk = posix_files()) {
    return {directory, "", "", false, 1 << 20, false, &disk};
}

struct Written {
    SinkError error;
    std::size_t bytes = 0;
};

Written try_write(StreamFiles& sink, Stream stream, std::string_view text) {
    Written result;
    result.error = sink.write(stream, text, result.bytes);
    return result;
}

void append(StreamFiles& sink, Stream stream, std::string_view text) {
    Written result = try_write(sink, stream, text);
    if (!result.error && result.bytes == 0) result = try_write(sink, stream, text);  // a new label
    REQUIRE_MESSAGE(!result.error, result.error.what);
    REQUIRE(result.bytes == text.size());
}

// A system that does not let us look at what we opened, for a while.
class BlindFiles final : public PosixFiles {
  public:
    bool blind = true;
    int stat(int fd, struct stat& info) noexcept override {
        errno = EACCES;
        return blind ? -1 : PosixFiles::stat(fd, info);
    }
};

// A disk that refuses its first cut.
class Uncut final : public PosixFiles {
  public:
    int cut(int fd, std::uint64_t size) noexcept override {
        errno = EIO;
        return std::exchange(refused_, false) ? -1 : PosixFiles::cut(fd, size);
    }

  private:
    bool refused_ = true;
};

// Between the making of a file and the first look at its name somebody renames it, and makes another one.
class RenamedFiles final : public PosixFiles {
  public:
    explicit RenamedFiles(std::string directory) : directory_(std::move(directory)) {}
    int stat_at(int directory, const std::string& name, struct stat& info) noexcept override {
        if (name == "metrics.jsonl" && std::filesystem::exists(directory_ + "/" + name) &&
            !renamed_) {
            renamed_ = true;
            std::filesystem::rename(directory_ + "/" + name, directory_ + "/kept.jsonl");
            write_file(directory_ + "/" + name, "");
        }
        return PosixFiles::stat_at(directory, name, info);
    }

  private:
    std::string directory_;
    bool renamed_ = false;
};

#if defined(__linux__)
bool are_same(int one, int other) {
    struct stat a{};
    struct stat b{};
    return ::fstat(one, &a) == 0 && ::fstat(other, &b) == 0 && a.st_ino == b.st_ino;
}

// The descriptor of this process that is open on `path`.
int descriptor_of(const std::string& path) {
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
        std::error_code gone;  // the descriptor of the listing itself
        if (std::filesystem::read_symlink(entry.path(), gone) == path) {
            return std::stoi(entry.path().filename().string());
        }
    }
    throw std::runtime_error("not open: " + path);
}
#endif

}  // namespace

TEST_SUITE("stream files faults") {
    TEST_CASE("should tell why it keeps no file that it cannot look at, and leave none behind") {
        TempDir dir;
        BlindFiles files;
        StreamFiles sink(in(dir / "run", files));
        CHECK(sink.open_directory().code == EACCES);
        files.blind = false;
        REQUIRE(!sink.open_directory());
        files.blind = true;
        CHECK(sink.claim().code == EACCES);
        CHECK(std::filesystem::is_empty(dir / "run"));
        files.blind = false;
        append(sink, Stream::metrics, "a\n");
        files.blind = true;
        CHECK(try_write(sink, Stream::log, "b\n").error.code == EACCES);
        CHECK_FALSE(std::filesystem::exists(dir / "run/log.jsonl"));
        files.blind = false;
        append(sink, Stream::log, "b\n");
        CHECK(read_file(dir / "run/log.jsonl") == "b\n");
    }

    TEST_CASE("should not take the file of whoever made one under its name at once for its own") {
        TempDir dir;
        RenamedFiles files(dir.path());
        StreamFiles sink(in(dir.path(), files));
        REQUIRE(!sink.claim());
        CHECK(sink.check(Stream::metrics).code == ENOENT);
        append(sink, Stream::metrics, "a\n");
        CHECK(read_file(dir / "metrics.jsonl").empty());
        CHECK(read_file(dir / "kept.jsonl").empty());
    }

    TEST_CASE("should not write to a file that took the place of a removed or renamed one") {
        for (const bool renamed : {false, true}) {
            CAPTURE(renamed);
            TempDir dir;
            StreamFiles sink(in(dir.path()));
            append(sink, Stream::metrics, "lost\n");
            append(sink, Stream::log, "a\n");
            sink.note_committed();
            append(sink, Stream::metrics, "of the batch\n");
            if (renamed) std::filesystem::rename(dir / "metrics.jsonl", dir / "metrics.jsonl.1");
            std::filesystem::remove(dir / "metrics.jsonl");
            write_file(dir / "metrics.jsonl", "somebody's\n");
            std::uint64_t lost = 0;
            const SinkError found = sink.check(Stream::metrics, &lost);
            CHECK(found.code == ENOENT);
            CHECK(found.what.find(renamed ? "renamed" : "removed") != std::string::npos);
            CHECK(lost == std::strlen("lost\nof the batch\n"));
            append(sink, Stream::metrics, "new\n");
            append(sink, Stream::log, "b\n");
            CHECK(read_file(dir / "metrics.jsonl") == "somebody's\n");
            // All streams of a writer have one label.
            CHECK(sink.label() == "p1");
            CHECK(read_file(dir / "metrics.p1.jsonl") == "new\n");
            CHECK(read_file(dir / "log.jsonl") == "a\n");
            CHECK(read_file(dir / "log.p1.jsonl") == "b\n");
            if (renamed) CHECK(read_file(dir / "metrics.jsonl.1") == "lost\n");
        }
    }

#if defined(__linux__)
    TEST_CASE("should open its file again when its descriptor was closed, or became somebody's") {
        for (const bool reused : {false, true}) {
            CAPTURE(reused);
            TempDir dir;
            StreamFiles sink(in(dir / "run"));
            append(sink, Stream::metrics, "a\n");
            write_file(dir / "users", "the user's checkpoint\n");
            const int fd = descriptor_of(dir / "run/metrics.jsonl");
            const int of_directory = descriptor_of(dir / "run");
            CHECK(fd >= 512);  // the lowest numbers are used again first
            const int users = ::open((dir / "users").c_str(), O_RDWR | O_CLOEXEC);
            REQUIRE(::close(fd) == 0);
            REQUIRE(::close(of_directory) == 0);
            if (reused) {
                REQUIRE(::dup2(users, fd) == fd);
                REQUIRE(::dup2(users, of_directory) == of_directory);
            }
            CHECK(try_write(sink, Stream::metrics, "x\n").error.code == EBADF);
            std::uint64_t lost = 0;
            CHECK(sink.check(Stream::metrics, &lost).code == EBADF);
            CHECK(lost == 0);
            append(sink, Stream::metrics, "b\n");
            sink.rotate(Stream::metrics);
            append(sink, Stream::metrics, "c\n");
            CHECK_FALSE(sink.sync(Stream::metrics));
            CHECK(read_file(dir / "run/metrics.jsonl") == "a\nb\n");
            CHECK(read_file(dir / "run/metrics.000001.jsonl") == "c\n");
            CHECK(read_file(dir / "users") == "the user's checkpoint\n");
            if (reused) {
                CHECK(are_same(fd, users));  // nobody closed the user's
                CHECK(are_same(of_directory, users));
                ::close(fd);
                ::close(of_directory);
            }
            ::close(users);
        }
    }

    TEST_CASE("should leave a descriptor to who has its number now, when it claims and closes") {
        TempDir dir;
        write_file(dir / "users", "");
        const int users = ::open((dir / "users").c_str(), O_RDWR | O_CLOEXEC);
        for (const bool claims : {false, true}) {
            CAPTURE(claims);
            int fd = -1;
            int of_directory = -1;
            {
                StreamFiles sink(in(dir / "run"));
                REQUIRE(!sink.open_directory());
                if (!claims) append(sink, Stream::metrics, "a\n");
                fd = claims ? users : descriptor_of(sink.path(Stream::metrics, 0));
                of_directory = descriptor_of(dir / "run");
                REQUIRE(::dup2(users, fd) == fd);
                REQUIRE(::dup2(users, of_directory) == of_directory);
                if (claims) CHECK(!sink.claim());
            }
            CHECK(are_same(fd, users));
            CHECK(are_same(of_directory, users));
            if (!claims) ::close(fd);
            ::close(of_directory);
        }
        ::close(users);
    }

    TEST_CASE(
        "should not take a file for its own that has its name when its descriptor is closed") {
        TempDir dir;
        StreamFiles sink(in(dir.path()));
        append(sink, Stream::metrics, "a\n");
        REQUIRE(::close(descriptor_of(dir / "metrics.jsonl")) == 0);
        std::filesystem::rename(dir / "metrics.jsonl", dir / "kept");
        write_file(dir / "metrics.jsonl", "somebody's\n");
        CHECK(sink.check(Stream::metrics));
        append(sink, Stream::metrics, "b\n");
        CHECK(read_file(dir / "metrics.jsonl") == "somebody's\n");
    }
#endif

    TEST_CASE("should make its directory anew that was removed before it had a file") {
        TempDir dir;
        StreamFiles sink(in(dir / "run"));
        REQUIRE(!sink.open_directory());
        std::filesystem::remove(dir / "run");
        CHECK(sink.claim().code == ENOENT);
        CHECK(!sink.claim());
    }

    TEST_CASE("should keep its label when its first file was renamed and made anew") {
        TempDir dir;
        StreamFiles sink(in(dir.path()));
        append(sink, Stream::metrics, "old\n");
        append(sink, Stream::log, "a\n");
        std::filesystem::rename(dir / "metrics.jsonl", dir / "kept");
        CHECK(sink.check(Stream::metrics).code == ENOENT);
        append(sink, Stream::metrics, "new\n");
        CHECK(!sink.check(Stream::log));
        CHECK(sink.label().empty());
    }

    TEST_CASE("should find a hole where a file was cut between a look and a write") {
        for (const std::size_t left : {0, 7}) {
            TempDir dir;
            StreamFiles sink(in(dir.path()));
            append(sink, Stream::metrics, "one\ntwo\nthree\n");
            REQUIRE_FALSE(sink.check(Stream::metrics));
            sink.note_committed();
            std::filesystem::resize_file(dir / "metrics.jsonl", left);
            append(sink, Stream::metrics, "four\n");
            std::uint64_t lost = 0;
            CHECK(sink.check(Stream::metrics, &lost).what.find("truncated") != std::string::npos);
            const std::string kept = left == 0 ? "" : "one\n";
            CHECK(read_file(dir / "metrics.jsonl") == kept);
            CHECK(lost == std::string("one\ntwo\nthree\nfour\n").size() - kept.size());
            append(sink, Stream::metrics, "four\n");
            CHECK_FALSE(sink.check(Stream::metrics));
            CHECK(read_file(dir / "metrics.jsonl") == kept + "four\n");
            write_file(dir / "log.jsonl", "not ours\n");
            append(sink, Stream::log, "a\n");  // under another label, where "four" is written again
            CHECK(read_file(dir / "metrics.jsonl") == kept);
        }
    }

    TEST_CASE("should go around a link, a file or a directory in the place of its next segment") {
        TempDir dir;
        StreamFiles sink(in(dir.path()));
        append(sink, Stream::metrics, "a\n");
        sink.rotate(Stream::metrics);
        write_file(dir / "target", "not ours\n");
        std::filesystem::create_symlink(dir / "target", dir / "metrics.000001.jsonl");
        std::filesystem::create_symlink(dir / "nowhere", dir / "metrics.000002.jsonl");
        write_file(dir / "metrics.000003.jsonl", "not ours\n");
        std::filesystem::create_directory(dir / "metrics.000004.jsonl");
        append(sink, Stream::metrics, "b\n");
        CHECK(read_file(dir / "metrics.000005.jsonl") == "b\n");
        CHECK(read_file(dir / "metrics.000003.jsonl") == "not ours\n");
        CHECK(read_file(dir / "target") == "not ours\n");
        CHECK_FALSE(exists(dir / "nowhere"));
        CHECK(sink.state(Stream::metrics).segment == 5);
    }

    TEST_CASE("should let numbers go on where lines under the label that it leaves are gone") {
        for (const std::string how :
             {"removed", "cut", "cut in sight", "cut in sight, then rotated", "between segments",
              "later segment in sight", "cut in sight, then written", "whole"}) {
            CAPTURE(how);
            const bool whole = how == "whole" || how == "cut in sight, then written";
            TempDir dir;
            StreamFiles sink(in(dir.path()));
            append(sink, Stream::metrics, "a\n");
            append(sink, Stream::performance, "a\nb\n");
            sink.note_committed();
            if (how == "between segments" || how[0] == 'l') sink.rotate(Stream::performance);
            if (how[0] == 'l') {
                append(sink, Stream::performance, "c\n");
                sink.note_committed();
            }
            if (how[0] == 'c') {
                std::filesystem::resize_file(dir / "performance.jsonl", 2);
            } else if (!whole) {
                std::filesystem::remove(sink.path(Stream::performance, how[0] == 'l' ? 1 : 0));
            }
            if (how.find("sight") != std::string::npos) CHECK(sink.check(Stream::performance));
            if (how.find("rotated") != std::string::npos) sink.rotate(Stream::performance);
            if (how.find("written") != std::string::npos) {
                append(sink, Stream::performance, "c\n");
                sink.note_committed();
            }
            write_file(dir / "log.jsonl", "not ours\n");
            append(sink, Stream::log, "b\n");
            CHECK(sink.label() == "p1");
            CHECK(sink.restarts() == StreamFlags{true, whole, false, false});
            sink.note_restarted();
            CHECK(sink.restarts() == StreamFlags{});
        }
    }

    TEST_CASE("should move unsynced lines to the next free segment, and not again before the cut") {
        TempDir dir;
        StreamFiles sink(in(dir.path()));
        append(sink, Stream::metrics, "synced\n");
        REQUIRE(!sink.sync(Stream::metrics));
        append(sink, Stream::metrics, "a\n");
        write_file(dir / "metrics.000001.jsonl", "not ours\n");
        CHECK_FALSE(sink.move_unsynced(Stream::metrics));
        CHECK(sink.state(Stream::metrics).segment == 2);
        CHECK(sink.state(Stream::metrics).trim_segment == 0);
        append(sink, Stream::metrics, "b\n");
        CHECK(sink.trim_due(Stream::metrics));
        CHECK(sink.move_unsynced(Stream::metrics).code == EBUSY);
        write_file(dir / "log.jsonl", "not ours\n");
        CHECK(try_write(sink, Stream::log, "a\n").error.code == EBUSY);  // nor another label
        sink.trim(Stream::metrics);
        CHECK_FALSE(sink.trim_due(Stream::metrics));
        CHECK_FALSE(sink.move_unsynced(Stream::metrics));
        sink.trim(Stream::metrics);
        CHECK(read_file(dir / "metrics.jsonl") == "synced\n");
        CHECK(read_file(dir / "metrics.000001.jsonl") == "not ours\n");
        CHECK(read_file(dir / "metrics.000002.jsonl") == "a\n");
        CHECK(read_file(dir / "metrics.000003.jsonl") == "b\n");
    }

    TEST_CASE(
        "should leave no second copy of lines where neither they are synced nor a file removed") {
        class Held final : public PosixFiles {
          public:
            bool unlinks = false;
            bool syncs = false;
            int sync(int fd) noexcept override { return syncs ? PosixFiles::sync(fd) : refuse(); }
            int unlink(int directory, const std::string& name) noexcept override {
                return unlinks ? PosixFiles::unlink(directory, name) : refuse();
            }

          private:
            static int refuse() noexcept {
                errno = EPERM;
                return -1;
            }
        } files;
        TempDir dir;
        StreamFiles sink(in(dir.path(), files));
        append(sink, Stream::metrics, "a\n");
        CHECK(sink.move_unsynced(Stream::metrics));
        CHECK(read_file(dir / "metrics.jsonl") == "a\n");
        CHECK(read_file(dir / "metrics.000001.jsonl").empty());
        std::filesystem::remove(dir / "metrics.000001.jsonl");
        files.unlinks = true;
        CHECK(sink.move_unsynced(Stream::metrics));
        CHECK_FALSE(std::filesystem::exists(dir / "metrics.000001.jsonl"));
        CHECK(sink.sync(Stream::metrics));
        files.syncs = true;
        CHECK(sink.sync(Stream::metrics));  // its bytes may be lost already
    }

    TEST_CASE(
        "should find the hole of a file that was cut, and could not be cut back to a line at "
        "once") {
        TempDir dir;
        Uncut files;
        StreamFiles sink(in(dir.path(), files));
        append(sink, Stream::metrics, "first\nsecond\n");
        REQUIRE(!sink.check(Stream::metrics));
        std::filesystem::resize_file(dir / "metrics.jsonl", 9);
        CHECK(sink.check(Stream::metrics).what == "cut " + (dir / "metrics.jsonl"));
        append(sink, Stream::metrics, "third\n");
        std::uint64_t lost = 0;
        CHECK(sink.check(Stream::metrics, &lost));
        CHECK(lost == std::strlen("second\nthird\n"));
        CHECK(read_file(dir / "metrics.jsonl") == "first\n");
    }

    TEST_CASE("should try a cut again until it is made, and say why it is not") {
        TempDir dir;
        Uncut files;
        StreamFiles sink(in(dir.path(), files));
        append(sink, Stream::metrics, "a\n");
        REQUIRE(!sink.move_unsynced(Stream::metrics));
        CHECK(sink.trim(Stream::metrics).what == "cut " + (dir / "metrics.jsonl"));
        CHECK(sink.trim_due(Stream::metrics));
        CHECK(!sink.trim(Stream::metrics));
        CHECK(read_file(dir / "metrics.jsonl").empty());
    }

    TEST_CASE("should not cut a file that took the place of the one to be cut") {
        TempDir dir;
        StreamFiles sink(in(dir.path()));
        append(sink, Stream::metrics, "a\n");
        CHECK_FALSE(sink.move_unsynced(Stream::metrics));
        std::filesystem::rename(dir / "metrics.jsonl", dir / "old");
        write_file(dir / "metrics.jsonl", "somebody's\n");
        sink.trim(Stream::metrics);
        CHECK(read_file(dir / "metrics.jsonl") == "somebody's\n");
        CHECK_FALSE(sink.trim_due(Stream::metrics));
    }

    TEST_CASE("should go on in the last segment that a ring can speak of, or say that it cannot") {
        for (const bool taken : {false, true}) {
            TempDir dir;
            auto options = in(dir.path());
            options.segment_bytes = 2;
            StreamFiles sink(options, "", nullptr);
            StreamPlace places[kStreamCount]{};
            places[0].segment = kMostSegments - 2;
            CHECK_FALSE(sink.open_directory());
            CHECK_FALSE(sink.resume(places));
            append(sink, Stream::metrics, "a\n");
            CHECK(sink.wants_rotation(Stream::metrics, 0, 2));
            sink.rotate(Stream::metrics);
            const std::string last = dir / "metrics.999999.jsonl";
            if (taken) {
                std::filesystem::create_directory(last);
                CHECK(try_write(sink, Stream::metrics, "b\n").error.code == EEXIST);
                continue;
            }
            append(sink, Stream::metrics, "b\n");
            CHECK_FALSE(sink.wants_rotation(Stream::metrics, 0, 2));
            append(sink, Stream::metrics, "c\n");
            CHECK(read_file(last) == "b\nc\n");
        }
    }
}
