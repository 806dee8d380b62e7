// driver fuzz: damaged and hostile ring files, millions of them, in this process.
//
//   executions=N seed=S first=I    rings S/I .. S/I+N-1; each is a function of its number alone
//   scratch=DIR                    an empty directory, for the share that goes through recover_run()
//   recover_every=N                that share (default: one in 500)
//
// A valid ring is made, damaged by a few structure-aware mutations, and read. In half of the cases the
// checksums are made right again, so that what is behind them is reached. Run it under ASan and UBSan.
// Checked besides: reading ends, nothing unknown comes out of a ring whose checksums were left alone,
// each line is one line, and JSON.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <set>
#include <string_view>
#include <vector>

#include "../cpp/test_json_reader.hpp"
#include "core/key_table.hpp"
#include "core/line_renderer.hpp"
#include "core/machine.hpp"
#include "core/recovery.hpp"
#include "core/ring_image.hpp"
#include "core/ring_memory.hpp"
#include "core/ring_view.hpp"
#include "driver.hpp"

namespace crash {
namespace {

namespace fs = std::filesystem;
using fastlog::CommitSlot;
using fastlog::MpscRing;
using fastlog::RecordHeader;
using fastlog::RecordKind;
using fastlog::RingFileHeader;
using fastlog::RingImage;
using fastlog::Stream;

constexpr std::size_t kRingBytes = 4096;
constexpr std::size_t kTableBytes = 4096;
constexpr std::size_t kFileBytes = fastlog::kKeyTableOffset + kTableBytes + kRingBytes;
constexpr std::size_t kData = fastlog::kKeyTableOffset + kTableBytes;

class Random {
  public:
    explicit Random(std::uint64_t seed) : state_(mix(seed)) {}
    std::uint64_t next() { return state_ = mix(state_); }
    std::uint64_t below(std::uint64_t end) { return (next() >> 11) % end; }
    bool one_in(std::uint64_t n) { return below(n) == 0; }

  private:
    std::uint64_t state_;
};

// A ring file in memory, made by the code that makes real ones.
class Sample {
  public:
    explicit Sample(Random& random) : random_(random) {
        make_header();
        make_records();
        make_slots();
    }

    std::byte* at(std::size_t offset) { return reinterpret_cast<std::byte*>(words_) + offset; }
    template <class T>
    T* as(std::size_t offset) {
        return reinterpret_cast<T*>(at(offset));
    }
    std::size_t size = kFileBytes;
    std::vector<std::uint64_t> positions;  // of the records, pads included

    std::size_t offset_of(std::uint64_t position) const {
        return kData + (position & (kRingBytes - 1));
    }

    void fix_checksums() {
        auto* header = as<RingFileHeader>(0);
        header->crc = fastlog::header_crc(*header);
        for (const std::size_t offset : fastlog::kSlotOffsets) {
            auto* slot = as<CommitSlot>(offset);
            static constexpr CommitSlot kZero{};
            if (std::memcmp(slot, &kZero, sizeof kZero) != 0) slot->crc = fastlog::slot_crc(*slot);
        }
        for (const std::uint64_t position : positions) {
            auto* record = as<RecordHeader>(offset_of(position));
            const std::size_t room = kFileBytes - offset_of(position) - sizeof(RecordHeader);
            if (record->length > room) continue;
            record->crc = fastlog::record_crc(record, position);
        }
    }

  private:
    void make_header() {
        auto* header = as<RingFileHeader>(0);
        std::memcpy(header->magic, fastlog::kRingMagic, sizeof header->magic);
        header->version = fastlog::kRingVersion;
        header->flags = random_.one_in(2) ? RingFileHeader::kTicksAreTsc : 0;
        header->file_bytes = kFileBytes;
        header->key_table_bytes = kTableBytes;
        header->ring_bytes = kRingBytes;
        header->salt = random_.next() | 1;
        header->segment_bytes = 4096;
        header->rank = -1;
        static const std::string boot = fastlog::boot_id();
        if (random_.one_in(2)) boot.copy(header->boot_id, sizeof header->boot_id - 1);
        std::strcpy(header->label, random_.one_in(2) ? "" : "r1-a2-w77");
        header->crc = fastlog::header_crc(*header);
    }

    void make_records() {
        begin_ = random_.below(1000) * fastlog::kRecordAlign;
        auto* control = new (at(fastlog::kControlOffset)) fastlog::RingControl{};
        control->tail = begin_;
        control->head = begin_;
        control->head_cache = begin_;
        MpscRing ring(control, at(kData), kRingBytes, as<RingFileHeader>(0)->salt, true);
        fastlog::KeyTable table(at(fastlog::kKeyTableOffset), kTableBytes);
        const std::vector<std::vector<std::string_view>> sets = {
            {"loss"}, {"a", "b", "epoch", "d\"q"}, {"work"}, {}};
        for (const auto& keys : sets) table.intern(keys);
        const std::uint64_t records = random_.below(30);
        for (std::uint64_t n = 0; n < records; ++n) {
            const auto kind = static_cast<RecordKind>(1 + random_.below(4));
            const auto stream = static_cast<Stream>(random_.below(4));
            const std::string payload = make_payload(kind, sets);
            MpscRing::Claim claim;
            if (ring.try_claim(payload.size(), claim) != fastlog::ClaimStatus::claimed) break;
            MpscRing::fill_header(claim, static_cast<std::uint32_t>(payload.size()),
                                  random_.next() >> random_.below(64), 7, kind, stream);
            std::memcpy(MpscRing::payload_of(claim), payload.data(), payload.size());
            if (!random_.one_in(20)) ring.commit(claim);  // some threads died
            if (!positions.empty() && end_ != claim.position) positions.push_back(end_);  // a pad
            positions.push_back(claim.position);
            end_ = claim.position + fastlog::record_size(payload.size());
        }
    }

    std::string make_payload(RecordKind kind,
                             const std::vector<std::vector<std::string_view>>& sets) {
        std::string out;
        const auto put = [&out](auto value) {
            out.append(reinterpret_cast<const char*>(&value), sizeof value);
        };
        if (kind == RecordKind::drops) {
            put(1 + random_.below(1000));
        } else if (kind == RecordKind::fragment) {
            out = "\"level\":\"INFO\",\"message\":\"" + std::string(random_.below(200), 'm') + "\"";
        } else if (kind == RecordKind::timing) {
            fastlog::TimingPayload timing{};
            timing.step = static_cast<std::int64_t>(random_.next());
            timing.duration_ticks = random_.next() >> random_.below(64);
            timing.name = 2;
            timing.parent = 0;
            timing.flags = static_cast<std::uint16_t>(random_.below(4));
            timing.error_length = static_cast<std::uint32_t>(random_.below(40));
            put(timing);
            out.append(timing.error_length, 'e');
        } else {
            fastlog::MetricsPayload head{};
            head.step = static_cast<std::int64_t>(random_.next());
            head.key_set = static_cast<std::uint32_t>(random_.below(sets.size()));
            head.count = static_cast<std::uint16_t>(sets[head.key_set].size());
            put(head);
            const std::uint64_t text = random_.below(50);
            std::vector<std::uint64_t> values;
            for (std::size_t i = 0; i < head.count; ++i) {
                const std::uint64_t tag = random_.below(5);
                out.push_back(static_cast<char>(tag));
                const std::uint64_t offset = random_.below(text + 1);
                values.push_back(tag == 4 ? offset << 32 | random_.below(text - offset + 1)
                                          : random_.next());
            }
            out.resize(fastlog::metrics_values_offset(head.count));
            for (const std::uint64_t value : values) put(value);
            out.append(text, 's');
        }
        return out;
    }

    void make_slots() {
        const std::uint64_t epoch = 1 + random_.below(5);
        for (std::uint64_t e : {epoch, epoch + 1}) {
            auto* slot = as<CommitSlot>(fastlog::kSlotOffsets[e & 1]);
            if (e == epoch && random_.one_in(2)) continue;  // still as it was made
            slot->epoch = e;
            slot->position = begin_;
            slot->anchor_ticks = random_.next() >> 8;
            slot->anchor_wall_ns = static_cast<std::int64_t>(random_.next() >> 2);
            slot->ns_per_tick = 0.4;
            for (fastlog::StreamCommit& stream : slot->streams) {
                stream.seq = random_.below(3);
                stream.segment = static_cast<std::uint32_t>(random_.below(2));
            }
            slot->crc = fastlog::slot_crc(*slot);
        }
        *as<std::uint64_t>(fastlog::kEpochOffset) = epoch + 1;
        if (random_.one_in(3)) *as<std::uint64_t>(fastlog::kDropsOffset) = random_.below(9);
    }

    Random& random_;
    std::uint64_t begin_ = 0;
    std::uint64_t end_ = 0;
    alignas(fastlog::kPageBytes) std::uint64_t words_[kFileBytes / 8]{};
};

// A number that code tends to get wrong: beside a power of two, at the end of all, within the ring, any.
std::uint64_t awkward(Random& random) {
    switch (random.below(4)) {
        case 0:
            return (std::uint64_t{1} << random.below(64)) + random.below(3) - 1;
        case 1:
            return UINT64_MAX - random.below(33);
        case 2:
            return random.below(kRingBytes);
        default:
            return random.next() >> random.below(64);
    }
}

// Somewhere in the file, by preference where there is structure.
std::size_t place(Random& random, const Sample& sample) {
    switch (random.below(8)) {
        case 0:
            return random.below(sizeof(RingFileHeader));
        case 1:
            return fastlog::kSlotOffsets[random.below(2)] + random.below(sizeof(CommitSlot));
        case 2:
            return fastlog::kControlOffset + random.below(320);
        case 3:
            return fastlog::kKeyTableOffset + random.below(160);
        case 4:
        case 5:
        case 6:
            if (!sample.positions.empty()) {
                const auto chosen = sample.positions[random.below(sample.positions.size())];
                return sample.offset_of(chosen) + random.below(96);
            }
            [[fallthrough]];
        default:
            return random.below(kFileBytes);
    }
}

void mutate(Random& random, Sample& sample) {
    const std::size_t where = place(random, sample);
    const auto room = [&](std::size_t offset) { return kFileBytes - std::min(offset, kFileBytes); };
    switch (random.below(9)) {
        case 0:
            if (room(where) >= 1) *sample.at(where) ^= std::byte{1} << random.below(8);
            return;
        case 1:
            if (room(where) >= 1) *sample.at(where) = static_cast<std::byte>(random.next() >> 56);
            return;
        case 2:
        case 3:
        case 4: {
            // An aligned number of 2, 4 or 8 bytes, as a field has.
            const std::size_t width = std::size_t{2} << random.below(3);
            const std::size_t offset = where / width * width;
            const std::uint64_t number = awkward(random);
            if (room(offset) >= width) std::memcpy(sample.at(offset), &number, width);
            return;
        }
        case 5: {
            const std::size_t from = place(random, sample) / 32 * 32;
            const std::size_t to = where / 32 * 32;
            const std::size_t bytes =
                std::min<std::size_t>({32 * random.below(16), room(from), room(to)});
            std::memmove(sample.at(to), sample.at(from), bytes);
            return;
        }
        case 6: {
            const std::size_t bytes = std::min<std::size_t>(random.below(300), room(where));
            std::memset(sample.at(where), random.one_in(2) ? 0 : 0xFF, bytes);
            return;
        }
        case 7:
            // A page that never reached the disk.
            std::memset(sample.at(where / 4096 % (kFileBytes / 4096) * 4096), 0, 4096);
            return;
        default:
            if (random.one_in(4)) sample.size = random.below(kFileBytes + 9000);
            return;
    }
}

struct Totals {
    std::uint64_t rings = 0;      // that were accepted as rings
    std::uint64_t records = 0;    // that came out of them
    std::uint64_t rendered = 0;   // of which lines were made
    std::uint64_t recovered = 0;  // whole recoveries
};

class Fuzzer {
  public:
    explicit Fuzzer(const Arguments& arguments)
        : seed_(arguments.number("seed", 1)),
          recover_every_(arguments.number("recover_every", 500)),
          scratch_(arguments.text("scratch")),
          run_(scratch_ / "run") {
        fd_ = ::memfd_create("ring", MFD_CLOEXEC);
        if (fd_ < 0) fail("no memfd");
    }

    void execute(std::uint64_t index) {
        index_ = index;
        Random random(mix(seed_) ^ index);
        auto sample = std::make_unique<Sample>(random);
        const std::string original(reinterpret_cast<const char*>(sample->at(0)), kFileBytes);
        const std::uint64_t mutations = random.below(6);
        for (std::uint64_t i = 0; i < mutations; ++i) mutate(random, *sample);
        const bool fixed = random.one_in(2);
        if (fixed) sample->fix_checksums();
        read(*sample, fixed ? nullptr : &original);
        if (random.one_in(recover_every_)) recover(*sample);
    }

    const Totals& totals() const { return totals_; }

  private:
    void require(bool right, const char* what) const {
        if (right) return;
        fail(std::string(what) + " (seed=" + std::to_string(seed_) +
             " first=" + std::to_string(index_) + " executions=1)");
    }

    void read(Sample& sample, const std::string* original) {
        const std::size_t here = std::min(sample.size, kFileBytes);
        if (::ftruncate(fd_, static_cast<off_t>(sample.size)) != 0 ||
            ::pwrite(fd_, sample.at(0), here, 0) != static_cast<ssize_t>(here)) {
            fail("cannot write the memfd");
        }
        std::string reason;
        const std::unique_ptr<RingImage> image =
            RingImage::read(fastlog::posix_files(), fd_, reason);
        require((image == nullptr) == !reason.empty(), "no ring without a reason, or one with");
        if (image == nullptr) return;
        ++totals_.rings;
        for (const bool trusted : {true, false}) {
            image->trust_tail(trusted);
            walk(*image, original, sample);
        }
    }

    void walk(const RingImage& image, const std::string* original, const Sample& sample) {
        const CommitSlot& slot = image.slot();
        const fastlog::TickConverter clock(
            (image.header().flags & RingFileHeader::kTicksAreTsc) != 0, slot.anchor_ticks,
            slot.anchor_wall_ns, slot.ns_per_tick);
        fastlog::LineRenderer renderer(image.key_table(), image.header().key_table_bytes, clock);
        std::uint64_t position = slot.position;
        std::uint64_t holes = 0;
        std::uint64_t hole_bytes = 0;
        std::uint64_t records = 0;
        std::string line;
        while (const RecordHeader* record = image.next(position, holes, hole_bytes)) {
            require(++records <= image.header().ring_bytes / fastlog::kRecordAlign, "no end");
            require(position - slot.position < image.header().ring_bytes, "a record out of range");
            if (original != nullptr) {
                // Its checksum was right and nobody made it so: it is as it was recorded.
                const std::size_t offset = sample.offset_of(position);
                require(std::memcmp(original->data() + offset, record,
                                    sizeof *record + record->length) == 0,
                        "a record that nobody recorded");
            }
            if (renderer.check(*record)) {
                line.clear();
                renderer.render(*record, 5, line);
                check_line(line, record->kind != RecordKind::fragment);
                ++totals_.rendered;
            }
            position = MpscRing::after(position, *record);
        }
        require(hole_bytes <= image.header().ring_bytes, "holes larger than the ring");
        totals_.records += records;
    }

    void check_line(const std::string& line, bool ours) const {
        require(line.size() < std::size_t{1} << 20, "a line of a megabyte from a ring of 4 KiB");
        require(line.find('\n') == line.size() - 1, "not one line");
        try {
            if (ours) fastlog::test::parse(std::string_view(line).substr(0, line.size() - 1));
        } catch (const std::exception& error) {
            require(false, error.what());
        }
    }

    // The files of the run's streams.
    std::map<std::string, std::string> files() const {
        std::map<std::string, std::string> found;
        for (const auto& entry : fs::directory_iterator(run_)) {
            if (!entry.is_regular_file()) continue;
            std::ifstream file(entry.path(), std::ios::binary);
            found[entry.path().filename()].assign(std::istreambuf_iterator<char>(file), {});
        }
        return found;
    }

    static std::map<std::string, std::string> changed(std::map<std::string, std::string> files,
                                                      const fastlog::FileEdits& edits) {
        for (const auto& [name, edit] : edits) {
            std::string content;
            for (const fastlog::FileRange& range : edit.kept) {
                content += files.at(name).substr(range.begin, range.end - range.begin);
            }
            files[name] = content.append(edit.pending);
            if (edit.removed) files.erase(name);
        }
        return files;
    }

    void check_view(const fastlog::RecoveryReport& shown,
                    const fastlog::RecoveryReport& done) const {
        require(shown.outcome == done.outcome && shown.label == done.label &&
                    shown.emitted == done.emitted && shown.skipped == done.skipped &&
                    shown.holes == done.holes && shown.hole_bytes == done.hole_bytes &&
                    shown.damaged == done.damaged && shown.cut_bytes == done.cut_bytes,
                "another report than a reader's");
    }

    // Through the front door: a run directory with some lines, and this ring.
    void recover(Sample& sample) {
        ++totals_.recovered;
        fs::remove_all(scratch_);
        fs::create_directories(run_ / fastlog::kPrivateDirectory);
        const std::string lines =
            "{\"timestamp\":\"2026-01-30T14:32:15.123456Z\",\"seq\":0,\"x\":1}\n";
        std::ofstream(run_ / "metrics.jsonl") << lines;
        const fs::path ring = run_ / fastlog::kPrivateDirectory / "u.ring";
        std::ofstream(ring).write(reinterpret_cast<const char*>(sample.at(0)),
                                  static_cast<std::streamsize>(std::min(sample.size, kFileBytes)));
        const fastlog::FileEdits nothing;
        const std::map<std::string, std::string> before = files();
        const fastlog::RingView view(run_.string(), ring.string(), nothing, {});
        const auto shown = changed(before, view.edits());
        require(files() == before, "a reader that writes");
        const auto reports = fastlog::recover_run(run_.string());
        require(reports.size() == 1, "not one report");
        check_view(view.report(), reports[0]);
        require(reports[0].outcome == fastlog::RecoveryReport::Outcome::failed || files() == shown,
                "other files than a reader shows");
        using Outcome = fastlog::RecoveryReport::Outcome;
        const Outcome outcome = reports[0].outcome;
        require(fs::exists(ring) == (outcome == Outcome::failed),
                "a ring that should (not) be there");
        require((outcome == Outcome::quarantined) ==
                    fs::exists(run_ / fastlog::kPrivateDirectory / "quarantine" / "u.ring"),
                "not in quarantine, or for no reason");
        require(std::distance(fs::directory_iterator(scratch_), fs::directory_iterator()) == 1,
                "a file outside the run");
        for (const auto& entry : fs::directory_iterator(run_)) {
            require(entry.is_directory() || entry.file_size() < std::size_t{1} << 24,
                    "a file out of proportion");
        }
    }

    const std::uint64_t seed_;
    const std::uint64_t recover_every_;
    const fs::path scratch_;
    const fs::path run_;
    int fd_ = -1;
    std::uint64_t index_ = 0;
    Totals totals_;
};

}  // namespace

int fuzz(const Arguments& arguments) {
    Fuzzer fuzzer(arguments);
    const std::uint64_t first = arguments.number("first", 0);
    const std::uint64_t executions = arguments.number("executions", 1000);
    for (std::uint64_t i = first; i < first + executions; ++i) fuzzer.execute(i);
    const Totals& totals = fuzzer.totals();
    const auto number = [](std::uint64_t n) { return static_cast<unsigned long long>(n); };
    std::printf(
        "{\"executions\":%llu,\"rings\":%llu,\"records\":%llu,\"rendered\":%llu,"
        "\"recovered\":%llu}\n",
        number(executions), number(totals.rings), number(totals.records), number(totals.rendered),
        number(totals.recovered));
    return 0;
}

}  // namespace crash
