#include "core/written_lines.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <vector>

namespace fastlog {

namespace {
constexpr std::size_t kLongestLine = std::size_t{64} << 20;  // no ring renders a longer one
}

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
    constexpr std::string_view kOpen = "{\"timestamp\":\"";
    constexpr std::string_view kSeq = "\",\"seq\":";
    constexpr std::size_t kTimestamp = 27;  // 2026-01-30T14:32:15.123456Z
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

SinkError scan_lines(const std::string& path, SeqSet& seqs, std::uint64_t& end_of_last_line,
                     std::uint64_t& size, bool& exists) {
    end_of_last_line = size = 0;
    exists = false;
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
    exists = true;
    std::string line;  // the beginning of a line that the last block ended in
    std::vector<char> block(std::size_t{1} << 20);
    for (;;) {
        const ssize_t n = ::pread(fd, block.data(), block.size(), static_cast<off_t>(size));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            const int code = errno;
            ::close(fd);
            return {code, "read " + path};
        }
        if (n == 0) break;
        std::string_view rest(block.data(), static_cast<std::size_t>(n));
        while (!rest.empty()) {
            const std::size_t newline = rest.find('\n');
            const std::string_view part = rest.substr(0, newline);
            if (line.size() + part.size() <= kLongestLine) line.append(part);
            if (newline == std::string_view::npos) {
                size += rest.size();
                break;
            }
            size += newline + 1;
            rest.remove_prefix(newline + 1);
            std::uint64_t seq = 0;
            if (parse_line(line, seq)) {
                seqs.add(seq);
                end_of_last_line = size;
            }
            line.clear();
        }
    }
    ::close(fd);
    return {};
}

}  // namespace fastlog
