#include "core/written_lines.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

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

void SeqSet::add(std::uint64_t seq) {
    auto next = ends_.upper_bound(seq);
    if (next != ends_.begin()) {
        auto before = std::prev(next);
        if (seq < before->second) return;
        if (seq == before->second) {
            ++before->second;
            if (next != ends_.end() && next->first == before->second) {
                before->second = next->second;
                ends_.erase(next);
            }
            return;
        }
    }
    if (next != ends_.end() && next->first == seq + 1) {
        const std::uint64_t end = next->second;
        ends_.erase(next);
        ends_.emplace(seq, end);
        return;
    }
    ends_.emplace(seq, seq + 1);
}

bool SeqSet::contains(std::uint64_t seq) const {
    auto next = ends_.upper_bound(seq);
    return next != ends_.begin() && seq < std::prev(next)->second;
}

bool parse_line(std::string_view line, std::uint64_t& seq) {
    if (line.size() < kOpen.size() + kTimestamp + kSeq.size() + 2 || !line.starts_with(kOpen) ||
        line.substr(kOpen.size() + kTimestamp, kSeq.size()) != kSeq || line.back() != '}') {
        return false;
    }
    // Our writer escapes control characters: a NUL is a page that never reached the disk.
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
    head.ours = head.numbered || at == end;  // torn within the number
    return head;
}

namespace {

struct Found {
    bool exists = false;
    mode_t mode = 0;  // without what a file from elsewhere might have: set-user-ID, all may write
    std::uint64_t size = 0;
    std::uint64_t end = 0;      // behind the last line that stays
    std::uint64_t damaged = 0;  // bytes before that which do not
};

// Not ours, but a line that somebody may have added: nothing to do with a power loss.
bool may_stay(std::string_view line) {
    return line.size() >= 2 && line.front() == '{' && line.back() == '}' &&
           std::none_of(line.begin(), line.end(),
                        [](char c) { return static_cast<unsigned char>(c) < 0x20; });
}

SinkError write_line(int fd, std::string& line, const std::string& path) {
    line.push_back('\n');
    std::string_view rest = line;
    while (!rest.empty()) {
        const ssize_t n = ::write(fd, rest.data(), rest.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return {errno, "write " + path};
        rest.remove_prefix(static_cast<std::size_t>(n));
    }
    return {};
}

// Reads one file. With `out`, writes there what stays.
SinkError scan_lines(const std::string& path, SeqSet& seqs, Found& found, int out,
                     const std::string& out_path) {
    found = {};
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
        if (errno == ENOENT) return {};
        return {errno, "open " + path};
    }
    struct stat info;
    if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        ::close(fd);
        return {EINVAL, "read " + path + " (no regular file)"};
    }
    found.exists = true;
    found.mode = info.st_mode & kDirectoryMode;
    SinkError error;
    std::string line;  // the beginning of a line that the last block ended in
    std::size_t length = 0;
    std::uint64_t begin = 0;
    std::uint64_t damaged = 0;  // since the last line that stays
    std::vector<char> block(std::size_t{1} << 20);
    while (!error) {
        const ssize_t n = ::pread(fd, block.data(), block.size(), static_cast<off_t>(found.size));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) error = {errno, "read " + path};
        if (n <= 0) break;
        std::string_view rest(block.data(), static_cast<std::size_t>(n));
        while (!rest.empty() && !error) {
            const std::size_t newline = rest.find('\n');
            const std::string_view part = rest.substr(0, newline);
            length += part.size();
            if (length <= kLongestLine) {
                line.append(part);
            } else {
                line.clear();  // no line, however it goes on
            }
            if (newline == std::string_view::npos) {
                found.size += rest.size();
                break;
            }
            found.size += newline + 1;
            rest.remove_prefix(newline + 1);
            std::uint64_t seq = 0;
            const bool ours = parse_line(line, seq);
            if (ours ? !seqs.contains(seq) : may_stay(line)) {
                if (ours) seqs.add(seq);
                found.damaged += std::exchange(damaged, 0);
                found.end = found.size;
                if (out >= 0) error = write_line(out, line, out_path);
            } else {
                damaged += found.size - begin;
            }
            begin = found.size;
            line.clear();
            length = 0;
        }
    }
    ::close(fd);
    return error;
}

SinkError cut(const std::string& path, std::uint64_t size) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return {errno, "open " + path};
    SinkError error;
    if (::ftruncate(fd, static_cast<off_t>(size)) != 0) error = {errno, "cut " + path};
    ::close(fd);
    return error;
}

// Puts a file with the lines that stay in the place of one that has others between them.
SinkError rewrite(const std::string& path, const std::string& scratch, SeqSet& seqs, Found& found) {
    const mode_t mode = found.mode;
    ::unlink(
        scratch.c_str());  // of a recovery that was killed; or anything, which is not written to
    const int out = ::open(scratch.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (out < 0) return {errno, "create " + scratch};
    SinkError error = scan_lines(path, seqs, found, out, scratch);
    if (!error && ::fchmod(out, mode) != 0) error = {errno, "chmod " + scratch};
    if (!error && ::fdatasync(out) != 0) error = {errno, "sync " + scratch};
    ::close(out);
    KILL_POINT("recovery_lines_copied");
    if (!error && ::rename(scratch.c_str(), path.c_str()) != 0) error = {errno, "replace " + path};
    if (error) ::unlink(scratch.c_str());
    KILL_POINT("recovery_lines_replaced");
    return error;
}

// The numbers of a stream's segments, in order. They may have gaps: a user removed one, or its name
// never reached the disk.
std::vector<std::uint32_t> segments_of(const FileSink& sink, Stream stream, SinkError& error) {
    constexpr std::string_view kEnd = ".jsonl";
    const std::string first = sink.path(stream, 0);
    const std::size_t slash = first.rfind('/');
    const std::string begin = first.substr(slash + 1, first.size() - slash - 1 - kEnd.size());
    std::vector<std::uint32_t> numbers;
    DIR* directory = ::opendir(first.substr(0, slash).c_str());
    if (directory == nullptr) {
        error = {errno, "list " + first.substr(0, slash)};
        return numbers;
    }
    while (const dirent* entry = ::readdir(directory)) {
        const std::string_view name = entry->d_name;
        if (!name.starts_with(begin) || !name.ends_with(kEnd)) continue;
        std::uint32_t number = 0;
        if (name.size() > begin.size() + kEnd.size()) {
            const char* from = name.data() + begin.size() + 1;
            if (std::from_chars(from, name.data() + name.size(), number).ec != std::errc{})
                continue;
        }
        const std::string path = sink.path(stream, number);
        if (number < kMostSegments && path.compare(slash + 1, std::string::npos, name) == 0) {
            numbers.push_back(number);
        }
    }
    ::closedir(directory);
    std::sort(numbers.begin(), numbers.end());
    return numbers;
}

}  // namespace

SinkError remove_begun(const FileSink& sink, Stream stream, const StreamCommit& noted,
                       std::uint64_t& removed_bytes) {
    // A batch begins one segment, or two where the first takes lines whose fsync failed. A few more are
    // looked at; not the whole directory, which may have the files of thousands of dead workers.
    constexpr std::uint32_t kMostBegun = 8;
    for (std::uint32_t n = 1; n <= kMostBegun; ++n) {
        const std::uint32_t segment = noted.segment + n;
        const std::string path = sink.path(stream, segment);
        struct stat info;
        if (::lstat(path.c_str(), &info) != 0) {
            if (errno == ENOENT) continue;
            return {errno, "stat " + path};
        }
        if (!S_ISREG(info.st_mode)) continue;
        const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd < 0) return {errno, "open " + path};
        char bytes[128];
        const ssize_t got = ::pread(fd, bytes, sizeof bytes, 0);
        const int code = errno;
        ::close(fd);
        if (got < 0) return {code, "read " + path};
        const LineHead head = parse_line_head({bytes, static_cast<std::size_t>(got)});
        // Older lines may be in the next segment alone, where a failed fsync had moved them.
        const bool older = head.numbered && head.seq < noted.seq && segment != noted.segment + 1;
        if (!head.ours || older) continue;
        if (::unlink(path.c_str()) != 0) return {errno, "remove " + path};
        removed_bytes += static_cast<std::uint64_t>(info.st_size);
    }
    return {};
}

SinkError take_stock(const FileSink& sink, Stream stream, const std::string& scratch,
                     StreamCommit& at, SeqSet& seqs, std::uint64_t& cut_bytes) {
    SinkError error;
    const std::vector<std::uint32_t> segments = segments_of(sink, stream, error);
    // A stream whose files are all gone begins anew.
    at.has_trim = at.exists = 0;
    at.segment = 0;
    at.offset = 0;
    for (const std::uint32_t segment : segments) {
        const std::string path = sink.path(stream, segment);
        const SeqSet before = seqs;
        Found found;
        if (!error) error = scan_lines(path, seqs, found, -1, {});
        if (error) return error;
        if (!found.exists) continue;
        cut_bytes += found.damaged + (found.size - found.end);
        if (found.damaged != 0) {
            seqs = before;
            const std::uint64_t end = found.end - found.damaged;
            if ((error = rewrite(path, scratch, seqs, found))) return error;
            found.size = found.end = end;
        }
        // The last segment's tail is cut by whoever goes on writing there.
        if (segment != segments.back() && found.size != found.end) {
            if ((error = cut(path, found.end))) return error;
        }
        at.segment = segment;
        at.offset = found.end;
        at.exists = 1;
    }
    return error;
}

}  // namespace fastlog
