// BlockTimer, the native half of PerformanceLogger: time_block().
#include <Python.h>

#include <algorithm>
#include <array>
#include <cstddef>

#include "bindings/bind_durations.hpp"
#include "bindings/bindings.hpp"
#include "bindings/gil.hpp"
#include "bindings/handle.hpp"
#include "bindings/items.hpp"
#include "bindings/owned_members.hpp"
#include "bindings/signature.hpp"
#include "bindings/timer.hpp"

namespace fastlog::bindings {
namespace {

struct EndedBlock {
    PyObject* name;  // owned
    double seconds;
};

struct BlockTimer {
    PyObject_HEAD PyObject* recorder;  // owned; null: none
    PyObject* series;                  // owned dict: Durations by name; null: not opened
    PyObject* enabled;                 // owned dict: whether levels are enabled, as far as known
    PyObject* untimed;                 // owned; null: blocks are timed
    // Blocks that have ended and are not in `series` yet, in their order. A step that finds its caches cold writes
    // a line or two here, instead of looking for the durations of each name. They stay here until they are added:
    // whoever looks adds them, whatever another thread is at.
    static constexpr std::size_t kMaxEnded = 64;
    std::size_t ended_count;
    EndedBlock ended[kMaxEnded];
    // Owned: the Durations of each, while they are looked for; otherwise null, as after the last one.
    PyObject* found[kMaxEnded];
#ifdef Py_GIL_DISABLED
    PyMutex mutex;
#endif
};

PyObject* debug_level = nullptr;
PyObject* ended_name = nullptr;
PyObject* new_series_name = nullptr;

constinit const Signature<4> kTimeBlock{
    "time_block() takes the arguments (block_name, log_level=DEBUG, *, step=None, device=None)",
    {"block_name", "log_level", "step", "device"},
    1,
    2};

BlockTimer* block_timer_of(PyObject* object) noexcept {
    return reinterpret_cast<BlockTimer*>(object);
}

std::array<PyObject**, 4> block_timer_members(PyObject* self) noexcept {
    BlockTimer* const timer = block_timer_of(self);
    return {&timer->recorder, &timer->series, &timer->enabled, &timer->untimed};
}

// _open(recorder, series, enabled, untimed): the first and the last may be None.
PyObject* open_timer(PyObject* self, PyObject* args) {
    std::array<PyObject*, 4> given{};
    if (!PyArg_UnpackTuple(args, "_open", 4, 4, &given[0], &given[1], &given[2], &given[3])) {
        return nullptr;
    }
    const auto members = block_timer_members(self);
    for (std::size_t i = 0; i < members.size(); ++i) {
        Py_XSETREF(*members[i], given[i] != Py_None ? Py_NewRef(given[i]) : nullptr);
    }
    Py_RETURN_NONE;
}

[[gnu::hot]] PyObject* time_block(PyObject* self, PyObject* const* args, Py_ssize_t nargs,
                                  PyObject* names) {
    const std::uint64_t begin = span_ticks();
    std::array<PyObject*, 4> given;
    if (!kTimeBlock.parse(args, nargs, names, given)) return nullptr;
    const auto& [name, level, step, device] = given;
    const BlockTimer* const timer = block_timer_of(self);
    if (!PyUnicode_Check(name)) {
        PyErr_Format(PyExc_TypeError, "block_name must be a str, got %s", Py_TYPE(name)->tp_name);
        return nullptr;
    }
    if (timer->series == nullptr) {
        PyErr_SetString(PyExc_RuntimeError,
                        "PerformanceLogger.__init__() has not run; a subclass has to call it");
        return nullptr;
    }
    if (timer->untimed != nullptr) return Py_NewRef(timer->untimed);
    return make_block(self, timer->recorder, name, level != nullptr ? level : debug_level, step,
                      device, begin);
}

// The durations of a name; owned, null with an error set. Python code may run.
PyObject* series_of(PyObject* self, PyObject* name) noexcept {
    PyObject* found = dict_item(block_timer_of(self)->series, name);
    if (found != nullptr || PyErr_Occurred()) return found;
    found = PyObject_CallMethodOneArg(self, new_series_name, name);
    if (found != nullptr && !is_durations(found)) {
        PyErr_SetString(PyExc_TypeError, "_new_series() must return Durations");
        Py_CLEAR(found);
    }
    return found;
}

// Keeps an entry, with a reference; false without room.
bool append(BlockTimer& timer, const EndedBlock& entry) noexcept {
    const ObjectLocked locked(timer);
    if (timer.ended_count == BlockTimer::kMaxEnded) [[unlikely]]
        return false;
    Py_INCREF(entry.name);
    timer.ended[timer.ended_count++] = entry;
    return true;
}

// Takes an entry that is still the same out. With the lock.
bool take_out(BlockTimer& timer, std::size_t at, const EndedBlock& expected) noexcept {
    if (at >= timer.ended_count || timer.ended[at].name != expected.name ||
        timer.ended[at].seconds != expected.seconds || timer.found[at] != nullptr) {
        return false;
    }
    std::copy(timer.ended + at + 1, timer.ended + timer.ended_count, timer.ended + at);
    std::copy(timer.found + at + 1, timer.found + timer.ended_count, timer.found + at);
    timer.found[--timer.ended_count] = nullptr;
    return true;
}

// If the durations of all are found, adds them, empties the array and returns true; MemoryError may be set then.
// Otherwise `at` is the first one to look for, and `entry` a copy of it, with a reference.
bool add_all(BlockTimer& timer, std::size_t& at, EndedBlock& entry) noexcept {
    const ObjectLocked locked(timer);  // no Python code runs here
    at = 0;
    while (at < timer.ended_count && timer.found[at] != nullptr) ++at;
    if (at < timer.ended_count) {
        entry = timer.ended[at];
        Py_INCREF(entry.name);
        return false;
    }
    for (std::size_t i = 0; i < at; ++i) {
        add_duration(timer.found[i], timer.ended[i].seconds);
        Py_CLEAR(timer.found[i]);
        Py_DECREF(timer.ended[i].name);
    }
    timer.ended_count = 0;
    return true;
}

// Adds all that has ended to the durations of its name. False with the error of the first one that has none, which
// is left out; the others stay where they are then.
[[gnu::noinline]] bool settle(PyObject* self) noexcept {
    BlockTimer& timer = *block_timer_of(self);
    EndedBlock entry{};
    std::size_t at = 0;
    while (!add_all(timer, at, entry)) {
        PyObject* const series = series_of(self, entry.name);  // others may settle meanwhile
        bool taken = false;
        {
            const ObjectLocked locked(timer);
            if (series == nullptr) {
                taken = take_out(timer, at, entry);
            } else if (at < timer.ended_count && timer.ended[at].name == entry.name &&
                       timer.found[at] == nullptr) {
                timer.found[at] = Py_NewRef(series);
            }
        }
        if (taken) Py_DECREF(entry.name);
        Py_DECREF(entry.name);
        if (series == nullptr) return false;
        Py_DECREF(series);
    }
    return PyErr_Occurred() == nullptr;
}

// An error of another block must not end this one's code. False for what is to be raised: Ctrl-C, exit.
[[gnu::noinline, gnu::cold]] bool tell_unsettled(PyObject* self) noexcept {
    if (!PyErr_ExceptionMatches(PyExc_Exception)) return false;
    PyErr_WriteUnraisable(self);
    return true;
}

PyObject* settle_blocks(PyObject* self, PyObject*) {
    if (block_timer_of(self)->series != nullptr && !settle(self)) return nullptr;
    Py_RETURN_NONE;
}

void block_timer_dealloc(PyObject* self) {
    PyObject_GC_UnTrack(self);
    BlockTimer& timer = *block_timer_of(self);
    for (std::size_t i = 0; i < timer.ended_count; ++i) {
        Py_DECREF(timer.ended[i].name);
        Py_CLEAR(timer.found[i]);
    }
    OwnedMembers<block_timer_members>::dealloc(self);
}

PyMethodDef block_timer_methods[] = {
    {"_open", open_timer, METH_VARARGS, "Set what blocks use."},
    {"_settle", settle_blocks, METH_NOARGS, "Add the blocks that have ended to their durations."},
    {"time_block", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(time_block)),
     METH_FASTCALL | METH_KEYWORDS,
     R"(time_block($self, block_name, log_level=10, *, step=None, device=None)
--

Time a block of code, as a context manager or a decorator.

Args:
    block_name: The block's name.
    log_level: Level, or its name, of the message ``"<name> completed in 0.0234s"``.
    step: The training step. Default: that of the enclosing block.
    device: True or a device also times the block on the GPU, without waiting for it: the
        line gets ``device_duration_s``. See ``Recorder.timer``.

Returns:
    The block; its ``elapsed`` holds the seconds afterwards.

Raises:
    TypeError: ``block_name`` is not a str, or ``step`` not an int.)"},
    {nullptr, nullptr, 0, nullptr},
};

PyType_Slot block_timer_slots[] = {
    {Py_tp_doc, const_cast<char*>("The native half of `PerformanceLogger`.")},
    {Py_tp_new, reinterpret_cast<void*>(PyType_GenericNew)},
    {Py_tp_dealloc, reinterpret_cast<void*>(block_timer_dealloc)},
    {Py_tp_traverse, reinterpret_cast<void*>(OwnedMembers<block_timer_members>::traverse)},
    {Py_tp_clear, reinterpret_cast<void*>(OwnedMembers<block_timer_members>::clear)},
    {Py_tp_methods, block_timer_methods},
    {0, nullptr},
};

PyType_Spec block_timer_spec = {"foundry_fastlog._core.BlockTimer", sizeof(BlockTimer), 0,
                                Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
                                block_timer_slots};

}  // namespace

[[gnu::hot]] bool note_duration(const Timer& block, double seconds) noexcept {
    BlockTimer& timer = *block_timer_of(block.owner);
    if (timer.series == nullptr) return true;  // the garbage collector has cleared it
    while (!append(timer, {block.name, seconds})) {
        if (settle(block.owner) || tell_unsettled(block.owner)) continue;
        append(timer, {block.name, seconds});  // the one whose durations were asked for is out
        return false;
    }
    // A subclass's object may refer to this, which the garbage collector would not see.
    return PyUnicode_CheckExact(block.name) || settle(block.owner) || tell_unsettled(block.owner);
}

[[gnu::hot]] bool tell_block(const Timer& block, double seconds, PyObject* error_type) noexcept {
    const BlockTimer* const timer = block_timer_of(block.owner);
    if (timer->enabled == nullptr) return true;  // likewise
    // Where `logging` keeps what it has found out about levels.
    PyObject* const known = dict_item(timer->enabled, block.level);
    if (known == nullptr && PyErr_Occurred()) return false;
    Py_XDECREF(known);
    if (known == Py_False) return true;
    PyObject* const step = block.has_step ? PyLong_FromLongLong(block.step) : Py_NewRef(Py_None);
    PyObject* const elapsed = PyFloat_FromDouble(seconds);
    PyObject* told = nullptr;
    if (step != nullptr && elapsed != nullptr) {
        told = PyObject_CallMethodObjArgs(block.owner, ended_name, block.name, block.level, step,
                                          elapsed, error_type, nullptr);
    }
    Py_XDECREF(step);
    Py_XDECREF(elapsed);
    Py_XDECREF(told);
    return told != nullptr;
}

void bind_blocks(py::module_& module) {
    PyObject* const type = PyType_FromSpec(&block_timer_spec);
    debug_level = PyLong_FromLong(10);
    ended_name = PyUnicode_InternFromString("_ended");
    new_series_name = PyUnicode_InternFromString("_new_series");
    if (type == nullptr || debug_level == nullptr || ended_name == nullptr ||
        new_series_name == nullptr) {
        throw py::error_already_set();
    }
    module.attr("BlockTimer") = py::reinterpret_steal<py::object>(type);
}

}  // namespace fastlog::bindings
