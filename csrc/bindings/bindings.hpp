// Declarations shared by the binding files.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>

#include "core/call_counters.hpp"
#include "core/record.hpp"

namespace fastlog::bindings {

/// Adds record(), record_dict(), log() and timer() to a class: RecorderCore or a subclass. A subclass that
/// has its own descriptors skips the inheritance check at every call.
void add_hot_methods(PyObject* recorder_type);

void add_record_methods(PyObject* recorder_type);  // bind_record.cpp
void add_timer_method(PyObject* recorder_type);    // bind_timer.cpp

/// log() for `MetricsLogger`, whose call began at `ticks`: a wrong epoch, which is an argument there, is a
/// TypeError.
PyObject* record_step(PyObject* recorder, std::uint64_t ticks, PyObject* step, PyObject* epoch,
                      PyObject* metrics) noexcept;

void bind_blocks(pybind11::module_& module);     // bind_blocks.cpp
void bind_durations(pybind11::module_& module);  // bind_durations.cpp
void bind_recorder(pybind11::module_& module);   // bind_recorder.cpp
void bind_recovery(pybind11::module_& module);   // bind_recovery.cpp
void bind_pyramid(pybind11::module_& module);    // bind_pyramid.cpp
void bind_reader(pybind11::module_& module);     // bind_reader.cpp
void bind_spans(pybind11::module_& module);      // bind_recorder.cpp
void bind_steps(pybind11::module_& module);      // bind_steps.cpp
void bind_sums(pybind11::module_& module);       // bind_sums.cpp
void bind_timer(pybind11::module_& module);      // bind_timer.cpp

}  // namespace fastlog::bindings
