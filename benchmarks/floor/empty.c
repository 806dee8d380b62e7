/* The floor of the call benchmarks: C functions with METH_FASTCALL | METH_KEYWORDS that do nothing.
 * No extension can be faster than what CPython needs to call them with one positional and four
 * keyword arguments. There is a module function, and a method of a heap type, because
 * `object.method(...)` costs a look-up that `function(...)` does not. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

static PyObject *
empty(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    (void)self;
    (void)args;
    (void)nargs;
    (void)kwnames;
    Py_RETURN_NONE;
}

#define EMPTY                                                                                      \
    {"empty", (PyCFunction)(void (*)(void))empty, METH_FASTCALL | METH_KEYWORDS,                   \
     "Accept anything and do nothing."}

static PyMethodDef methods[] = {EMPTY, {NULL, NULL, 0, NULL}};

static PyType_Slot slots[] = {{Py_tp_methods, methods}, {0, NULL}};

static PyType_Spec spec = {
    .name = "fastlog_bench_floor.Floor",
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = slots,
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "fastlog_bench_floor", NULL, 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC
PyInit_fastlog_bench_floor(void)
{
    PyObject *self = PyModule_Create(&module);
    if (self == NULL) {
        return NULL;
    }
    PyObject *type = PyType_FromSpec(&spec);
    if (type == NULL || PyModule_AddObject(self, "Floor", type) < 0) {
        Py_XDECREF(type);
        Py_DECREF(self);
        return NULL;
    }
    return self;
}
