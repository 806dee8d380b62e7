// A block's time on a device: holds a ticket from its begin to its record.
#pragma once

#include <Python.h>

#include "bindings/handle.hpp"
#include "device/device_pool.hpp"

namespace fastlog::bindings {

/// How a block is timed on a device: with a ticket, or not, for the reason in `missing`.
struct DeviceBlock {
    bool wanted = false;
    std::uint16_t ticket = kNoTicket;
    DeviceId device{};
    std::uint64_t missing = 0;
    std::uint64_t number = 0;      // identifies it in its ticket's slot among the open blocks
    Engine* counted_by = nullptr;  // the engine whose statistics count the ticket
};

/// Begins a block on the device that `which` names; `wanted` stays false if no device is in use.
/// False with an error set. Python code runs.
bool begin_on_device(RecorderHandle& handle, PyObject* which, DeviceBlock& block);
/// Records its end. From here on no other thread uses the block.
void end_on_device(DeviceBlock& block) noexcept;
/// Returns the ticket of a block that has ended, and stores why it has no time.
void abandon(DeviceBlock& block, MissingReason reason) noexcept;

/// Returns the ticket of a block that never ends, unless that is already done. Needs no GIL.
void drop_block(DeviceBlock& block) noexcept;
/// The same for all blocks of a recorder. They may be blocks of other threads.
void drop_blocks_of_recorder(const RecorderHandle& recorder) noexcept;

}  // namespace fastlog::bindings
