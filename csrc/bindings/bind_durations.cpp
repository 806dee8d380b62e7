// Durations: those of the blocks of one name, as a Python object.
#include "bindings/bind_durations.hpp"

#include <new>
#include <vector>

#include "bindings/bindings.hpp"
#include "bindings/durations.hpp"
#include "bindings/gil.hpp"

namespace fastlog::bindings {
namespace {

struct DurationsObject {
    PyObject_HEAD Durations durations;
#ifdef Py_GIL_DISABLED
    PyMutex mutex;
#endif
};

PyTypeObject* durations_type = nullptr;

DurationsObject* durations_of(PyObject* object) noexcept {
    return reinterpret_cast<DurationsObject*>(object);
}

PyObject* durations_new(PyTypeObject* type, PyObject* args, PyObject*) {
    Py_ssize_t most = 0;
    if (!PyArg_ParseTuple(args, "n", &most)) return nullptr;
    if (most < 1) return PyErr_Format(PyExc_ValueError, "at least 1 is kept, got %zd", most);
    PyObject* object = type->tp_alloc(type, 0);
    if (object != nullptr) {
        new (&durations_of(object)->durations) Durations(static_cast<std::size_t>(most));
    }
    return object;
}

void durations_dealloc(PyObject* self) {
    durations_of(self)->durations.~Durations();
    PyTypeObject* type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

PyObject* durations_add(PyObject* self, PyObject* number) {
    const double seconds = PyFloat_AsDouble(number);
    if (seconds == -1.0 && PyErr_Occurred()) return nullptr;
    if (!add_duration(self, seconds)) return nullptr;
    Py_RETURN_NONE;
}

PyObject* durations_describe(PyObject* self, PyObject*) {
    DurationsObject& one = *durations_of(self);
    const ObjectLocked locked(one);
    const Durations& all = one.durations;
    return Py_BuildValue("{s:K,s:d,s:d,s:d,s:d,s:d}", "count",
                         static_cast<unsigned long long>(all.count()), "mean", all.mean(), "std",
                         all.deviation(), "min", all.low(), "max", all.high(), "total",
                         all.total());
}

PyObject* durations_latest(PyObject* self, PyObject*) {
    DurationsObject& one = *durations_of(self);
    std::vector<double> latest;
    try {
        const ObjectLocked locked(one);
        latest = one.durations.latest();
    } catch (const std::bad_alloc&) {
        return PyErr_NoMemory();
    }
    // A copy: the garbage collector may run code here that adds to them.
    PyObject* list = PyList_New(static_cast<Py_ssize_t>(latest.size()));
    for (std::size_t i = 0; i < latest.size() && list != nullptr; ++i) {
        PyObject* number = PyFloat_FromDouble(latest[i]);
        if (number == nullptr) {
            Py_CLEAR(list);
        } else {
            PyList_SET_ITEM(list, static_cast<Py_ssize_t>(i), number);
        }
    }
    return list;
}

PyMethodDef durations_methods[] = {
    {"add", durations_add, METH_O, "Add finite seconds."},
    {"describe", durations_describe, METH_NOARGS,
     "Return ``count``, ``mean``, ``std``, ``min``, ``max`` and ``total`` of one or more."},
    {"latest", durations_latest, METH_NOARGS, "Return the latest ones, oldest first."},
    {nullptr, nullptr, 0, nullptr},
};

PyType_Slot durations_slots[] = {
    {Py_tp_doc, const_cast<char*>("Durations(most, /)\n--\n\nDurations in seconds: statistics of "
                                  "all, and the latest ``most`` of them.")},
    {Py_tp_new, reinterpret_cast<void*>(durations_new)},
    {Py_tp_dealloc, reinterpret_cast<void*>(durations_dealloc)},
    {Py_tp_methods, durations_methods},
    {0, nullptr},
};

PyType_Spec durations_spec = {"foundry_fastlog._core.Durations", sizeof(DurationsObject), 0,
                              Py_TPFLAGS_DEFAULT, durations_slots};

}  // namespace

bool is_durations(PyObject* object) noexcept { return Py_IS_TYPE(object, durations_type); }

bool add_duration(PyObject* durations, double seconds) noexcept {
    DurationsObject& one = *durations_of(durations);
    try {
        const ObjectLocked locked(one);
        one.durations.add(seconds);
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
        return false;
    }
    return true;
}

void bind_durations(py::module_& module) {
    durations_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&durations_spec));
    if (durations_type == nullptr) throw py::error_already_set();
    module.attr("Durations") = py::handle(reinterpret_cast<PyObject*>(durations_type));
}

}  // namespace fastlog::bindings
