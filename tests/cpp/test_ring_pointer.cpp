// Pointers to rings that lie elsewhere, and what helps against errors.
#include "core/machine.hpp"
#include "core/posix_files.hpp"
#include "core/recovery.hpp"
#include "core/ring_pointer.hpp"
#include "core/writer_mark.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>

#include "test_support.hpp"

using namespace fastlog;
using namespace fastlog::test;

TEST_SUITE("ring_pointer") {
    TEST_CASE("should say where the ring is, and which directory was the run's") {
        TempDir dir;
        const std::string run = dir.path() + "/r.fastlog";
        REQUIRE_FALSE(make_directories(posix_files(), run + "/.fastlog"));
        const std::string pointer = run + "/.fastlog/x.ring-at";
        std::string reason;
        REQUIRE_FALSE(write_pointer(posix_files(), pointer, "/tmp/fastlog-x.ring"));
        const RingPointer read = read_pointer(posix_files(), AT_FDCWD, pointer, reason);
        CHECK(read.ring == "/tmp/fastlog-x.ring");
        CHECK(read.run == run);
    }

    TEST_CASE("should not name a run that a line cannot hold, nor believe half a line") {
        TempDir dir;
        const std::string odd = dir.path() + "/new\nline";
        REQUIRE_FALSE(make_directories(posix_files(), odd + "/.fastlog"));
        const std::string pointer = odd + "/.fastlog/x.ring-at";
        std::string reason;
        REQUIRE_FALSE(write_pointer(posix_files(), pointer, "/tmp/x.ring"));
        RingPointer read = read_pointer(posix_files(), AT_FDCWD, pointer, reason);
        CHECK(read.ring == "/tmp/x.ring");
        CHECK(read.run.empty());

        for (const auto& [text, run] : {std::pair<std::string, std::string>{"", ""},
                                        {"/run", ""},
                                        {"/run\n", "/run"},
                                        {"\n/run\n", ""},
                                        {"/run\nmore", "/run"}}) {
            const std::string all = "/tmp/x.ring\nhost\nboot\n" + text;
            const Descriptor fd(posix_files(),
                                posix_files().open(AT_FDCWD, pointer, O_WRONLY | O_TRUNC));
            REQUIRE_FALSE(write_all(posix_files(), fd.get(), all.data(), all.size(), 0, pointer));
            read = read_pointer(posix_files(), AT_FDCWD, pointer, reason);
            CHECK(read.ring == "/tmp/x.ring");
            CHECK(read.run == run);
        }
    }

    TEST_CASE(
        "should go with a ring that is gone where nothing says that its writer has not ended") {
        TempDir dir;
        const std::string run = dir.path() + "/r.fastlog";
        const std::string uuid = "0b1c2d3e-0000-4000-8000-000000000000";
        REQUIRE_FALSE(make_directories(posix_files(), run + "/.fastlog"));
        const std::string pointer = run + "/.fastlog/" + uuid + ".ring-at";
        const std::string ring = dir.path() + "/fastlog-" + uuid + ".ring";
        REQUIRE_FALSE(write_pointer(posix_files(), pointer, ring));
        REQUIRE_FALSE(mark_writer(posix_files(), run, uuid, false, ""));
        CHECK(recover_ring(run, pointer).outcome == RecoveryReport::Outcome::elsewhere);
        CHECK(exists(pointer));

        // Who recovers a ring, or closes, removes mark, ring and pointer, in that order, and may be killed.
        REQUIRE_FALSE(unmark_writer(posix_files(), run, uuid));
        // A new one may be about to make its mark, with its ring in another container's /tmp.
        CHECK(recover_ring(run, pointer).outcome == RecoveryReport::Outcome::elsewhere);
        std::filesystem::last_write_time(
            pointer, std::filesystem::last_write_time(pointer) - std::chrono::minutes(11));
        CHECK(recover_ring(run, pointer).outcome == RecoveryReport::Outcome::gone);
        CHECK_FALSE(exists(pointer));

        // Of another host's, or one from before a restart, nothing is known here.
        const std::string all = ring + "\nelsewhere\n" + boot_id() + "\n" + run + "\n";
        const Descriptor fd(posix_files(),
                            posix_files().open(AT_FDCWD, pointer, O_WRONLY | O_CREAT));
        REQUIRE_FALSE(write_all(posix_files(), fd.get(), all.data(), all.size(), 0, pointer));
        CHECK(recover_ring(run, pointer).outcome == RecoveryReport::Outcome::elsewhere);
        CHECK(exists(pointer));
    }
}

TEST_CASE("what helps against an error should be said by the error") {
    CHECK(std::string(remedy(ENOSPC)) == "free space there");
    CHECK(std::string(remedy(EDQUOT)) == remedy(ENOSPC));
    CHECK(std::string(remedy(EACCES)) == "make the place writable");
    CHECK(std::string(remedy(EPERM)) == remedy(EROFS));
    CHECK(std::string(remedy(EMFILE)) == remedy(ENFILE));
    CHECK(std::string(remedy(ENOMEM)) == "free memory");
    CHECK(std::string(remedy(EFBIG)) == "raise the limit of file sizes");
    CHECK(std::string(remedy(EIO)) == "fix the cause");
}
