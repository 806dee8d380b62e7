// A timer, and the blocks of a PerformanceLogger, which are timers that also tell their logger.
#pragma once

#include <Python.h>

#include <atomic>
#include <cstdint>

namespace fastlog::bindings {

struct Timer {
    PyObject_HEAD PyObject* recorder;  // owned; null: its blocks are timed in memory only
    PyObject* name;                    // owned str
    PyObject* device;                  // owned; null: the block is not timed on a device
    std::int64_t step;
    bool has_step;
    std::atomic<std::uint32_t> open;  // blocks that have it as their original, and have not ended
    // Of a PerformanceLogger's block; null and zero for others.
    PyObject* owner;  // owned BlockTimer
    PyObject* level;  // owned int
    double elapsed;
};

/// Makes a block of a logger; `recorder`, `step` and `device` may be null. `begin`: the ticks when the call
/// began. Null with an error set.
PyObject* make_block(PyObject* owner, PyObject* recorder, PyObject* name, PyObject* level,
                     PyObject* step, PyObject* device, std::uint64_t begin) noexcept;

/// Notes the duration of a logger's block that has ended. False with an error set. Python code may run.
bool note_duration(const Timer& block, double seconds) noexcept;
/// Tells the logger that a block has ended, if it might say so. Likewise.
bool tell_block(const Timer& block, double seconds, PyObject* error_type) noexcept;

}  // namespace fastlog::bindings
