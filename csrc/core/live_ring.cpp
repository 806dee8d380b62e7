#include "core/live_ring.hpp"

#include "core/kill_point.hpp"

namespace fastlog {

const RecordHeader* LiveRing::next(std::uint64_t& position) {
    for (;;) {
        const RecordHeader* record = ring_.peek(position);
        if (record == nullptr || record->kind != RecordKind::pad) return record;
        position = MpscRing::after(position, *record);
    }
}

SinkError LiveRing::commit(CommitSlot& slot) {
    if (memory_.mapped()) {
        const std::uint64_t epoch = memory_.epoch()->load(std::memory_order_relaxed) + 1;
        slot.epoch = epoch;
        slot.crc = slot_crc(slot);
        KILL_POINT("slot_begun");
        *memory_.slot(epoch) = slot;
        KILL_POINT("slot_filled");
        memory_.epoch()->store(epoch, std::memory_order_release);
        KILL_POINT("epoch_stored");
    }
    committed(slot);
    ring_.release_to(slot.position);
    released();
    return {};
}

}  // namespace fastlog
