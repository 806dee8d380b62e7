// A file as it would be after changes that are not made: ranges of the real file, followed by new bytes.
#pragma once

#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/run_files.hpp"

namespace fastlog {

/// The start and end offset of a part of a file.
struct FileRange {
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
};

/// A file as it would be. Empty and not removed: an empty file.
struct FileEdit {
    std::vector<FileRange> kept;  // of the real file, in order
    std::string_view pending;     // what follows
    bool removed = false;
};
/// By name, of a run's directory.
using FileEdits = std::map<std::string, FileEdit>;

/// Like the system's, functions return -1 with errno.
class ShadowFile {
  public:
    /// `id` is its own; `source` is that of the real file, if there is one.
    ShadowFile(std::string path, FileId id, FileId source, mode_t mode);

    std::uint64_t size() const noexcept { return kept_bytes_ + pending_.size(); }
    const std::string& path() const noexcept { return path_; }
    FileId id() const noexcept { return id_; }
    /// The real file that the ranges refer to.
    FileId source_id() const noexcept { return source_id_; }
    /// That file, while this one is open; otherwise -1.
    int source() const noexcept { return source_ == nullptr ? -1 : source_->get(); }
    void set_source(Descriptor&& real);
    void drop_source() noexcept { source_.reset(); }
    std::size_t ranges() const noexcept { return kept_.size(); }
    FileEdit edit() const { return {kept_, pending_, false}; }

    /// Adds a range, or bytes, at the end.
    void keep(FileRange range);
    void put(std::string_view bytes) { pending_.append(bytes); }

    ssize_t read(RunFiles& disk, void* into, std::size_t size, std::uint64_t offset) const noexcept;
    /// Writes after the ranges, up to its end.
    ssize_t write(const void* bytes, std::size_t size, std::uint64_t offset);
    int cut(std::uint64_t new_size) noexcept;
    /// Adds a range of another file, which must refer to the same real file.
    int append(const ShadowFile& from, std::uint64_t begin, std::uint64_t size);
    int stat(RunFiles& disk, struct stat& info) const noexcept;

    void rename(std::string path);

    mode_t mode;
    std::size_t opens = 0;
    bool changed = false;
    bool stays = false;  // it was changed before
    bool unlinked = false;

  private:
    void cut_kept(std::uint64_t new_size) noexcept;
    FileRange part(std::uint64_t offset) const noexcept;

    std::string path_;  // under which it was found or created
    FileId id_;
    FileId source_id_;
    std::shared_ptr<Descriptor> source_;
    std::vector<FileRange> kept_;
    std::vector<std::uint64_t> starts_;  // where each range begins here
    std::uint64_t kept_bytes_ = 0;
    std::string pending_;
};

}  // namespace fastlog
