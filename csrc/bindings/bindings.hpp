// What the binding files show each other.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>

#include "core/record.hpp"
#include "core/thread_slots.hpp"

namespace fastlog::bindings {

class RecorderHandle;

/// Submits one record with counting, waiting and dropping by the recorder's policy. GIL held.
/// 1: accepted; 0: dropped; -1: closed, with the Python error set.
int submit_counted(RecorderHandle& handle, CallKind call, RecordKind kind, Stream stream,
                   std::uint64_t ticks, const void* payload, std::size_t length) noexcept;

void add_hot_methods(PyObject* recorder_type);                        // bind_record.cpp
void bind_recorder(pybind11::module_& module);                        // bind_recorder.cpp
void bind_timer(pybind11::module_& module, PyObject* recorder_type);  // bind_timer.cpp

}  // namespace fastlog::bindings
