// StepLogger, the native half of MetricsLogger: log_step().
#include <Python.h>

#include <array>
#include <cstdint>

#include "bindings/bindings.hpp"
#include "bindings/handle.hpp"
#include "bindings/items.hpp"
#include "bindings/owned_members.hpp"
#include "bindings/payload_builder.hpp"
#include "bindings/signature.hpp"
#include "core/clock.hpp"

namespace fastlog::bindings {
namespace {

struct StepLogger {
    PyObject_HEAD PyObject* recorder;  // owned; null: not opened
    PyObject* enabled;                 // owned mapping: whether levels are enabled, as far as known
    long long every;                   // steps are echoed that it divides
};

PyObject* info_level = nullptr;
PyObject* closed_name = nullptr;
PyObject* tell_name = nullptr;

constinit const Signature<3> kLogStep{
    "log_step() takes the arguments (step, epoch, metrics)", {"step", "epoch", "metrics"}, 3};
constinit const Signature<3> kRecordStep{
    "_record_step() takes the arguments (step, epoch, metrics)", {"step", "epoch", "metrics"}, 3};

StepLogger* step_logger_of(PyObject* object) noexcept {
    return reinterpret_cast<StepLogger*>(object);
}

std::array<PyObject**, 2> step_logger_members(PyObject* self) noexcept {
    StepLogger* const logger = step_logger_of(self);
    return {&logger->recorder, &logger->enabled};
}

// _open_steps(recorder, enabled, every)
PyObject* open_steps(PyObject* self, PyObject* args) {
    PyObject* recorder = nullptr;
    PyObject* enabled = nullptr;
    long long every = 0;
    if (!PyArg_ParseTuple(args, "OOL", &recorder, &enabled, &every)) return nullptr;
    if (every < 1)
        return PyErr_Format(PyExc_ValueError, "every must be 1 or more, got %lld", every);
    if (PyObject_IsInstance(recorder, py::type::of<RecorderHandle>().ptr()) != 1) {
        if (!PyErr_Occurred()) {
            PyErr_Format(PyExc_TypeError, "recorder must be a Recorder, got %s",
                         Py_TYPE(recorder)->tp_name);
        }
        return nullptr;
    }
    StepLogger* const logger = step_logger_of(self);
    Py_XSETREF(logger->recorder, Py_NewRef(recorder));
    Py_XSETREF(logger->enabled, Py_NewRef(enabled));
    logger->every = every;
    Py_RETURN_NONE;
}

// Whether a step may be echoed; -1 with an error set.
int may_be_told(const StepLogger& logger, PyObject* step) noexcept {
    std::int64_t number = 0;
    if (!read_step(step, number)) return -1;
    if (number % logger.every != 0) return 0;
    // Where `logging` keeps what it has found out about levels.
    PyObject* const known = dict_item(logger.enabled, info_level);
    if (known == nullptr && PyErr_Occurred()) return -1;
    Py_XDECREF(known);
    return known != Py_False;
}

// Whether it was recorded: True or False; null with an error set.
[[gnu::hot]] PyObject* record_given(PyObject* self, std::uint64_t ticks,
                                    const std::array<PyObject*, 3>& given) noexcept {
    PyObject* const recorder = step_logger_of(self)->recorder;
    if (recorder == nullptr) {
        PyErr_SetString(PyExc_RuntimeError,
                        "MetricsLogger.__init__() has not run; a subclass has to call it");
        return nullptr;
    }
    Py_INCREF(recorder);  // a value's own code may open this again
    PyObject* const accepted = record_step(recorder, ticks, given[0], given[1], given[2]);
    Py_DECREF(recorder);
    if (accepted != nullptr || !PyErr_ExceptionMatches(RecorderHandle::closed_error))
        return accepted;
    PyErr_Clear();
    return PyObject_CallMethodNoArgs(self, closed_name);
}

PyObject* record_step_only(PyObject* self, PyObject* const* args, Py_ssize_t nargs,
                           PyObject* names) {
    const std::uint64_t ticks = now_ticks();
    std::array<PyObject*, 3> given;
    return kRecordStep.parse(args, nargs, names, given) ? record_given(self, ticks, given)
                                                        : nullptr;
}

[[gnu::hot]] PyObject* log_step(PyObject* self, PyObject* const* args, Py_ssize_t nargs,
                                PyObject* names) {
    const std::uint64_t ticks = now_ticks();
    std::array<PyObject*, 3> given;
    if (!kLogStep.parse(args, nargs, names, given)) return nullptr;
    PyObject* accepted = record_given(self, ticks, given);
    if (accepted == nullptr) return nullptr;
    const int may_be = may_be_told(*step_logger_of(self), given[0]);
    if (may_be == 0) return accepted;
    PyObject* const told = may_be < 0 ? nullptr
                                      : PyObject_CallMethodObjArgs(self, tell_name, given[0],
                                                                   given[1], given[2], nullptr);
    if (told == nullptr) Py_CLEAR(accepted);
    Py_XDECREF(told);
    return accepted;
}

PyMethodDef step_logger_methods[] = {
    {"_open_steps", open_steps, METH_VARARGS, "Set what log_step() uses."},
    {"_record_step", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(record_step_only)),
     METH_FASTCALL | METH_KEYWORDS, "log_step() without the echo."},
    {"log_step", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(log_step)),
     METH_FASTCALL | METH_KEYWORDS,
     R"(log_step($self, step, epoch, metrics)
--

Record the metrics of a training step.

Args:
    step: The training step.
    epoch: The epoch; None omits it.
    metrics: Values by name: float, int, bool, None, str, numpy scalars, arrays and tensors
        of one element. A GPU tensor is not waited for: its value is
        written to its step's line once it arrives. (The echo shows its device.)

Returns:
    True when it was recorded, False when the ring was full or the recorder is closed.

Raises:
    RuntimeError: A GPU value was passed while a stream is being captured into a graph.
    TypeError: ``step`` is not an int, ``epoch`` not a number or ``metrics`` not a mapping;
        with ``on_bad_value="raise"``, a value cannot be recorded.
    OverflowError: A step beyond 64 bits.)"},
    {nullptr, nullptr, 0, nullptr},
};

PyType_Slot step_logger_slots[] = {
    {Py_tp_doc, const_cast<char*>("The native half of `MetricsLogger`.")},
    {Py_tp_new, reinterpret_cast<void*>(PyType_GenericNew)},
    {Py_tp_dealloc, reinterpret_cast<void*>(OwnedMembers<step_logger_members>::dealloc)},
    {Py_tp_traverse, reinterpret_cast<void*>(OwnedMembers<step_logger_members>::traverse)},
    {Py_tp_clear, reinterpret_cast<void*>(OwnedMembers<step_logger_members>::clear)},
    {Py_tp_methods, step_logger_methods},
    {0, nullptr},
};

PyType_Spec step_logger_spec = {"foundry_fastlog._core.StepLogger", sizeof(StepLogger), 0,
                                Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
                                step_logger_slots};

}  // namespace

void bind_steps(py::module_& module) {
    PyObject* const type = PyType_FromSpec(&step_logger_spec);
    info_level = PyLong_FromLong(20);
    closed_name = PyUnicode_InternFromString("_closed");
    tell_name = PyUnicode_InternFromString("_tell_step");
    if (type == nullptr || info_level == nullptr || closed_name == nullptr || tell_name == nullptr)
        throw py::error_already_set();
    module.attr("StepLogger") = py::reinterpret_steal<py::object>(type);
}

}  // namespace fastlog::bindings
