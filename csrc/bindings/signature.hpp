// What a call takes, by position or by name.
#pragma once

#include <Python.h>

#include <array>
#include <atomic>
#include <cstddef>

namespace fastlog::bindings {

template <std::size_t kCount>
struct Signature {
    const char* text;  // for the error
    std::array<const char*, kCount> names;
    std::size_t required;
    std::size_t positional = kCount;
    // The names as call sites have them, once they have come: comparing texts touches ten cache lines. Owned.
    mutable std::array<std::atomic<PyObject*>, kCount> known_names{};

    /// Null for an argument that is not given. False with TypeError set.
    bool parse(PyObject* const* args, Py_ssize_t nargs, PyObject* keywords,
               std::array<PyObject*, kCount>& out) const noexcept {
        out = {};
        bool known = static_cast<std::size_t>(nargs) <= positional;
        for (Py_ssize_t i = 0; i < nargs && known; ++i) out[static_cast<std::size_t>(i)] = args[i];
        const Py_ssize_t named = keywords != nullptr ? PyTuple_GET_SIZE(keywords) : 0;
        for (Py_ssize_t i = 0; i < named && known; ++i) {
            const std::size_t at = index_of(PyTuple_GET_ITEM(keywords, i));
            known = at < kCount && out[at] == nullptr;
            if (known) out[at] = args[nargs + i];
        }
        for (std::size_t i = 0; i < required; ++i) known = known && out[i] != nullptr;
        if (!known) PyErr_SetString(PyExc_TypeError, text);
        return known;
    }

    // Of the argument; kCount if there is none of that name.
    std::size_t index_of(PyObject* name) const noexcept {
        for (std::size_t at = 0; at < kCount; ++at) {
            if (known_names[at].load(std::memory_order_relaxed) == name) return at;
        }
        return search(name);
    }

    [[gnu::noinline, gnu::cold]] std::size_t search(PyObject* name) const noexcept {
        std::size_t at = 0;
        while (at < kCount && PyUnicode_CompareWithASCIIString(name, names[at]) != 0) ++at;
        PyObject* none = nullptr;
        if (at < kCount && PyUnicode_CHECK_INTERNED(name) != 0 &&
            known_names[at].compare_exchange_strong(none, name, std::memory_order_relaxed)) {
            Py_INCREF(name);  // for good
        }
        return at;
    }
};

}  // namespace fastlog::bindings
