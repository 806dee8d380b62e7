// Streams that are ahead in a found ring: what is believed, what is passed over, what is written.
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <functional>
#include <string>
#include <vector>

#include "core/recovery.hpp"
#include "core/ring_image.hpp"
#include "core/ring_memory.hpp"
#include "test_flush_thread_support.hpp"

using namespace fastlog;
using namespace fastlog::test;

namespace {

constexpr std::size_t kRing = 4096;

/// A ring file that a dead process left; what it says is patched before it is read.
class Found {
  public:
    Found() {
        RingSpec spec;
        spec.ring_bytes = kRing;
        spec.run_directory = dir.path();
        spec.segment_bytes = 1 << 20;
        SinkError error;
        memory = std::make_unique<RingMemory>(spec, error);
        REQUIRE(memory->mapped());
        ring = std::make_unique<MpscRing>(memory->control(), memory->data(), memory->ring_bytes(),
                                          memory->salt(), true);
        slot.epoch = 1;
        slot.ns_per_tick = 1;
    }

    /// Records {"n":<n>}; where it begins.
    std::uint64_t put(Stream stream, int n, RecordKind kind = RecordKind::fragment) {
        const std::string members = "\"n\":" + std::to_string(n);
        MpscRing::Claim claim{};
        REQUIRE(ring->try_claim(members.size(), claim) == ClaimStatus::claimed);
        MpscRing::fill_header(claim, static_cast<std::uint32_t>(members.size()), 1, 7, kind, stream,
                              5);  // a ticket that means nothing any more
        std::memcpy(MpscRing::payload_of(claim), members.data(), members.size());
        ring->commit(claim);
        return claim.position;
    }
    void ahead(Stream stream, std::uint64_t bytes) {
        slot.streams[static_cast<std::size_t>(stream)].ahead =
            static_cast<std::uint32_t>(bytes / kRecordAlign);
    }
    void commit(std::uint64_t epoch = 1) {
        slot.epoch = epoch;
        slot.crc = slot_crc(slot);
        *memory->slot(epoch) = slot;
        memory->epoch()->store(epoch);
    }
    /// Another process finds it.
    std::string file() {
        if (copy.empty()) {
            copy = dir / "found";
            std::filesystem::copy_file(memory->path(), copy);
        }
        return copy;
    }
    std::unique_ptr<RingImage> read(std::string& reason) {
        const int fd = ::open(file().c_str(), O_RDONLY);
        auto image = RingImage::read(posix_files(), fd, reason);
        ::close(fd);
        return image;
    }
    RecoveryReport recover(RunFiles& files = posix_files()) {
        const std::string name = memory->path();
        std::string content = read_file(name);
        if (version < kFirstVersionWithSystem) age(content);
        memory->remove_file(-1);
        ring.reset();
        memory.reset();  // with its lock
        write_file(name, content);
        return recover_ring(dir.path(), name, files);
    }
    // As a recorder had left it that knew no system stream, and so no place for it in a slot.
    void age(std::string& content) const {
        RingFileHeader header{};
        std::memcpy(&header, content.data(), sizeof header);
        header.version = version;
        header.crc = header_crc(header);
        std::memcpy(content.data(), &header, sizeof header);
        for (const std::size_t offset : kSlotOffsets) {
            CommitSlot at{};
            std::memcpy(&at, content.data() + offset, sizeof at);
            std::memset(content.data() + offset, 0, sizeof at);
            const OldCommitSlot old = to_old(at);
            if (at.epoch != 0) std::memcpy(content.data() + offset, &old, sizeof old);
        }
    }
    std::vector<std::uint64_t> written(const char* stream) {
        return numbers(lines_of_stream(dir.path(), stream));
    }

    TempDir dir;
    std::unique_ptr<RingMemory> memory;
    std::unique_ptr<MpscRing> ring;
    CommitSlot slot{};
    std::string copy;
    std::uint32_t version = kRingVersion;
};

/// Files of somebody who only looks.
struct Looking final : PosixFiles {
    std::vector<std::string> steps;
    int lock(int fd, int operation) noexcept override {
        steps.emplace_back(operation == LOCK_UN ? "unlock" : "lock");
        return PosixFiles::lock(fd, operation);
    }
    int keep(int fd) noexcept override {
        steps.emplace_back("open");
        return PosixFiles::keep(fd);
    }
    bool is_view() const noexcept override { return true; }
};

}  // namespace

TEST_SUITE("ring image") {
    TEST_CASE("should give its lock back before it looks at the files, for who only looks") {
        Found f;
        f.commit();
        Looking files;
        CHECK(f.recover(files).outcome == RecoveryReport::Outcome::recovered);
        CHECK(files.steps == std::vector<std::string>{"lock", "unlock", "open"});
    }

    TEST_CASE("should write nothing where the run was removed since its ring was found") {
        class Removing final : public PosixFiles {
          public:
            std::string ring;
            int open(int directory, const std::string& name, int flags,
                     mode_t mode) noexcept override {
                if ((flags & O_DIRECTORY) != 0) std::filesystem::remove(ring);
                return PosixFiles::open(directory, name, flags, mode);
            }
        } files;
        Found f;
        f.put(Stream::metrics, 0);
        f.commit();
        files.ring = f.memory->path();
        CHECK(f.recover(files).outcome == RecoveryReport::Outcome::gone);
        CHECK(f.written("metrics").empty());
    }

    TEST_CASE("should believe a stream ahead by no more than the ring is long") {
        for (const bool plausible : {true, false}) {
            Found f;
            f.commit(1);
            f.ahead(Stream::log, kRing + (plausible ? 0 : kRecordAlign));
            f.commit(2);
            std::string reason;
            const auto image = f.read(reason);
            REQUIRE(image != nullptr);
            CHECK(image->slot().epoch == (plausible ? 2 : 1));
            CHECK(image->slot().stream_position(Stream::log) == (plausible ? kRing : 0));
        }
    }

    TEST_CASE("should neither check nor count what lies before a stream's own position") {
        for (const bool written : {true, false}) {
            CAPTURE(written);
            Found f;
            f.put(Stream::metrics, 0);
            f.put(Stream::log, 7, RecordKind::timing);  // none: it cannot be rendered
            const std::uint64_t end = f.put(Stream::metrics, 1);
            if (written) f.ahead(Stream::log, end);
            f.commit();
            const RecoveryReport report = f.recover();
            CHECK(report.outcome == RecoveryReport::Outcome::recovered);
            CHECK(report.damaged == (written ? 0 : 1));
            CHECK(report.emitted == 2);
            CHECK(f.written("metrics") == counting(2));
        }
    }

    TEST_CASE("should read the slots of each version, and commit in them as they are") {
        // A recovery that is killed before it removes the ring.
        class Keeping final : public PosixFiles {
          public:
            bool keeps = true;
            int unlink(int directory, const std::string& path) noexcept override {
                if (!keeps || !path.ends_with(kRingSuffix)) {
                    return PosixFiles::unlink(directory, path);
                }
                errno = EACCES;
                return -1;
            }
        } files;
        for (std::uint32_t version = 1; version <= kRingVersion; ++version) {
            CAPTURE(version);
            Found f;
            f.version = version;
            const bool system = version >= kFirstVersionWithSystem;
            const std::size_t count = system ? kStreamCount : OldCommitSlot::kStreams;
            f.commit(1);
            for (int n = 0; n < 2; ++n) {
                for (std::size_t s = 0; s < count; ++s) f.put(static_cast<Stream>(s), n);
            }
            const std::string ring = f.memory->path();
            files.keeps = true;
            const RecoveryReport first = f.recover(files);
            CHECK(first.outcome == RecoveryReport::Outcome::recovered);
            CHECK(first.damaged + first.holes == 0);
            CHECK(first.emitted == 2 * count);
            for (std::size_t s = 0; s < count; ++s)
                CHECK(f.written(kStreamNames[s]) == counting(2));
            CHECK(f.written("system").empty() != system);
            files.keeps = false;
            const RecoveryReport again = recover_ring(f.dir.path(), ring, files);
            CHECK(again.outcome == RecoveryReport::Outcome::recovered);
            CHECK(again.emitted + again.skipped + again.cut_bytes == 0);
            CHECK_FALSE(exists(ring));
        }
    }

    TEST_CASE("should not take a ring from before a restart for one that was never used") {
        Found found;
        const int fd = ::open(found.file().c_str(), O_RDWR);
        RingFileHeader header{};
        REQUIRE(::pread(fd, &header, sizeof header, 0) == sizeof header);
        CHECK(RingImage::is_unused(posix_files(), fd, header.uuid));
        header.boot_id[0] ^= 1;  // a power loss may have taken all that its writer noted since
        header.crc = header_crc(header);
        REQUIRE(::pwrite(fd, &header, sizeof header, 0) == sizeof header);
        CHECK_FALSE(RingImage::is_unused(posix_files(), fd, header.uuid));
        ::close(fd);
    }
}
