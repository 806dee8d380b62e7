// Registers the parts of foundry_fastlog._core, in the main interpreter only.
#include <pybind11/pybind11.h>

#include "bindings/bindings.hpp"
#include "bindings/device_send.hpp"

// pybind11 asks for the GIL of the main interpreter before any of our code runs: a subinterpreter that shares
// this GIL would wait for itself. So pybind11's entry point is renamed, and ours runs first.
#define PyInit__core init_in_main_interpreter
PYBIND11_MODULE(_core, module, pybind11::mod_gil_not_used()) {
    module.doc() = "The native core of foundry_fastlog: ring, flush thread and hot calls.";
    fastlog::bindings::bind_recorder(module);
    fastlog::bindings::bind_recovery(module);
    fastlog::bindings::bind_reader(module);
    fastlog::bindings::bind_sums(module);
    fastlog::bindings::bind_pyramid(module);
    fastlog::bindings::bind_timer(module);
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
