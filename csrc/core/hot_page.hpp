// What every call of a recorder touches, on one page.
//
// With cold caches a line costs a look into memory, but a page that the processor has no translation for costs
// several of them, one after another. So what a call needs lies together, whatever it belongs to.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/attention_bits.hpp"
#include "core/call_counters.hpp"
#include "core/hot_line.hpp"
#include "core/mpsc_ring.hpp"

namespace fastlog {

class Recorder;

inline constexpr std::size_t kPage = 4096;

/// Of one recorder. Threads that have a slot in it keep it alive.
struct alignas(kPage) HotPage {
    static constexpr std::size_t kNearSlots = 4;

    // One cache line.
    MpscRing ring;
    AttentionBits attention;
    std::uint64_t counters_id = 0;  // of the recorder's CallCounters
    Recorder* core = nullptr;
    // A copy, as it was when the recorder was opened.
    const HotLine facts = hot_line;
    // For the first threads.
    ThreadSlot slots[kNearSlots];

    HotPage() = default;
    HotPage(const HotPage&) = delete;
    HotPage& operator=(const HotPage&) = delete;

    /// True in a child of the process that opened the recorder.
    bool inherited() const noexcept { return (attention.bits() & AttentionBits::kForked) != 0; }
    /// The calling thread's slot: one comparison with what the thread keeps.
    [[gnu::always_inline]] ThreadSlot& slot() noexcept {
        const ThreadLine& own = this_thread(facts);
        if (own.slot_owner == counters_id) [[likely]]
            return *own.slot;
        return find_slot();
    }

  private:
    [[gnu::cold]] ThreadSlot& find_slot() noexcept;
};

}  // namespace fastlog
