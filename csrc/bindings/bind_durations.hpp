// The durations of the blocks of one name, kept by PerformanceLogger as objects of _core.Durations.
#pragma once

#include <Python.h>

namespace fastlog::bindings {

bool is_durations(PyObject* object) noexcept;

/// Adds finite seconds to an object that is_durations(); runs no Python code. False with MemoryError set.
bool add_duration(PyObject* durations, double seconds) noexcept;

}  // namespace fastlog::bindings
