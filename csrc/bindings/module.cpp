// Registers the parts of foundry_fastlog._core; nothing else.
#include <pybind11/pybind11.h>

#include "bindings/bindings.hpp"

PYBIND11_MODULE(_core, module, pybind11::mod_gil_not_used()) {
    module.doc() = "The native core of foundry_fastlog: ring, flush thread and hot calls.";
    fastlog::bindings::bind_recorder(module);
    fastlog::bindings::bind_timer(module, module.attr("RecorderCore").ptr());
}
