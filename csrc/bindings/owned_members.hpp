// The slots of a type that are about the Python objects it owns.
#pragma once

#include <Python.h>

namespace fastlog::bindings {

/// `kMembersOf(self)` gives the places of the members, each of which may be null.
template <auto kMembersOf>
struct OwnedMembers {
    static int traverse(PyObject* self, visitproc visit, void* arg) {
        Py_VISIT(Py_TYPE(self));
        for (PyObject** const member : kMembersOf(self)) Py_VISIT(*member);
        return 0;
    }

    static int clear(PyObject* self) {
        for (PyObject** const member : kMembersOf(self)) Py_CLEAR(*member);
        return 0;
    }

    static void dealloc(PyObject* self) {
        PyObject_GC_UnTrack(self);
        clear(self);
        PyTypeObject* type = Py_TYPE(self);
        type->tp_free(self);
        Py_DECREF(type);
    }
};

}  // namespace fastlog::bindings
