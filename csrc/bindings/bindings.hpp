// What the binding files show each other.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>

#include "core/record.hpp"
#include "core/thread_slots.hpp"

namespace fastlog::bindings {

void add_hot_methods(PyObject* recorder_type);                        // bind_record.cpp
void bind_recorder(pybind11::module_& module);                        // bind_recorder.cpp
void bind_timer(pybind11::module_& module, PyObject* recorder_type);  // bind_timer.cpp

}  // namespace fastlog::bindings
