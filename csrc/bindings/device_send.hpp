// From device values to tickets: the part of record() that only records with such values use.
#pragma once

#include <Python.h>

#include "bindings/handle.hpp"
#include "bindings/py_encode.hpp"
#include "device/device_pool.hpp"

namespace fastlog::bindings {

/// Starts the copies of a payload's device values and stores in the payload where they will arrive. GIL held,
/// and released in between. False with RuntimeError set when a stream is being captured into a graph; then
/// nothing has been sent. Other device errors make values missing, with the reason. A framework's code may
/// fork in between: then this has to be repeated, for the child's recorder.
bool send_device_values(Engine& engine, PayloadBuilder& payload, TicketChain& chain);

/// The record was not accepted: nobody waits for its values.
void abandon_device_values(Engine& engine, const PayloadBuilder& payload,
                           const TicketChain& chain) noexcept;

/// Releases what kept memory alive for values whose copies have completed. GIL held; other code runs.
void drop_kept() noexcept;

/// The kind of a device of a DLPack type.
DeviceKind kind_of(std::int32_t device_type) noexcept;

/// Sets the RuntimeError for recording during a graph capture.
void set_capture_error(const char* what) noexcept;

void bind_device(pybind11::module_& module);

}  // namespace fastlog::bindings
