// Registers the parts of foundry_fastlog._core, in the main interpreter only.
//
// Compiles this room as one unit: each file alone would compile pybind11 anew, which takes five times as long
// (ten times with sanitizers).
#include <pybind11/pybind11.h>

#include "bindings/bind_blocks.cpp"
#include "bindings/bind_durations.cpp"
#include "bindings/bind_pyramid.cpp"
#include "bindings/bind_reader.cpp"
#include "bindings/bind_record.cpp"
#include "bindings/bind_recorder.cpp"
#include "bindings/bind_recovery.cpp"
#include "bindings/bind_steps.cpp"
#include "bindings/bind_sums.cpp"
#include "bindings/bind_timer.cpp"
#include "bindings/block_stack.cpp"
#include "bindings/device_send.cpp"
#include "bindings/handle.cpp"
#include "bindings/key_set_cache.cpp"
#include "bindings/payload_builder.cpp"
#include "bindings/py_encode.cpp"
#include "bindings/read_sources.cpp"
#include "bindings/tensors.cpp"
#include "bindings/timed_block.cpp"

#include "bindings/bindings.hpp"
#include "bindings/device_send.hpp"

// pybind11 asks for the GIL of the main interpreter before any of our code runs: a subinterpreter that shares
// this GIL would wait for itself. So pybind11's entry point is renamed, and ours runs first.
#define PyInit__core init_in_main_interpreter
PYBIND11_MODULE(_core, module, pybind11::mod_gil_not_used()) {
    module.doc() = "The native core of foundry_fastlog: ring, flush thread and hot calls.";
    fastlog::hot_line.float_type = &PyFloat_Type;
    fastlog::hot_line.int_type = &PyLong_Type;
    fastlog::hot_line.true_object = Py_True;
    fastlog::bindings::bind_recorder(module);
    fastlog::bindings::bind_recovery(module);
    fastlog::bindings::bind_reader(module);
    fastlog::bindings::bind_sums(module);
    fastlog::bindings::bind_pyramid(module);
    fastlog::bindings::bind_timer(module);
    fastlog::bindings::bind_durations(module);
    fastlog::bindings::bind_blocks(module);
    fastlog::bindings::bind_steps(module);
    fastlog::bindings::bind_spans(module);
    fastlog::bindings::bind_device(module);
    fastlog::bindings::add_hot_methods(module.attr("RecorderCore").ptr());
    module.def(
        "add_hot_methods",
        [](pybind11::type type) { fastlog::bindings::add_hot_methods(type.ptr()); },
        pybind11::arg("recorder_type"),
        "Gives a subclass of RecorderCore its own descriptors for the hot methods.");
}

#undef PyInit__core
extern "C" PYBIND11_EXPORT PyObject* PyInit__core() {
    if (PyInterpreterState_Get() == PyInterpreterState_Main()) return init_in_main_interpreter();
    PyErr_SetString(
        PyExc_ImportError,
        "foundry_fastlog records in the main interpreter only, not in a subinterpreter; "
        "use a process (multiprocessing) instead");
    return nullptr;
}
