// The records of a ring that is still being filled by its process, and the order of commits.
//
// Recovery relies on this order: the slot that is not current is filled, then the epoch makes it current,
// then the head moves. Only then may producers reuse the bytes.
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
    /// Called once it is committed that all records before are in the files; the bytes are not released yet.
    virtual void committed(const CommitSlot& slot) noexcept { (void)slot; }
    /// The head has moved.
    virtual void released() noexcept {}

    MpscRing& ring_;
    RingMemory& memory_;
};

}  // namespace fastlog
