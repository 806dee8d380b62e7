#include "reader/chunk_reader.hpp"

#include <algorithm>
#include <cstring>

namespace fastlog::reader {
namespace {

/// Lines after which the size of the columns is foretold.
constexpr std::int64_t kSample = 64;

}  // namespace

ChunkReader::ChunkReader(std::size_t window, std::uint64_t longest)
    : window_(window), longest_(longest) {}

void ChunkReader::read(const SegmentFile& file, std::uint64_t begin, std::uint64_t end,
                       Stream stream, const Options& options, Chunk& chunk) {
    LineParser parser(stream, options, chunk);
    at_ = filled_ = 0;
    offset_ = begin == 0 ? 0 : begin - 1;
    if (begin != 0 && !skip_to_line(file, end, chunk)) return;
    bool sized = false;
    while (offset_ + at_ < end) {
        const auto* newline = static_cast<const char*>(
            filled_ == at_ ? nullptr : std::memchr(buffer_.data() + at_, '\n', filled_ - at_));
        if (newline == nullptr) {
            if (filled_ - at_ > longest_) {
                if (!skip_long_line(file, chunk)) return;
            } else if (!fill(file, chunk)) {
                return;
            }
            continue;
        }
        // Up to the last newline of what was read: none of these lines ends outside.
        const char* last = buffer_.data() + filled_ - 1;
        while (*last != '\n') --last;
        const char* p = buffer_.data() + at_;
        const char* const limit =
            buffer_.data() +
            std::min<std::uint64_t>(end - offset_, static_cast<std::uint64_t>(filled_));
        while (p <= last && p < limit) {
            const char* next = parser.parse(p);
            if (next == nullptr) {
                next = static_cast<const char*>(
                    std::memchr(p, '\n', static_cast<std::size_t>(last - p) + 1));
                at_ = static_cast<std::size_t>(p - buffer_.data());
                damaged(chunk, static_cast<std::size_t>(next - p));
            }
            p = next + 1;
            ++chunk.lines;
            if (chunk.lines == kSample && !sized && !options.only_count) {
                sized = true;
                const auto bytes = static_cast<std::uint64_t>(p - buffer_.data()) + offset_ - begin;
                if (bytes != 0 && end > begin && end != kUnknownSize) {
                    const std::uint64_t rows = chunk.rows() * ((end - begin) / bytes + 1);
                    parser.reserve(static_cast<std::size_t>(rows + rows / 16 + 16));
                }
            }
        }
        at_ = static_cast<std::size_t>(p - buffer_.data());
    }
}

bool ChunkReader::fill(const SegmentFile& file, Chunk& chunk) {
    const std::size_t rest = filled_ - at_;
    if (rest != 0) std::memmove(buffer_.data(), buffer_.data() + at_, rest);
    offset_ += at_;
    at_ = 0;
    filled_ = rest;
    // Of a short file no more than there is, and a byte to see its end.
    const std::uint64_t at = offset_ + rest;
    const std::uint64_t left = file.size() > at ? file.size() - at : 0;
    const std::uint64_t most = std::max(window_, rest);
    const auto more = static_cast<std::size_t>(left < most ? left + 1 : most);
    buffer_.resize(rest + more + kPadding);
    std::size_t taken = 0;
    chunk.error = file.read(offset_ + rest, buffer_.data() + rest, more, taken);
    if (chunk.error != 0) return false;
    filled_ += taken;
    std::memset(buffer_.data() + filled_, 0, kPadding);
    if (taken == 0) chunk.tail = rest;
    return taken != 0;
}

bool ChunkReader::skip_to_line(const SegmentFile& file, std::uint64_t end, Chunk& chunk) {
    while (offset_ + at_ < end) {
        if (!fill(file, chunk)) {
            chunk.tail = 0;  // it is of the line that began before
            return false;
        }
        if (const auto* newline =
                static_cast<const char*>(std::memchr(buffer_.data(), '\n', filled_))) {
            at_ = static_cast<std::size_t>(newline - buffer_.data()) + 1;
            return true;
        }
        at_ = filled_;
    }
    return false;
}

bool ChunkReader::skip_long_line(const SegmentFile& file, Chunk& chunk) {
    const std::uint64_t begin = offset_ + at_;
    for (;;) {
        at_ = filled_;
        if (!fill(file, chunk)) {
            if (chunk.error == 0) chunk.tail = offset_ + filled_ - begin;
            return false;
        }
        if (const auto* newline =
                static_cast<const char*>(std::memchr(buffer_.data(), '\n', filled_))) {
            const auto size = static_cast<std::uint64_t>(newline - buffer_.data());
            chunk.damages.push_back({chunk.lines, begin, offset_ + size - begin});
            ++chunk.lines;
            at_ = static_cast<std::size_t>(size) + 1;
            return true;
        }
    }
}

void ChunkReader::damaged(Chunk& chunk, std::size_t size) const {
    chunk.damages.push_back({chunk.lines, offset_ + at_, size});
}

}  // namespace fastlog::reader
