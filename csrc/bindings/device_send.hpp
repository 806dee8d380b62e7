// From values on devices to tickets: the part of record() that only records with such values take.
#pragma once

#include <Python.h>

#include "bindings/handle.hpp"
#include "bindings/py_encode.hpp"
#include "device/device_pool.hpp"

namespace fastlog::bindings {

/// Puts a payload's values of devices under way and notes in it where they will be. GIL held, and released
/// meanwhile. False
/// with RuntimeError set when a stream is being captured into a graph; then nothing is under way. Other
/// faults of devices make values missing, with the reason. A framework's code may fork meanwhile: then
/// it has to be done again, for the child's recorder.
bool send_device_values(Engine& engine, PayloadBuilder& payload, TicketChain& chain);

/// The record was not accepted: its values arrive for nobody.
void abandon_device_values(Engine& engine, const PayloadBuilder& payload,
                           const TicketChain& chain) noexcept;

/// Drops what kept memory of values whose copies have ended. GIL held; foreign code runs.
void drop_kept() noexcept;

/// The kind of a device of DLPack's type.
DeviceKind kind_of(std::int32_t device_type) noexcept;

/// Sets the RuntimeError of a recording inside a graph capture.
void set_capture_error(const char* what) noexcept;

void bind_device(pybind11::module_& module);

}  // namespace fastlog::bindings
