// From records to files, one batch at a time: fill, write, sync, commit. Used by the flush thread on a live
// ring and by recovery on a dead one; owned by one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "core/device_values.hpp"
#include "core/line_renderer.hpp"
#include "core/ring_layout.hpp"
#include "core/stream_files.hpp"

namespace fastlog {

/// When written bytes are synced to the disk. What each promises: docs/reliability.md.
enum class Fsync : std::uint8_t { none, interval, every_flush };

/// Where records come from, and where progress is stored.
class RecordSource {
  public:
    virtual ~RecordSource() = default;
    /// The next record at or after `position`, which moves past what is not a record; null if there is none
    /// (yet).
    virtual const RecordHeader* next(std::uint64_t& position) = 0;
    /// False if the line with this number is already in its file.
    virtual bool wanted(Stream stream, std::uint64_t seq) {
        (void)stream;
        (void)seq;
        return true;
    }
    /// Stores that everything before `slot.position` is in the files, and of each stream everything before
    /// its own position. The caller fills all of `slot` except epoch and crc.
    virtual SinkError commit(CommitSlot& slot) = 0;
    /// What delivers the values of records with tickets; null for the ring of a dead process.
    virtual DeviceValues* device() { return nullptr; }
    /// True when the record at `position`, made at `made_ns`, must not wait for its values any longer.
    virtual bool must_settle(std::uint64_t position, std::int64_t made_ns, MissingReason& why) {
        (void)position;
        (void)made_ns;
        (void)why;
        return false;
    }
    /// A metrics record has been rendered; the renderer still knows which of its values were not finite.
    virtual void rendered_metrics(const RecordHeader& record, const LineRenderer& renderer) {
        (void)record;
        (void)renderer;
    }
};

class BatchWriter {
  public:
    enum class Step : std::uint8_t { idle, wrote, refused };
    using Fault = std::function<void(const SinkError&)>;

    static constexpr std::size_t kBatchBytes = std::size_t{256} << 10;

    struct Counters {
        std::uint64_t written[kStreamCount]{};  // records, not counting drop markers
        std::uint64_t bytes[kStreamCount]{};
        std::uint64_t missing = 0;  // device values that are missing in these lines
    };

    /// Begins at `start.position` with the seq numbers of `start`.
    BatchWriter(RecordSource& source, StreamFiles& sink, LineRenderer& renderer,
                const CommitSlot& start, Fsync fsync, Fault fault);

    /// Commits the start, so that a ring found later can be read from its first record.
    void commit_start() { commit(); }
    /// Writes one batch. `refused`: the sink did not accept all of it; the same batch is retried at the next
    /// step.
    Step step();
    /// Allocates the memory for a line of add_drops(), which then needs none.
    void reserve_line(Stream stream);
    /// Adds a line without a record: drops at the end of a stream.
    void add_drops(Stream stream, std::uint64_t dropped, std::uint64_t ticks);
    /// Syncs all committed bytes to the disk, and cuts off what had to be moved for that, now or before;
    /// false if that failed and was reported, or if a batch is waiting to be written.
    bool sync_committed();

    /// Everything before it is rendered.
    std::uint64_t position() const noexcept;
    std::uint64_t first_ticks() const noexcept { return first_ticks_; }
    const Counters& counters() const noexcept { return counters_; }

  private:
    struct Batch {
        std::string bytes[kStreamCount];
        std::size_t written[kStreamCount]{};
        std::uint64_t records[kStreamCount]{};
        std::uint64_t missing = 0;
        std::size_t size = 0;
        void clear() noexcept;
    };

    void fill();
    bool waits(const RecordHeader& record, std::uint64_t position, DeviceValues* device);
    void scanned_to(std::uint64_t position, const bool (&waiting)[kStreamCount]) noexcept;
    void rotate(Stream stream);
    bool write();
    bool write_streams();
    bool is_whole();
    bool write_stream(Stream stream);
    void look_at_file(Stream stream);
    void restart_numbers() noexcept;
    bool sync(Stream stream, bool& moved);
    bool sync_all(bool& moved);
    bool commit();
    bool cut_moved();

    RecordSource& source_;
    StreamFiles& sink_;
    LineRenderer& renderer_;
    const Fsync fsync_;
    const Fault fault_;
    Batch batch_;
    std::string line_;
    std::uint64_t cursors_[kStreamCount];    // all records of the stream before it are rendered
    std::uint64_t committed_[kStreamCount];  // all records of the stream before it are in the files
    std::uint64_t seq_[kStreamCount];
    std::uint64_t committed_seq_[kStreamCount];
    std::uint64_t first_ticks_ = 0;
    bool rotate_[kStreamCount]{};
    bool dirty_ = false;  // written, not committed
    Counters counters_;
};

}  // namespace fastlog
