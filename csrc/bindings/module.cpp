// Registers the parts of foundry_fastlog._core; nothing else.
#include <pybind11/pybind11.h>

#include "bindings/bindings.hpp"
#include "bindings/device_send.hpp"

PYBIND11_MODULE(_core, module, pybind11::mod_gil_not_used()) {
    module.doc() = "The native core of foundry_fastlog: ring, flush thread and hot calls.";
    fastlog::bindings::bind_recorder(module);
    fastlog::bindings::bind_recovery(module);
    fastlog::bindings::bind_timer(module);
    fastlog::bindings::bind_device(module);
    fastlog::bindings::add_hot_methods(module.attr("RecorderCore").ptr());
    module.def(
        "add_hot_methods",
        [](pybind11::type type) { fastlog::bindings::add_hot_methods(type.ptr()); },
        pybind11::arg("recorder_type"),
        "Gives a subclass of RecorderCore its own descriptors of the hot methods.");
}
