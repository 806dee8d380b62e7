// What fake tensors need of C: an object that DLPack's exchange table shows, and tables of several
// kinds. All else that torch's tensors show is in fake_tensor.py. Builds for CPython 3.10 to 3.15.
//
// The fields of a tensor are written by its constructor, under the GIL or, where there is none, by
// the one thread that a test has for it. Streams and counts are atomic.
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdatomic.h>
#include <stddef.h>
#include <structmember.h>

#include "dlpack.h"

enum { MAX_NDIM = 8, DEVICE_TYPES = 32, DEVICE_INDEXES = 16 };

typedef struct {
    PyObject_HEAD DLTensor view;  // as it is exported
    int64_t shape[MAX_NDIM];
    int64_t strides[MAX_NDIM];
    PyObject* raises;  // what the exchange function raises, or NULL
    PyObject* owner;   // kept alive as long as this is: the memory behind `data`, for example
} Exported;

static _Atomic(void*) streams[DEVICE_TYPES][DEVICE_INDEXES];
static atomic_long live_tensors;

// ---- the object ------------------------------------------------------------------------------

static int read_shape(Exported* self, PyObject* shape) {
    Py_ssize_t ndim = PyTuple_Size(shape);
    if (ndim < 0) return -1;
    if (ndim > MAX_NDIM) {
        PyErr_SetString(PyExc_ValueError, "a fake tensor has at most 8 dimensions");
        return -1;
    }
    int64_t stride = 1;
    for (Py_ssize_t i = ndim; i-- > 0;) {
        self->shape[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(shape, i));
        if (self->shape[i] == -1 && PyErr_Occurred()) return -1;
        self->strides[i] = stride;
        stride *= self->shape[i];
    }
    self->view.ndim = (int32_t)ndim;
    self->view.shape = self->shape;
    self->view.strides = self->strides;
    return 0;
}

static PyObject* exported_new(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
    unsigned long long data, byte_offset;
    int code, bits, lanes, device, index;
    PyObject *shape, *raises, *owner;
    (void)kwargs;
    if (!PyArg_ParseTuple(args, "K(iii)(ii)OKOO", &data, &code, &bits, &lanes, &device, &index,
                          &shape, &byte_offset, &raises, &owner))
        return NULL;
    Exported* self = (Exported*)type->tp_alloc(type, 0);
    if (self == NULL) return NULL;
    atomic_fetch_add(&live_tensors, 1);
    self->view.data = (void*)(uintptr_t)data;
    self->view.device = (DLDevice){(DLDeviceType)device, index};
    self->view.dtype = (DLDataType){(uint8_t)code, (uint8_t)bits, (uint16_t)lanes};
    self->view.byte_offset = byte_offset;
    if (raises != Py_None) self->raises = Py_NewRef(raises);
    self->owner = Py_NewRef(owner);
    if (read_shape(self, shape) < 0) Py_CLEAR(self);
    return (PyObject*)self;
}

static int exported_traverse(Exported* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->raises);
    Py_VISIT(self->owner);
    return 0;
}

static int exported_clear(Exported* self) {
    Py_CLEAR(self->raises);
    Py_CLEAR(self->owner);
    return 0;
}

static void exported_dealloc(Exported* self) {
    PyTypeObject* type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    exported_clear(self);
    atomic_fetch_sub(&live_tensors, 1);
    type->tp_free(self);
    Py_DECREF(type);
}

// ---- the exchange tables ---------------------------------------------------------------------

static int export_view(void* object, DLTensor* out) {
    Exported* self = object;
    *out = self->view;
    if (self->raises == NULL) return 0;
    PyErr_SetString(self->raises, "a fake tensor that cannot be exported");
    return -1;
}

static int work_stream(DLDeviceType type, int32_t index, void** out) {
    if ((unsigned)type >= DEVICE_TYPES || (uint32_t)index >= DEVICE_INDEXES) {
        PyErr_SetString(PyExc_ValueError, "the fake has no such device");
        return -1;
    }
    *out = atomic_load(&streams[type][index]);
    return 0;
}

// What the recorder never asks for, and all functions of a table of another version.
static void must_not_be_called(void) { abort(); }

#define TRAPS must_not_be_called, must_not_be_called, must_not_be_called
static DLPackExchangeAPI table = {
    {{DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION}, NULL}, TRAPS, export_view, work_stream};
static DLPackExchangeAPI owning_table = {
    {{DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION}, NULL}, TRAPS, NULL, work_stream};

typedef struct {
    DLPackExchangeAPIHeader header;
    void (*functions[5])(void);
} FutureTable;
static FutureTable future_table = {{{2, 0}, NULL}, {TRAPS, must_not_be_called, must_not_be_called}};
static FutureTable chained_table = {{{2, 0}, &table.header},
                                    {TRAPS, must_not_be_called, must_not_be_called}};

// ---- the module ------------------------------------------------------------------------------

static PyObject* set_stream(PyObject* module, PyObject* args) {
    (void)module;
    int type, index;
    unsigned long long stream;
    if (!PyArg_ParseTuple(args, "iiK", &type, &index, &stream)) return NULL;
    void* known;
    if (work_stream((DLDeviceType)type, index, &known) < 0) return NULL;
    atomic_store(&streams[type][index], (void*)(uintptr_t)stream);
    Py_RETURN_NONE;
}

static PyObject* live(PyObject* module, PyObject* unused) {
    (void)module;
    (void)unused;
    return PyLong_FromLong(atomic_load(&live_tensors));
}

static PyObject* reset(PyObject* module, PyObject* unused) {
    (void)module;
    (void)unused;
    for (int type = 0; type < DEVICE_TYPES; ++type)
        for (int index = 0; index < DEVICE_INDEXES; ++index)
            atomic_store(&streams[type][index], NULL);
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"set_stream", set_stream, METH_VARARGS, "Set the current stream of (type, index)."},
    {"live", live, METH_NOARGS, "Tensors that are alive: more than a test has is a leak."},
    {"reset", reset, METH_NOARGS, "Forget streams."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"owner", T_OBJECT, offsetof(Exported, owner), READONLY, "What keeps the memory alive."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, exported_new},
    {Py_tp_dealloc, exported_dealloc},
    {Py_tp_traverse, exported_traverse},
    {Py_tp_clear, exported_clear},
    {Py_tp_members, members},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "fake_exports.Exported",
    .basicsize = sizeof(Exported),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

static int fill_module(PyObject* module) {
    const struct {
        const char* name;
        void* table;
    } tables[] = {{"TABLE", &table},
                  {"OWNING", &owning_table},
                  {"FUTURE", &future_table},
                  {"CHAINED", &chained_table}};
    PyObject* made = PyType_FromSpec(&spec);
    int failed = made == NULL || PyModule_AddObjectRef(module, "Exported", made) < 0;
    Py_XDECREF(made);
    for (size_t i = 0; i < sizeof tables / sizeof tables[0] && !failed; ++i) {
        made = PyCapsule_New(tables[i].table, "dlpack_exchange_api", NULL);
        failed = made == NULL || PyModule_AddObjectRef(module, tables[i].name, made) < 0;
        Py_XDECREF(made);
    }
    return failed ? -1 : 0;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, fill_module},
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "fake_exports",
    .m_methods = functions,
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit_fake_exports(void) { return PyModuleDef_Init(&definition); }
