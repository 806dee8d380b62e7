#include "core/line_inventory.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <utility>
#include <vector>

#include "core/kill_point.hpp"

namespace fastlog {

namespace {
constexpr std::size_t kLongestLine = std::size_t{64} << 20;  // no recorder writes a longer one
constexpr std::string_view kOpen = "{\"timestamp\":\"";
constexpr std::string_view kSeq = "\",\"seq\":";
constexpr std::size_t kTimestamp = 27;  // 2026-01-30T14:32:15.123456Z
}  // namespace

bool parse_line(std::string_view line, std::uint64_t& seq) {
    if (line.size() < kOpen.size() + kTimestamp + kSeq.size() + 2 || !line.starts_with(kOpen) ||
        line.substr(kOpen.size() + kTimestamp, kSeq.size()) != kSeq || line.back() != '}') {
        return false;
    }
    // Our writer escapes control characters: a NUL belongs to a page that never reached the disk.
    if (std::any_of(line.begin(), line.end(),
                    [](char c) { return static_cast<unsigned char>(c) < 0x20; })) {
        return false;
    }
    const char* at = line.data() + kOpen.size() + kTimestamp + kSeq.size();
    const auto [end, error] = std::from_chars(at, line.data() + line.size(), seq);
    return error == std::errc{} && end != at && *end == ',';
}

LineHead parse_line_head(std::string_view bytes) {
    constexpr std::size_t kSeqAt = kOpen.size() + kTimestamp;
    LineHead head;
    head.ours = kOpen.starts_with(bytes.substr(0, kOpen.size()));
    if (!head.ours || bytes.size() <= kSeqAt) return head;
    const std::string_view behind = bytes.substr(kSeqAt);
    head.ours = kSeq.starts_with(behind.substr(0, kSeq.size()));
    if (!head.ours || behind.size() <= kSeq.size()) return head;
    const char* end = behind.data() + behind.size();
    const auto [at, error] = std::from_chars(behind.data() + kSeq.size(), end, head.seq);
    head.numbered = error == std::errc{} && at != end && *at == ',';
    head.ours = head.numbered || at == end;  // torn inside the number
    return head;
}

namespace {

std::string read_head(RunFiles& files, int fd, SinkError& error, const std::string& path) {
    char bytes[128];
    const ssize_t got = files.read_at(fd, bytes, sizeof bytes, 0);
    if (got < 0) error = failed("read", path);
    return std::string(bytes, got < 0 ? 0 : static_cast<std::size_t>(got));
}

struct Scan {
    std::uint64_t size = 0;
    std::uint64_t end = 0;      // after the last line that stays
    std::uint64_t damaged = 0;  // bytes before `end` that do not stay
};

// Reads the files of one stream, one at a time.
class Inventory {
  public:
    Inventory(RunFiles& files, const StreamFiles& sink, Stream stream, const RingImage& ring,
              Provenance provenance, SeqSet& seqs)
        : files_(files),
          sink_(sink),
          stream_(stream),
          ring_(ring),
          provenance_(provenance),
          seqs_(seqs) {}

    /// Opens a segment if it belongs to the writer. Rejects a link, a pipe or another program's file.
    SinkError open(std::uint32_t segment, Descriptor& fd) const {
        fd = Descriptor(files_, files_.open(sink_.directory(), sink_.name(stream_, segment),
                                            O_RDWR | O_NOFOLLOW | O_NONBLOCK));
        if (fd.get() < 0) {
            return is_no_file(errno) ? SinkError{} : failed("open", sink_.path(stream_, segment));
        }
        SinkError error;
        if (!is_ours(segment, fd.get(), error)) fd.reset();
        return error;
    }

    /// Reads from `begin` on. With `out`, appends the lines that stay to it.
    SinkError scan(int fd, const std::string& path, std::uint64_t begin, Scan& found, int out = -1,
                   const std::string& out_path = {}) const;

    /// Replaces a damaged file with one that contains only the lines that stay.
    SinkError rewrite(std::uint32_t segment, Descriptor& fd, const std::string& scratch,
                      Scan& found) const;

    /// Cuts off lines that a failed fsync has moved to a later segment.
    SinkError trim(const StreamCommit& noted, std::uint64_t& cut_bytes) const {
        Descriptor fd;
        struct stat info;
        if (SinkError error = open(noted.trim_segment, fd)) return error;
        if (fd.get() < 0 || files_.stat(fd.get(), info) != 0) return {};
        const auto size = static_cast<std::uint64_t>(info.st_size);
        if (size <= noted.trim_bytes) return {};
        if (files_.cut(fd.get(), noted.trim_bytes) != 0) {
            return failed("cut", sink_.path(stream_, noted.trim_segment));
        }
        cut_bytes += size - noted.trim_bytes;
        return {};
    }

  private:
    bool is_ours(std::uint32_t segment, int fd, SinkError& error) const {
        struct stat info;
        if (files_.stat(fd, info) != 0 || !S_ISREG(info.st_mode)) return false;
        if (ring_.has_notes() && provenance_.own_ring) {
            const FileNote* note = ring_.file_note(stream_, segment);
            const FileId id = id_of(info);
            const bool known = note != nullptr && note->inode == id.inode &&
                               (note->device == id.device || !provenance_.same_boot);
            const bool begun = note != nullptr && note->inode == 0 && info.st_size == 0;
            // A file known by inode must also begin like ours: the inode of a removed file is reused.
            if (!known && !begun && provenance_.same_boot) return false;
        }
        const std::string head = read_head(files_, fd, error, sink_.path(stream_, segment));
        return head.empty() || head[0] == '\0' || parse_line_head(head).ours;
    }

    // Not one of our lines, but one that somebody may have added: a power loss cannot produce it.
    bool may_stay(std::string_view line) const {
        if (!provenance_.power_loss()) return line.find('\0') == line.npos;
        return line.size() >= 2 && line.front() == '{' && line.back() == '}' &&
               std::none_of(line.begin(), line.end(),
                            [](char c) { return static_cast<unsigned char>(c) < 0x20; });
    }

    RunFiles& files_;
    const StreamFiles& sink_;
    const Stream stream_;
    const RingImage& ring_;
    const Provenance provenance_;
    SeqSet& seqs_;
};

SinkError Inventory::scan(int fd, const std::string& path, std::uint64_t begin, Scan& found,
                          int out, const std::string& out_path) const {
    found = {begin, begin, 0};
    std::uint64_t out_size = 0;
    std::uint64_t kept_from = 0;  // start of the data that stays and is not in `out` yet
    std::uint64_t kept_to = 0;
    SinkError error;
    const auto append_kept = [&] {
        if (out >= 0 && kept_from != kept_to &&
            files_.append_range(fd, kept_from, kept_to - kept_from, out, out_size) != 0) {
            error = failed("write", out_path);
        }
        out_size += kept_to - kept_from;
    };
    std::string line;  // the beginning of a line at the end of the last block
    std::size_t length = 0;
    std::uint64_t damaged = 0;  // since the last line that stays
    std::vector<char> block(std::size_t{1} << 20);
    while (!error) {
        const ssize_t n = files_.read_at(fd, block.data(), block.size(), found.size);
        if (n < 0) error = failed("read", path);
        if (n <= 0) break;
        std::string_view rest(block.data(), static_cast<std::size_t>(n));
        while (!rest.empty() && !error) {
            const std::size_t newline = rest.find('\n');
            const std::string_view part = rest.substr(0, newline);
            length += part.size();
            if (length <= kLongestLine) {
                line.append(part);
            } else {
                line.clear();  // not a line, however it continues
            }
            if (newline == std::string_view::npos) {
                found.size += rest.size();
                break;
            }
            found.size += newline + 1;
            rest.remove_prefix(newline + 1);
            std::uint64_t seq = 0;
            const bool ours = length <= kLongestLine && parse_line(line, seq);
            if (ours ? !provenance_.own_ring || !seqs_.contains(seq)
                     : length <= kLongestLine && may_stay(line)) {
                if (ours) seqs_.add(seq);
                found.damaged += std::exchange(damaged, 0);
                found.end = found.size;
                if (begin != kept_to) {
                    append_kept();
                    kept_from = begin;
                }
                kept_to = found.size;
            } else {
                damaged += found.size - begin;
            }
            begin = found.size;
            line.clear();
            length = 0;
        }
    }
    if (!error) append_kept();
    return error;
}

SinkError Inventory::rewrite(std::uint32_t segment, Descriptor& fd, const std::string& scratch,
                             Scan& found) const {
    const std::string path = sink_.path(stream_, segment);
    struct stat info;
    if (files_.stat(fd.get(), info) != 0) return failed("stat", path);
    // Left by a killed recovery, or by anyone; never written to.
    files_.unlink(AT_FDCWD, scratch);
    Descriptor out(files_, files_.open(AT_FDCWD, scratch, O_RDWR | O_CREAT | O_EXCL, 0600));
    if (out.get() < 0) return failed("create", scratch);
    SinkError error = scan(fd.get(), path, 0, found, out.get(), scratch);
    // Without unusual permissions of the original file: set-user-ID, world-writable.
    if (!error && files_.change_mode(out.get(), info.st_mode & kDirectoryMode) != 0) {
        error = failed("chmod", scratch);
    }
    if (!error && files_.sync(out.get()) != 0) error = failed("sync", scratch);
    KILL_POINT("recovery_lines_copied");
    if (!error &&
        files_.rename(AT_FDCWD, scratch, sink_.directory(), sink_.name(stream_, segment)) != 0) {
        error = failed("replace", path);
    }
    if (error) files_.unlink(AT_FDCWD, scratch);
    KILL_POINT("recovery_lines_replaced");
    if (!error) fd = std::move(out);
    return error;
}

// The numbers of a stream's segments, in order. There may be gaps: a user removed a segment, or its name
// never reached the disk.
std::vector<std::uint32_t> segments_of(RunFiles& files, const StreamFiles& sink, Stream stream,
                                       SinkError& error) {
    constexpr std::string_view kEnd = ".jsonl";
    const std::string first = sink.name(stream, 0);
    const std::string begin = first.substr(0, first.size() - kEnd.size());
    std::vector<std::uint32_t> numbers;
    std::vector<std::string> names;
    if (!files.list(sink.directory(), ".", names)) {
        error = failed("list the directory of", sink.path(stream, 0));
        return numbers;
    }
    for (const std::string& name : names) {
        if (!name.starts_with(begin) || !name.ends_with(kEnd)) continue;
        std::uint32_t number = 0;
        if (name.size() > begin.size() + kEnd.size()) {
            const char* from = name.data() + begin.size() + 1;
            if (std::from_chars(from, name.data() + name.size(), number).ec != std::errc{})
                continue;
        }
        if (number < kMostSegments && sink.name(stream, number) == name) numbers.push_back(number);
    }
    std::sort(numbers.begin(), numbers.end());
    return numbers;
}

// The segment in the commit, and the segments started after it.
std::vector<std::uint32_t> last_segments(RunFiles& files, const Inventory& inventory, Stream stream,
                                         const RingImage& ring, const StreamCommit& noted,
                                         SinkError& error) {
    std::vector<std::uint32_t> numbers{noted.segment};
    if (ring.has_notes()) {
        for (const std::uint32_t segment : ring.noted_segments(stream)) {
            if (segment > noted.segment) numbers.push_back(segment);
        }
        std::sort(numbers.begin(), numbers.end());
        return numbers;
    }
    // A batch begins at most two segments: the first may take lines whose fsync failed. A few more are
    // checked, but not the whole directory, which may hold the files of thousands of dead workers.
    for (std::uint32_t n = 1; n <= kFileNotes && !error; ++n) {
        Descriptor fd;
        error = inventory.open(noted.segment + n, fd);
        if (fd.get() < 0) continue;
        // A segment with older lines is a copy of another one. Only in the next segment may they be lines
        // that a failed fsync has moved there.
        const LineHead head = parse_line_head(read_head(files, fd.get(), error, "a segment"));
        if (!head.numbered || head.seq >= noted.seq || n == 1) numbers.push_back(noted.segment + n);
    }
    return numbers;
}

// True if the commit's offset is at the end of a complete line in the file that it refers to. A file that was
// recreated or truncated since begins with a later line.
bool offset_holds(RunFiles& files, int fd, const StreamCommit& noted, SinkError& error,
                  const std::string& path) {
    char before = '\0';
    if (noted.offset == 0 || files.read_at(fd, &before, 1, noted.offset - 1) != 1) {
        return false;
    }
    const LineHead head = parse_line_head(read_head(files, fd, error, path));
    return before == '\n' && head.numbered && head.seq < noted.seq;
}

}  // namespace

SinkError is_outdated(RunFiles& files, const StreamFiles& sink, const RingImage& ring,
                      bool& outdated) {
    outdated = false;
    if (!ring.has_notes()) return {};
    SinkError error;
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        const auto stream = static_cast<Stream>(s);
        const StreamCommit& noted = ring.slot().streams[s];
        for (std::uint32_t n = 1; n <= kFileNotes && !error; ++n) {
            const std::uint32_t segment = noted.segment + n;
            if (ring.file_note(stream, segment) != nullptr) continue;
            const Descriptor fd(files, files.open(sink.directory(), sink.name(stream, segment),
                                                  O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
            struct stat info;
            if (fd.get() < 0 || files.stat(fd.get(), info) != 0 || !S_ISREG(info.st_mode)) continue;
            const std::string path = sink.path(stream, segment);
            const LineHead head = parse_line_head(read_head(files, fd.get(), error, path));
            outdated = outdated || (head.numbered && head.seq >= noted.seq);
        }
    }
    return error;
}

SinkError take_inventory(RunFiles& files, const StreamFiles& sink, Stream stream,
                         const RingImage& ring, const Provenance& provenance,
                         const std::string& scratch, StreamPlace& place, SeqSet& seqs,
                         std::uint64_t& cut_bytes) {
    const StreamCommit& noted = ring.slot().streams[static_cast<std::size_t>(stream)];
    const Inventory inventory(files, sink, stream, ring, provenance, seqs);
    SinkError error;
    const std::vector<std::uint32_t> segments =
        provenance.certain() ? last_segments(files, inventory, stream, ring, noted, error)
                             : segments_of(files, sink, stream, error);
    place = {};
    if (provenance.certain()) {
        place.segment = noted.segment;
        if (!error && noted.has_trim != 0) error = inventory.trim(noted, cut_bytes);
    }
    for (const std::uint32_t segment : segments) {
        Descriptor fd;
        if (!error) error = inventory.open(segment, fd);
        if (error) return error;
        if (fd.get() < 0) continue;
        const std::string path = sink.path(stream, segment);
        std::uint64_t begin = 0;
        if (provenance.certain() && segment == noted.segment &&
            offset_holds(files, fd.get(), noted, error, path)) {
            begin = noted.offset;
        }
        if (provenance.certain() && segment > noted.segment) {
            const LineHead head = parse_line_head(read_head(files, fd.get(), error, path));
            if (head.numbered && head.seq < noted.seq && noted.exists != 0) {
                // Lines that a failed fsync had moved here: they are also in the previous segment.
                struct stat info;
                if (files.stat(fd.get(), info) == 0)
                    cut_bytes += static_cast<std::uint64_t>(info.st_size);
                if (files.unlink(sink.directory(), sink.name(stream, segment)) != 0) {
                    return failed("remove", path);
                }
                continue;
            }
        }
        const SeqSet before = provenance.power_loss() ? seqs : SeqSet{};  // for a second scan
        Scan found;
        if (!error) error = inventory.scan(fd.get(), path, begin, found);
        if (error) return error;
        if (provenance.own_ring || !provenance.rival) cut_bytes += found.size - found.end;
        if (found.damaged != 0 && provenance.power_loss()) {
            cut_bytes += found.damaged;
            seqs = before;
            const std::uint64_t end = found.end - found.damaged;
            if ((error = inventory.rewrite(segment, fd, scratch, found))) return error;
            found.size = found.end = end;
        }
        if (!provenance.own_ring && provenance.rival) continue;
        if (found.size != found.end && files.cut(fd.get(), found.end) != 0) {
            return failed("cut", path);
        }
        place = {segment, found.end, files.id_of(fd.get())};
    }
    if (!provenance.own_ring) {
        place = {segments.empty() ? 0 : std::min(segments.back() + 1, kMostSegments - 1), 0, {}};
    }
    return error;
}

}  // namespace fastlog
