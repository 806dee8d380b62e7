// From records to files, one batch at a time: fill, write, sync, commit. Used by the flush thread on
// a live ring and by recovery on a dead one; owned by one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "core/device_values.hpp"
#include "core/line_renderer.hpp"
#include "core/ring_layout.hpp"
#include "core/stream_files.hpp"

namespace fastlog {

/// When written bytes are forced to the disk. What each promises: docs/reliability.md.
enum class Fsync : std::uint8_t { none, interval, every_flush };

/// Where records come from, and where it is noted how far they are in the files.
class RecordSource {
  public:
    virtual ~RecordSource() = default;
    /// The next record at or behind `position`, which moves past what is no record; null when there
    /// is none (yet).
    virtual const RecordHeader* next(std::uint64_t& position) = 0;
    /// False when the line with this number is in its file already.
    virtual bool wanted(Stream stream, std::uint64_t seq) {
        (void)stream;
        (void)seq;
        return true;
    }
    /// Notes that everything before `slot.position` is in the files, and of each stream everything
    /// before its own position. The caller fills all of `slot` but epoch and crc.
    virtual SinkError commit(CommitSlot& slot) = 0;
    /// Who delivers the values of records with tickets; null for a ring whose process is dead.
    virtual DeviceValues* device() { return nullptr; }
    /// True when the record at `position`, made at `made_ns`, must not wait for its values any longer.
    virtual bool must_settle(std::uint64_t position, std::int64_t made_ns, MissingReason& why) {
        (void)position;
        (void)made_ns;
        (void)why;
        return false;
    }
    /// A metrics record has been rendered; the renderer still knows what in it was not finite.
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
        std::uint64_t written[kStreamCount]{};  // records, drop markers not counted
        std::uint64_t bytes[kStreamCount]{};
        std::uint64_t missing = 0;  // values of devices that these lines lack
    };

    /// Begins at `start.position` with `start`'s seq numbers.
    BatchWriter(RecordSource& source, StreamFiles& sink, LineRenderer& renderer,
                const CommitSlot& start, Fsync fsync, Fault fault);

    /// Commits the beginning, so that a ring found later tells how to read its first records.
    void commit_start() { commit(); }
    /// Writes one batch. `refused`: the sink did not take all of it; the same batch is tried again
    /// at the next step.
    Step step();
    /// Takes the memory for a line of add_drops(), which then needs none.
    void reserve_line(Stream stream);
    /// Adds a line that no record stands for: drops at the end of a stream.
    void add_drops(Stream stream, std::uint64_t dropped, std::uint64_t ticks);
    /// Forces all committed bytes to the disk, and cuts off what it had to move for that, now or before;
    /// false when that failed and was told, or when a batch is waiting to be written.
    bool sync_committed();

    /// Everything before is rendered.
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
    std::uint64_t cursors_[kStreamCount];    // all of the stream's records before are rendered
    std::uint64_t committed_[kStreamCount];  // and these are in the files
    std::uint64_t seq_[kStreamCount];
    std::uint64_t committed_seq_[kStreamCount];
    std::uint64_t first_ticks_ = 0;
    bool rotate_[kStreamCount]{};
    bool dirty_ = false;  // written, not committed
    Counters counters_;
};

}  // namespace fastlog
