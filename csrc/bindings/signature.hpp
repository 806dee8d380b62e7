// What a call takes, by position or by name.
#pragma once

#include <Python.h>

#include <array>
#include <cstddef>

namespace fastlog::bindings {

template <std::size_t kCount>
struct Signature {
    const char* text;  // for the error
    std::array<const char*, kCount> names;
    std::size_t required;
    std::size_t positional = kCount;

    /// Null for an argument that is not given. False with TypeError set.
    bool parse(PyObject* const* args, Py_ssize_t nargs, PyObject* keywords,
               std::array<PyObject*, kCount>& out) const noexcept {
        out = {};
        bool known = static_cast<std::size_t>(nargs) <= positional;
        for (Py_ssize_t i = 0; i < nargs && known; ++i) out[static_cast<std::size_t>(i)] = args[i];
        const Py_ssize_t named = keywords != nullptr ? PyTuple_GET_SIZE(keywords) : 0;
        for (Py_ssize_t i = 0; i < named && known; ++i) {
            std::size_t at = 0;
            PyObject* name = PyTuple_GET_ITEM(keywords, i);
            while (at < kCount && PyUnicode_CompareWithASCIIString(name, names[at]) != 0) ++at;
            known = at < kCount && out[at] == nullptr;
            if (known) out[at] = args[nargs + i];
        }
        for (std::size_t i = 0; i < required; ++i) known = known && out[i] != nullptr;
        if (!known) PyErr_SetString(PyExc_TypeError, text);
        return known;
    }
};

}  // namespace fastlog::bindings
