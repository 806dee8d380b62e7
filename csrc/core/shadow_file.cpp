#include "core/shadow_file.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <utility>

namespace fastlog {
namespace {

int fail(int code) noexcept {
    errno = code;
    return -1;
}

}  // namespace

ShadowFile::ShadowFile(std::string path, FileId id, FileId source, mode_t its_mode)
    : mode(its_mode), path_(std::move(path)), id_(id), source_id_(source) {}

void ShadowFile::set_source(Descriptor&& real) {
    source_ = std::make_shared<Descriptor>(std::move(real));
}

void ShadowFile::rename(std::string path) {
    path_ = std::move(path);
    changed = true;
}

void ShadowFile::keep(FileRange range) {
    if (range.begin == range.end) return;
    if (!kept_.empty() && kept_.back().end == range.begin) {
        kept_.back().end = range.end;
    } else {
        starts_.push_back(kept_bytes_);
        kept_.push_back(range);
    }
    kept_bytes_ += range.end - range.begin;
}

// The part of the real file at an offset within the ranges, as far as it is contiguous.
FileRange ShadowFile::part(std::uint64_t offset) const noexcept {
    const auto next = std::upper_bound(starts_.begin(), starts_.end(), offset);
    const auto n = static_cast<std::size_t>(std::distance(starts_.begin(), next)) - 1;
    return {kept_[n].begin + (offset - starts_[n]), kept_[n].end};
}

ssize_t ShadowFile::read(RunFiles& disk, void* into, std::size_t size,
                         std::uint64_t offset) const noexcept {
    if (offset >= this->size()) return 0;
    if (offset < kept_bytes_) {
        const FileRange here = part(offset);
        if (source_ == nullptr) return fail(EIO);  // another file has its name now
        return disk.read_at(source(), into, std::min<std::uint64_t>(size, here.end - here.begin),
                            here.begin);
    }
    const std::uint64_t at = offset - kept_bytes_;
    const std::size_t here = std::min<std::uint64_t>(size, pending_.size() - at);
    std::memcpy(into, pending_.data() + at, here);
    return static_cast<ssize_t>(here);
}

ssize_t ShadowFile::write(const void* bytes, std::size_t size, std::uint64_t offset) {
    if (offset < kept_bytes_ || offset > this->size()) return fail(EINVAL);
    pending_.replace(offset - kept_bytes_, size, static_cast<const char*>(bytes), size);
    changed = true;
    return static_cast<ssize_t>(size);
}

void ShadowFile::cut_kept(std::uint64_t new_size) noexcept {
    while (!kept_.empty() && starts_.back() >= new_size) {
        kept_.pop_back();
        starts_.pop_back();
    }
    if (!kept_.empty()) {
        FileRange& last = kept_.back();
        last.end = std::min(last.end, last.begin + (new_size - starts_.back()));
    }
    kept_bytes_ = std::min(kept_bytes_, new_size);
}

int ShadowFile::cut(std::uint64_t new_size) noexcept {
    if (new_size > size()) return fail(EINVAL);
    if (new_size == size()) return 0;
    pending_.resize(new_size - std::min(new_size, kept_bytes_));
    cut_kept(new_size);
    changed = true;
    return 0;
}

int ShadowFile::append(const ShadowFile& from, std::uint64_t begin, std::uint64_t size) {
    if (begin + size > from.size()) return fail(EINVAL);
    if (begin < from.kept_bytes_ && !pending_.empty()) return fail(EINVAL);
    source_ = from.source_;
    source_id_ = from.source_id_;
    changed = true;
    while (size != 0 && begin < from.kept_bytes_) {
        FileRange range = from.part(begin);
        range.end = std::min(range.end, range.begin + size);
        keep(range);
        begin += range.end - range.begin;
        size -= range.end - range.begin;
    }
    if (size != 0) pending_.append(from.pending_, begin - from.kept_bytes_, size);
    return 0;
}

int ShadowFile::stat(RunFiles& disk, struct stat& info) const noexcept {
    info = {};
    info.st_mode = S_IFREG | mode;
    info.st_nlink = 1;
    if (id_ == source_id_ && source_ != nullptr && disk.stat(source(), info) != 0) return -1;
    info.st_dev = static_cast<dev_t>(id_.device);
    info.st_ino = static_cast<ino_t>(id_.inode);
    info.st_size = static_cast<off_t>(size());
    if (unlinked) info.st_nlink = 0;
    return 0;
}

}  // namespace fastlog
