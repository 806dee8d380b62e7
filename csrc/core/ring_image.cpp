#include "core/ring_image.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string_view>

#include "core/key_table.hpp"
#include "core/machine.hpp"

namespace fastlog {
namespace {

constexpr std::uint64_t kMostOffset = std::uint64_t{1} << 60;

bool read_all(RunFiles& files, int fd, void* into, std::size_t size, std::size_t offset) {
    auto* at = static_cast<char*>(into);
    while (size != 0) {
        const ssize_t n = files.read_at(fd, at, size, offset);
        if (n == 0) errno = 0;  // end of file
        if (n <= 0) return false;
        at += n;
        offset += static_cast<std::size_t>(n);
        size -= static_cast<std::size_t>(n);
    }
    return true;
}

constexpr const char* kLabelLetters = "abcdefghijklmnopqrstuvwxyz0123456789-";

// Text of the allowed characters that ends within its field. It becomes part of file names.
template <std::size_t N>
bool is_name(const char (&field)[N], const char* allowed) {
    const std::size_t length = ::strnlen(field, N);
    return length < N && std::strspn(field, allowed) == length;
}

template <class Slot>
bool plausible(const Slot& slot, std::uint64_t ring_bytes) {
    if (slot.position % kRecordAlign != 0 || (slot.position & MpscRing::kClosedBit) != 0) {
        return false;
    }
    // The commit's position is that of the stream that is furthest behind.
    if (std::none_of(std::begin(slot.streams), std::end(slot.streams),
                     [](const auto& s) { return s.ahead == 0; })) {
        return false;
    }
    return std::all_of(std::begin(slot.streams), std::end(slot.streams), [&](const auto& s) {
        return s.offset < kMostOffset && s.segment < kMostSegments &&
               s.trim_segment < kMostSegments && s.trim_bytes < kMostOffset &&
               s.seq < kMostOffset && s.ahead <= ring_bytes / kRecordAlign;
    });
}

template <class T>
T load(const std::byte* at) noexcept {
    T value;
    std::memcpy(&value, at, sizeof value);
    return value;
}

// Whether the slot is whole. `touched`: it is not as it was made.
template <class Slot>
bool load_slot(const std::byte* at, std::uint64_t ring_bytes, Slot& slot, bool& touched) {
    slot = load<Slot>(at);
    static constexpr Slot kZero{};
    touched = touched || std::memcmp(&slot, &kZero, sizeof slot) != 0;
    return slot.crc == slot_crc(slot) && plausible(slot, ring_bytes);
}

}  // namespace

void RingImage::Free::operator()(std::byte* bytes) const noexcept { std::free(bytes); }

std::unique_ptr<RingImage> RingImage::read(RunFiles& files, int fd, std::string& reason) {
    reason.clear();
    struct stat info;
    if (files.stat(fd, info) != 0) return nullptr;
    const auto size = static_cast<std::uint64_t>(info.st_size);
    auto image = std::unique_ptr<RingImage>(new RingImage);
    const bool begun =
        size >= kKeyTableOffset && read_all(files, fd, &image->header_, sizeof image->header_, 0);
    if (!begun && size >= kKeyTableOffset && errno != 0) return nullptr;
    if (!begun) {
        reason = "it has " + std::to_string(size) + " bytes, too few for a ring file";
        return nullptr;
    }
    if (!image->check_header(size, reason)) return nullptr;
    image->bytes_.reset(static_cast<std::byte*>(std::aligned_alloc(kPageBytes, size)));
    if (image->bytes_ == nullptr) return nullptr;  // with errno
    if (!read_all(files, fd, image->bytes_.get(), size, 0)) {
        if (errno == 0) reason = "it could not be read to the end";
        return nullptr;
    }
    errno = ENOMEM;  // if there is no reason
    if (!image->choose_slot(reason) || !image->check_keys(reason)) return nullptr;
    image->choose_home();
    image->trust_tail(true);
    return image;
}

// Reads only the header and the control page.
bool RingImage::read_control(RunFiles& files, int fd) {
    bytes_.reset(static_cast<std::byte*>(std::aligned_alloc(kPageBytes, kKeyTableOffset)));
    struct stat info;
    std::string reason;
    if (fd < 0 || bytes_ == nullptr || files.stat(fd, info) != 0 ||
        !read_all(files, fd, bytes_.get(), kKeyTableOffset, 0)) {
        return false;
    }
    std::memcpy(&header_, bytes_.get(), sizeof header_);
    if (!check_header(static_cast<std::uint64_t>(info.st_size), reason)) return false;
    choose_home();
    return true;
}

std::unique_ptr<RingImage> RingImage::look(RunFiles& files, int fd) {
    auto image = std::unique_ptr<RingImage>(new RingImage);
    if (!image->read_control(files, fd)) return nullptr;
    return image;
}

std::unique_ptr<RingImage> RingImage::look_at_commit(RunFiles& files, int fd) {
    constexpr int kLooks = 100;  // at any instant, one of the two slots is complete
    auto image = std::unique_ptr<RingImage>(new RingImage);
    for (int look = 0; look < kLooks; ++look) {
        std::string reason;
        if (!image->read_control(files, fd)) return nullptr;
        if (image->choose_slot(reason)) return image;
    }
    return nullptr;
}

bool RingImage::has_recovery_mark() const noexcept {
    return load<std::uint64_t>(bytes_.get() + kRecoveryMarkOffset) != 0;
}

bool RingImage::read_label(RunFiles& files, int fd, const std::string& stamp, std::string& label) {
    RingImage image;
    if (!image.read_control(files, fd)) return false;
    label = image.home_.label;
    return stamp == image.header_.stamp;
}

// The first commit is made before the recorder is returned to its user, after the pointer to the ring. After
// a power loss a used one may look the same.
bool RingImage::is_unused(RunFiles& files, int fd, std::string_view uuid) {
    RingImage image;
    std::string reason;
    return image.read_control(files, fd) && image.header_.version >= kFirstVersionWithNotes &&
           boot_id() == image.header_.boot_id && image.choose_slot(reason) &&
           image.slot_.epoch == 0 && image.home_.epoch == 0 && image.tail() == 0 &&
           uuid == std::string_view(image.header_.uuid, uuid.size());
}

bool RingImage::check_header(std::uint64_t file_bytes, std::string& reason) const {
    const RingFileHeader& h = header_;
    if (std::memcmp(h.magic, kRingMagic, sizeof kRingMagic) != 0) {
        reason = "it does not start like a ring file";
    } else if (h.version > kRingVersion) {
        reason = kNewerVersion;  // the rest of its layout is unknown, including its checksum
    } else if (h.crc != header_crc(h)) {
        reason = "its header is damaged (checksum)";
    } else if (h.ring_bytes < kLeastRingBytes || h.ring_bytes > kMostRingBytes ||
               (h.ring_bytes & (h.ring_bytes - 1)) != 0 || h.key_table_bytes < 64 ||
               h.key_table_bytes > kMostKeyTableBytes || h.key_table_bytes % kPageBytes != 0 ||
               file_bytes % kPageBytes != 0 ||
               h.file_bytes != kKeyTableOffset + h.key_table_bytes + h.ring_bytes ||
               h.file_bytes != file_bytes) {
        reason = "its sizes are inconsistent";
    } else if (!is_name(h.label, kLabelLetters) || !is_name(h.stamp, "_0123456789-") ||
               ::strnlen(h.boot_id, 40) == 40 || h.segment_bytes == 0) {
        reason = "its label is not one that a recorder writes";
    }
    return reason.empty();
}

// The newest complete slot. One that was filled but whose epoch was not stored is also valid: its lines are
// in the files, and the head had not moved.
bool RingImage::choose_slot(std::string& reason) {
    bool found = false;
    bool touched = false;
    for (const std::size_t offset : kSlotOffsets) {
        CommitSlot slot;
        if (has(Stream::system)) {
            if (!load_slot(bytes_.get() + offset, header_.ring_bytes, slot, touched)) continue;
        } else {
            OldCommitSlot old;
            if (!load_slot(bytes_.get() + offset, header_.ring_bytes, old, touched)) continue;
            slot = from_old(old);
        }
        if (found && slot.epoch <= slot_.epoch) continue;
        slot_ = slot;
        found = true;
    }
    // No slot at all: its writer died before it could record anything.
    if (found || !touched) return true;
    reason = "both of its commit slots are damaged (checksum)";
    return false;
}

// The newest complete home note, and the file notes made under it.
void RingImage::choose_home() noexcept {
    std::memcpy(home_.label, header_.label, sizeof home_.label);
    home_.run_device = header_.run_device;
    home_.run_inode = header_.run_inode;
    if (header_.version < kFirstVersionWithNotes) return;
    for (const std::size_t offset : kHomeOffsets) {
        const auto note = load<HomeNote>(bytes_.get() + offset);
        if (note.epoch > home_.epoch && note.crc == note_crc(note) &&
            is_name(note.label, kLabelLetters)) {
            home_ = note;
        }
    }
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        for (std::uint32_t n = 0; n < kFileNotes; ++n) {
            const std::size_t offset = file_note_offset(static_cast<Stream>(s), n);
            const auto note = load<FileNote>(bytes_.get() + offset);
            if (note.used == 1 && note.crc == note_crc(note) && note.segment < kMostSegments &&
                note.segment % kFileNotes == n &&
                note.home == static_cast<std::uint32_t>(home_.epoch)) {
                file_notes_[s][n] = note;
            }
        }
    }
}

const FileNote* RingImage::file_note(Stream stream, std::uint32_t segment) const noexcept {
    const FileNote& note = file_notes_[static_cast<std::size_t>(stream)][segment % kFileNotes];
    return note.used == 1 && note.segment == segment ? &note : nullptr;
}

std::vector<std::uint32_t> RingImage::noted_segments(Stream stream) const {
    std::vector<std::uint32_t> segments;
    for (const FileNote& note : file_notes_[static_cast<std::size_t>(stream)]) {
        if (note.used == 1) segments.push_back(note.segment);
    }
    return segments;
}

// With longer keys than a recorder writes, small records would produce lines of unlimited length.
bool RingImage::check_keys(std::string& reason) const {
    try {
        KeyTable::Reader reader(key_table(), header_.key_table_bytes);
        std::vector<std::string_view> keys;
        while (reader.next(keys)) {
            if (std::all_of(keys.begin(), keys.end(), KeyTable::fits)) continue;
            reason = "its key table has a key that is longer than a recorder writes";
            return false;
        }
        return true;
    } catch (const std::bad_alloc&) {
        return false;
    }
}

std::uint64_t RingImage::drops(Stream stream) const noexcept {
    if ((slot_.flags & CommitSlot::kDropsWritten) != 0 || !has(stream)) return 0;
    return load<std::uint64_t>(bytes_.get() + kDropsOffset +
                               static_cast<std::size_t>(stream) * sizeof(std::uint64_t));
}

std::uint64_t RingImage::tail() const noexcept {
    return load<std::uint64_t>(bytes_.get() + kControlOffset + offsetof(RingControl, tail)) &
           ~MpscRing::kClosedBit;
}

void RingImage::trust_tail(bool trusted) noexcept {
    const std::uint64_t tail = this->tail();
    const std::uint64_t most = slot_.position + header_.ring_bytes;
    tail_trusted_ = trusted && tail >= slot_.position && tail <= most;
    end_ = tail_trusted_ ? tail : most;
}

const RecordHeader* RingImage::record_at(std::uint64_t position) const noexcept {
    const std::uint64_t offset = position & (header_.ring_bytes - 1);
    std::byte* data = bytes_.get() + kKeyTableOffset + header_.key_table_bytes;
    RingControl unused{};
    const MpscRing ring(&unused, data, header_.ring_bytes, header_.salt);
    const RecordHeader* record = ring.peek(position);
    if (record == nullptr || record->length > ring.max_payload() ||
        record_size(record->length) > header_.ring_bytes - offset ||
        record_size(record->length) > end_ - position) {
        return nullptr;
    }
    // Records do not overlap, so in a ring of ours they have no more bytes in total than the ring. A ring
    // crafted so that every position has to be checked is not trusted any further.
    if (mismatched_ > 2 * header_.ring_bytes) return nullptr;
    if (record->crc == record_crc(record, position)) return record;
    mismatched_ += record_size(record->length);
    return nullptr;
}

const RecordHeader* RingImage::next(std::uint64_t& position, std::uint64_t& holes,
                                    std::uint64_t& hole_bytes) const noexcept {
    std::uint64_t at = position;
    std::uint64_t hole = 0;
    while (end_ - at >= kRecordAlign && at < end_) {
        const RecordHeader* record = record_at(at);
        if (record == nullptr) {
            at += kRecordAlign;
            hole += kRecordAlign;
            continue;
        }
        if (hole != 0) {
            ++holes;
            hole_bytes += hole;
            hole = 0;
        }
        if (record->kind != RecordKind::pad) {
            position = at;
            return record;
        }
        at = MpscRing::after(at, *record);
    }
    // After the last record: unfinished claims, if the tail includes any.
    if (tail_trusted_) {
        if (hole != 0) {
            ++holes;
            hole_bytes += hole;
        }
        position = end_;
    } else {
        position = at - hole;
    }
    return nullptr;
}

}  // namespace fastlog
