// The records of a ring that its process fills, and the order in which they are committed.
//
// Recovery relies on it: the slot that is not current is filled, then the epoch makes it current, then the
// head moves. Only then may producers use the bytes again.
#pragma once

#include "core/batch_writer.hpp"
#include "core/mpsc_ring.hpp"
#include "core/ring_memory.hpp"

namespace fastlog {

/// Owned by the consumer of the ring, the flush thread.
class LiveRing : public RecordSource {
  public:
    LiveRing(MpscRing& ring, RingMemory& memory) : ring_(ring), memory_(memory) {}
    const RecordHeader* next(std::uint64_t& position) override;
    SinkError commit(CommitSlot& slot) final;

  protected:
    /// It is noted that all before is in the files; the bytes are not given back yet.
    virtual void committed(const CommitSlot& slot) noexcept { (void)slot; }
    /// The head has moved.
    virtual void released() noexcept {}

    MpscRing& ring_;
    RingMemory& memory_;
};

}  // namespace fastlog
