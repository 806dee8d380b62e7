// A block's time on a device: a ticket from its begin to its record.
#pragma once

#include <Python.h>

#include "bindings/handle.hpp"
#include "device/device_pool.hpp"

namespace fastlog::bindings {

/// How a block is timed on a device: by a ticket, or not, for the reason in `missing`.
struct DeviceBlock {
    bool wanted = false;
    std::uint16_t ticket = kNoTicket;
    DeviceId device{};
    std::uint64_t missing = 0;
    std::uint64_t number = 0;      // of its ticket's place among the open blocks
    Engine* counted_by = nullptr;  // whose statistics have the ticket
};

/// Begins a block of a timer on the device that `which` names; `wanted` stays false without one in use. False
/// with an error set. Python code runs.
bool begin_on_device(RecorderHandle& handle, const void* timer, PyObject* which,
                     DeviceBlock& block);
/// Records its end. From here on the block is nobody else's.
void end_on_device(DeviceBlock& block) noexcept;
/// Gives the ticket of a block that has ended back, and says why it has no time.
void abandon(DeviceBlock& block, MissingReason reason) noexcept;

/// Gives the ticket of a block that never ends back, unless that has been done. Needs no GIL.
void drop_block(DeviceBlock& block) noexcept;
/// The same for the block of a timer that began last, and for all blocks of a timer, or of a recorder. They
/// may be other threads' blocks.
void drop_last_block(const void* timer) noexcept;
void drop_blocks_of_timer(const void* timer) noexcept;
void drop_blocks_of_recorder(const RecorderHandle& recorder) noexcept;

}  // namespace fastlog::bindings
