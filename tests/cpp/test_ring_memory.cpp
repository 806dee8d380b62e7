// The memory behind a ring: three spans that do not overlap, zeroed, not inherited by a fork.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <system_error>

#include "core/ring_image.hpp"
#include "core/ring_memory.hpp"
#include "test_support.hpp"

using namespace fastlog;
using namespace fastlog::test;

TEST_SUITE("ring_memory") {
    TEST_CASE("should lay control words, key table and data side by side") {
        RingMemory memory(std::size_t{64} << 10);
        const auto control = reinterpret_cast<std::uintptr_t>(memory.control());
        const auto keys = reinterpret_cast<std::uintptr_t>(memory.key_table());
        const auto data = reinterpret_cast<std::uintptr_t>(memory.data());
        CHECK(memory.ring_bytes() == std::size_t{64} << 10);
        CHECK(keys >= control + sizeof(RingControl));
        CHECK(data >= keys + memory.key_table_bytes());
        CHECK(control % kCacheLine == 0);
        CHECK(keys % 8 == 0);
        CHECK(data % kCacheLine == 0);
    }

    TEST_CASE("should start zeroed and be writable to the last byte") {
        RingMemory memory(std::size_t{64} << 10);
        const auto zero = [](std::byte b) { return b == std::byte{0}; };
        CHECK(memory.control()->tail.load() == 0);
        CHECK(memory.control()->head.load() == 0);
        CHECK(memory.control()->head_cache.load() == 0);
        CHECK(std::all_of(memory.key_table(), memory.key_table() + memory.key_table_bytes(), zero));
        CHECK(std::all_of(memory.data(), memory.data() + memory.ring_bytes(), zero));
        memory.key_table()[memory.key_table_bytes() - 1] = std::byte{1};
        memory.data()[memory.ring_bytes() - 1] = std::byte{2};
        CHECK(memory.data()[0] == std::byte{0});
    }

    TEST_CASE("should say so when the system has no memory for it") {
        CHECK_THROWS_AS(RingMemory(std::size_t{1} << 62), std::system_error);
    }

    TEST_CASE("should say that its files are new ones when they lie elsewhere from now on") {
        TempDir dir;
        RingSpec spec;
        spec.ring_bytes = std::size_t{64} << 10;
        spec.run_directory = dir.path();
        spec.segment_bytes = 4096;
        SinkError error;
        RingMemory memory(spec, error);
        REQUIRE_FALSE(error);
        REQUIRE_FALSE(memory.note_home(dir.path(), {1, 2}, "", {}));
        CommitSlot& slot = *memory.slot(7);
        slot.epoch = 7;
        slot.position = 320;
        for (auto& stream : slot.streams) stream = {500, 40, 300, 3, 2, 1, 1, 0};
        slot.streams[0].ahead = 5;
        slot.crc = slot_crc(slot);
        memory.epoch()->store(7);
        for (std::size_t s = 0; s < kStreamCount; ++s) {
            for (std::uint32_t segment = 0; segment < 10; ++segment) {
                REQUIRE_FALSE(memory.note_file(static_cast<Stream>(s), segment, {1, 9}));
            }
        }
        {
            const Descriptor ring(posix_files(), ::open(memory.path().c_str(), O_RDONLY));
            std::string why;
            const auto noted = RingImage::read(posix_files(), ring.get(), why);
            REQUIRE(noted != nullptr);
            for (std::size_t s = 0; s < kStreamCount; ++s) {
                CHECK(noted->noted_segments(static_cast<Stream>(s)).size() == kFileNotes);
            }
            CHECK_FALSE(noted->has_recovery_mark());
        }

        REQUIRE_FALSE(memory.note_home(dir.path(), {1, 3}, "a1", {}));

        const Descriptor fd(posix_files(), ::open(memory.path().c_str(), O_RDONLY | O_CLOEXEC));
        std::string reason;
        const auto image = RingImage::read(posix_files(), fd.get(), reason);
        REQUIRE(image != nullptr);
        CHECK(image->home().run_inode == 3);
        CHECK(std::string(image->home().label) == "a1");
        CHECK(image->noted_segments(Stream::metrics).empty());
        CHECK(memory.epoch()->load() == 8);
        CHECK(image->slot().epoch == 8);
        CHECK(image->slot().position == 320);
        for (const auto& stream : image->slot().streams) {
            CHECK(stream.seq == 40);
            CHECK(stream.offset + stream.segment + stream.exists + stream.has_trim == 0);
        }
        CHECK(image->slot().streams[0].ahead == 5);

        // Under one more label, two streams count from 0.
        REQUIRE_FALSE(memory.note_home(dir.path(), {1, 3}, "a2", {true, false, false, true}));
        const auto later = RingImage::read(posix_files(), fd.get(), reason);
        REQUIRE(later != nullptr);
        CHECK(std::string(later->home().label) == "a2");
        CHECK(later->slot().epoch == 10);
        for (std::size_t s = 0; s < kStreamCount; ++s) {
            CHECK(later->slot().streams[s].seq == (s % 3 == 0 ? 0 : 40));
        }
        CHECK(later->slot().streams[0].ahead == 5);
        CHECK(later->has_notes());
        memory.note_renumbering();
        CHECK_FALSE(RingImage::read(posix_files(), fd.get(), reason)->has_notes());
    }

#if defined(__linux__)  // has MADV_DONTFORK
    TEST_CASE("should not exist in a forked child") {
        RingMemory memory(std::size_t{64} << 10);
        const auto mapped = [](const void* at) {
            unsigned char resident = 0;
            return ::mincore(const_cast<void*>(at), 1, &resident) == 0;
        };
        REQUIRE(mapped(memory.control()));
        const pid_t child = ::fork();
        REQUIRE(child >= 0);
        if (child == 0) {
            ::_exit((mapped(memory.control()) ? 1 : 0) + (mapped(memory.key_table()) ? 2 : 0) +
                    (mapped(memory.data()) ? 4 : 0));
        }
        int status = 0;
        REQUIRE(::waitpid(child, &status, 0) == child);
        REQUIRE(WIFEXITED(status));
        CHECK(WEXITSTATUS(status) == 0);
    }
#endif
}
