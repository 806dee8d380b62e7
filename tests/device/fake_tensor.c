// An extension module with tensors as the recorder sees torch's: some attributes and methods, and
// on the class the exchange table of DLPack 1.3. Builds for CPython 3.10 to 3.13.
//
//   FakeTensor(data, dtype=(code, bits, lanes), device=(type, index), shape=(), ...)
//   LegacyFakeTensor       no table: torch before 2.10
//   FutureFakeTensor       a table of major version 2, with nothing older behind it
//   ChainedFakeTensor      a table of major version 2 that has one of version 1 behind it
//   OwningOnlyFakeTensor   a table without dltensor_from_py_object_no_sync, as it may be
//
// The fields of a tensor are written by its constructor and by attributes, under the GIL or, where
// there is none, by the one thread that a test has for it. Streams and counts are atomic.
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdatomic.h>
#include <string.h>

#include "dlpack.h"

enum { MAX_NDIM = 8, DEVICE_TYPES = 32, DEVICE_INDEXES = 16 };

typedef struct {
    PyObject_HEAD DLTensor view;  // as it is exported; data is NULL where `null_data` asked for it
    uintptr_t data;
    int64_t shape[MAX_NDIM];
    int64_t strides[MAX_NDIM];
    int requires_grad;
    int is_neg;
    int is_conj;
    PyObject* raises;  // what the exchange functions raise, or NULL
    PyObject* owner;   // kept alive as long as this is: the memory behind `data`, for example
} FakeTensor;

static PyObject* device_class;  // a named tuple: type, index
static _Atomic(void*) streams[DEVICE_TYPES][DEVICE_INDEXES];
static atomic_long item_calls, to_calls, export_calls, live_tensors, live_exports;

static const struct {
    int number;
    const char* name;
} device_names[] = {{kDLCPU, "cpu"},    {kDLCUDA, "cuda"},       {kDLCUDAHost, "cpu"},
                    {kDLMetal, "mps"},  {kDLROCM, "cuda"},       {kDLROCMHost, "cpu"},
                    {kDLOneAPI, "xpu"}, {kDLCUDAManaged, "cuda"}};

static const struct {
    int code;
    int bits;
    const char* name;
} dtype_names[] = {{kDLInt, 8, "int8"},
                   {kDLInt, 16, "int16"},
                   {kDLInt, 32, "int32"},
                   {kDLInt, 64, "int64"},
                   {kDLUInt, 8, "uint8"},
                   {kDLUInt, 16, "uint16"},
                   {kDLUInt, 32, "uint32"},
                   {kDLUInt, 64, "uint64"},
                   {kDLFloat, 16, "float16"},
                   {kDLFloat, 32, "float32"},
                   {kDLFloat, 64, "float64"},
                   {kDLBfloat, 16, "bfloat16"},
                   {kDLBool, 8, "bool"},
                   {kDLComplex, 32, "complex32"},
                   {kDLComplex, 64, "complex64"},
                   {kDLComplex, 128, "complex128"},
                   {kDLFloat8_e4m3fn, 8, "float8_e4m3fn"},
                   {kDLFloat8_e4m3fnuz, 8, "float8_e4m3fnuz"},
                   {kDLFloat8_e5m2, 8, "float8_e5m2"},
                   {kDLFloat8_e5m2fnuz, 8, "float8_e5m2fnuz"},
                   {kDLFloat8_e8m0fnu, 8, "float8_e8m0fnu"},
                   {kDLFloat4_e2m1fn, 4, "float4_e2m1fn_x2"}};

// ---- the object ------------------------------------------------------------------------------

static int read_shape(FakeTensor* self, PyObject* shape) {
    Py_ssize_t ndim = shape == NULL ? 0 : PyTuple_Size(shape);
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

static PyObject* tensor_new(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
    static char* names[] = {"data",          "dtype",  "device",  "shape",
                            "requires_grad", "is_neg", "is_conj", "null_data",
                            "byte_offset",   "raises", "owner",   NULL};
    unsigned long long data = 0, byte_offset = 0;
    int code = kDLFloat, bits = 32, lanes = 1, device = kDLCUDA, index = 0;
    int requires_grad = 0, is_neg = 0, is_conj = 0, null_data = 0;
    PyObject *shape = NULL, *raises = NULL, *owner = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "K|(iii)(ii)O!$ppppKOO", names, &data, &code,
                                     &bits, &lanes, &device, &index, &PyTuple_Type, &shape,
                                     &requires_grad, &is_neg, &is_conj, &null_data, &byte_offset,
                                     &raises, &owner))
        return NULL;
    FakeTensor* self = (FakeTensor*)type->tp_alloc(type, 0);
    if (self == NULL) return NULL;
    atomic_fetch_add(&live_tensors, 1);
    self->data = (uintptr_t)data;
    self->view.data = null_data ? NULL : (void*)self->data;
    self->view.device = (DLDevice){(DLDeviceType)device, index};
    self->view.dtype = (DLDataType){(uint8_t)code, (uint8_t)bits, (uint16_t)lanes};
    self->view.byte_offset = byte_offset;
    self->requires_grad = requires_grad;
    self->is_neg = is_neg;
    self->is_conj = is_conj;
    if (raises != NULL && raises != Py_None) self->raises = Py_NewRef(raises);
    if (owner != NULL) self->owner = Py_NewRef(owner);
    if (read_shape(self, shape) < 0) Py_CLEAR(self);
    return (PyObject*)self;
}

static int tensor_traverse(FakeTensor* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->raises);
    Py_VISIT(self->owner);
    return 0;
}

static int tensor_clear(FakeTensor* self) {
    Py_CLEAR(self->raises);
    Py_CLEAR(self->owner);
    return 0;
}

static void tensor_dealloc(FakeTensor* self) {
    PyTypeObject* type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    tensor_clear(self);
    atomic_fetch_sub(&live_tensors, 1);
    type->tp_free(self);
    Py_DECREF(type);
}

// ---- what torch's tensors show to Python -----------------------------------------------------

static const char* device_name(const FakeTensor* self) {
    for (size_t i = 0; i < sizeof device_names / sizeof device_names[0]; ++i)
        if (device_names[i].number == (int)self->view.device.device_type)
            return device_names[i].name;
    return "privateuseone";
}

static PyObject* get_device(FakeTensor* self, void* closure) {
    (void)closure;
    int is_cpu = strcmp(device_name(self), "cpu") == 0;
    if (is_cpu) return PyObject_CallFunction(device_class, "sO", "cpu", Py_None);
    return PyObject_CallFunction(device_class, "si", device_name(self),
                                 (int)self->view.device.device_id);
}

static PyObject* get_dtype(FakeTensor* self, void* closure) {
    (void)closure;
    DLDataType dtype = self->view.dtype;
    for (size_t i = 0; i < sizeof dtype_names / sizeof dtype_names[0]; ++i)
        if (dtype_names[i].code == dtype.code && dtype_names[i].bits == dtype.bits)
            return PyUnicode_FromFormat("torch.%s", dtype_names[i].name);
    return PyUnicode_FromFormat("torch.unknown_%d_%d", dtype.code, dtype.bits);
}

static PyObject* get_shape(FakeTensor* self, void* closure) {
    (void)closure;
    PyObject* shape = PyTuple_New(self->view.ndim);
    for (int32_t i = 0; shape != NULL && i < self->view.ndim; ++i) {
        PyObject* size = PyLong_FromLongLong(self->shape[i]);
        if (size == NULL)
            Py_CLEAR(shape);
        else
            PyTuple_SET_ITEM(shape, i, size);
    }
    return shape;
}

static PyObject* get_ndim(FakeTensor* self, void* closure) {
    (void)closure;
    return PyLong_FromLong(self->view.ndim);
}

static PyObject* get_requires_grad(FakeTensor* self, void* closure) {
    (void)closure;
    return PyBool_FromLong(self->requires_grad);
}

static PyObject* get_is_cuda(FakeTensor* self, void* closure) {
    (void)closure;
    return PyBool_FromLong(strcmp(device_name(self), "cuda") == 0);
}

static PyGetSetDef tensor_attributes[] = {
    {"device", (getter)get_device, NULL, "Device, with .type and .index.", NULL},
    {"dtype", (getter)get_dtype, NULL, "Name of the type, as str() of torch's.", NULL},
    {"shape", (getter)get_shape, NULL, "Sizes.", NULL},
    {"ndim", (getter)get_ndim, NULL, "Number of dimensions.", NULL},
    {"requires_grad", (getter)get_requires_grad, NULL, "Whether it is part of a graph.", NULL},
    {"is_cuda", (getter)get_is_cuda, NULL, "Whether it is on a GPU.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyObject* is_neg(FakeTensor* self, PyObject* unused) {
    (void)unused;
    return PyBool_FromLong(self->is_neg);
}

static PyObject* is_conj(FakeTensor* self, PyObject* unused) {
    (void)unused;
    return PyBool_FromLong(self->is_conj);
}

static PyObject* data_ptr(FakeTensor* self, PyObject* unused) {
    (void)unused;
    if (self->view.data == NULL) return PyLong_FromLong(0);
    return PyLong_FromUnsignedLongLong(self->data + self->view.byte_offset);
}

static PyObject* numel(FakeTensor* self, PyObject* unused) {
    (void)unused;
    long long count = 1;
    for (int32_t i = 0; i < self->view.ndim; ++i) count *= self->shape[i];
    return PyLong_FromLongLong(count);
}

static PyObject* element_size(FakeTensor* self, PyObject* unused) {
    (void)unused;
    return PyLong_FromLong((self->view.dtype.bits * self->view.dtype.lanes + 7) / 8);
}

// Everything that would wait for the device: counted, and answered with nothing true.
static PyObject* item(PyObject* self, PyObject* unused) {
    (void)self;
    (void)unused;
    atomic_fetch_add(&item_calls, 1);
    return PyFloat_FromDouble(0.0);
}

static PyObject* as_number(PyObject* self) { return item(self, NULL); }

static PyObject* as_int(PyObject* self) {
    (void)self;
    atomic_fetch_add(&item_calls, 1);
    return PyLong_FromLong(0);
}

static int as_bool(PyObject* self) {
    (void)self;
    atomic_fetch_add(&item_calls, 1);
    return 0;
}

// A tensor of the same type over the same memory, outside of any graph.
static FakeTensor* alias_tensor(FakeTensor* self) {
    PyTypeObject* type = Py_TYPE(self);
    FakeTensor* made = (FakeTensor*)type->tp_alloc(type, 0);
    if (made == NULL) return NULL;
    atomic_fetch_add(&live_tensors, 1);
    made->view = self->view;
    made->data = self->data;
    memcpy(made->shape, self->shape, sizeof made->shape);
    memcpy(made->strides, self->strides, sizeof made->strides);
    made->view.shape = made->shape;
    made->view.strides = made->strides;
    made->is_neg = self->is_neg;
    made->is_conj = self->is_conj;
    Py_XINCREF(self->raises);
    made->raises = self->raises;
    Py_XINCREF(self->owner);
    made->owner = self->owner;
    return made;
}

static PyObject* detach(FakeTensor* self, PyObject* unused) {
    (void)unused;
    return (PyObject*)alias_tensor(self);
}

// Copies to the CPU at once; only from devices whose memory the host can read in these fakes.
static PyObject* to(FakeTensor* self, PyObject* args, PyObject* kwargs) {
    (void)args;
    (void)kwargs;
    atomic_fetch_add(&to_calls, 1);
    if (strcmp(device_name(self), "cuda") == 0) {
        PyErr_SetString(PyExc_RuntimeError, "a fake CUDA tensor has no copy of torch's");
        return NULL;
    }
    Py_ssize_t size = (self->view.dtype.bits * self->view.dtype.lanes + 7) / 8;
    for (int32_t i = 0; i < self->view.ndim; ++i) size *= self->shape[i];
    PyObject* bytes =
        PyBytes_FromStringAndSize((const char*)self->data + self->view.byte_offset, size);
    FakeTensor* made = bytes == NULL ? NULL : alias_tensor(self);
    if (made == NULL) {
        Py_XDECREF(bytes);
        return NULL;
    }
    Py_XSETREF(made->owner, bytes);
    made->data = (uintptr_t)PyBytes_AS_STRING(bytes);
    made->view.data = (void*)made->data;
    made->view.byte_offset = 0;
    made->view.device = (DLDevice){kDLCPU, 0};
    made->requires_grad = self->requires_grad;
    return (PyObject*)made;
}

// What keeps the memory alive, without the tensor.
static PyObject* untyped_storage(FakeTensor* self, PyObject* unused) {
    (void)unused;
    return Py_NewRef(self->owner != NULL ? self->owner : Py_None);
}

static PyMethodDef tensor_methods[] = {
    {"untyped_storage", (PyCFunction)untyped_storage, METH_NOARGS, "The owner of the memory."},
    {"is_neg", (PyCFunction)is_neg, METH_NOARGS, "Whether the sign waits to be applied."},
    {"is_conj", (PyCFunction)is_conj, METH_NOARGS, "Whether a conjugation waits to be applied."},
    {"data_ptr", (PyCFunction)data_ptr, METH_NOARGS, "Address of the first element."},
    {"numel", (PyCFunction)numel, METH_NOARGS, "Number of elements."},
    {"element_size", (PyCFunction)element_size, METH_NOARGS, "Bytes of an element."},
    {"item", item, METH_NOARGS, "Count a synchronisation."},
    {"tolist", item, METH_NOARGS, "Count a synchronisation."},
    {"cpu", item, METH_NOARGS, "Count a synchronisation."},
    {"detach", (PyCFunction)detach, METH_NOARGS, "The same memory without a graph."},
    {"to", (PyCFunction)(void (*)(void))to, METH_VARARGS | METH_KEYWORDS, "A copy on the CPU."},
    {NULL, NULL, 0, NULL},
};

// ---- the exchange table ----------------------------------------------------------------------

static int refuses(const FakeTensor* self) {
    atomic_fetch_add(&export_calls, 1);
    if (self->raises == NULL) return 0;
    PyErr_SetString(self->raises, "a fake tensor that cannot be exported");
    return 1;
}

static int export_view(void* object, DLTensor* out) {
    FakeTensor* self = object;
    if (refuses(self)) return -1;
    *out = self->view;
    return 0;
}

static void delete_export(DLManagedTensorVersioned* managed) {
    PyGILState_STATE state = PyGILState_Ensure();
    Py_DECREF((PyObject*)managed->manager_ctx);
    PyGILState_Release(state);
    PyMem_RawFree(managed);
    atomic_fetch_sub(&live_exports, 1);
}

static int export_owning(void* object, DLManagedTensorVersioned** out) {
    FakeTensor* self = object;
    if (refuses(self)) return -1;
    DLManagedTensorVersioned* managed = PyMem_RawCalloc(1, sizeof *managed);
    if (managed == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    managed->version = (DLPackVersion){DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION};
    managed->manager_ctx = Py_NewRef((PyObject*)self);
    managed->deleter = delete_export;
    managed->dl_tensor = self->view;
    atomic_fetch_add(&live_exports, 1);
    *out = managed;
    return 0;
}

static int allocate(DLTensor* prototype, DLManagedTensorVersioned** out, void* error_ctx,
                    void (*set_error)(void*, const char*, const char*)) {
    (void)prototype;
    *out = NULL;
    set_error(error_ctx, "RuntimeError", "the fake allocates nothing");
    return -1;
}

static int import_owning(DLManagedTensorVersioned* tensor, void** out) {
    (void)tensor;
    *out = NULL;
    PyErr_SetString(PyExc_RuntimeError, "the fake imports nothing");
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

// A table that a consumer of version 1 must not look into: each of its functions ends the process.
static void must_not_be_called(void) { abort(); }

#define TABLE(major, behind, view)            \
    {{{major, DLPACK_MINOR_VERSION}, behind}, \
     allocate,                                \
     export_owning,                           \
     import_owning,                           \
     view,                                    \
     work_stream}
static DLPackExchangeAPI table = TABLE(DLPACK_MAJOR_VERSION, NULL, export_view);
static DLPackExchangeAPI owning_table = TABLE(DLPACK_MAJOR_VERSION, NULL, NULL);

typedef struct {
    DLPackExchangeAPIHeader header;
    void (*functions[5])(void);
} FutureTable;
#define TRAPS                                                                        \
    {must_not_be_called, must_not_be_called, must_not_be_called, must_not_be_called, \
     must_not_be_called}
static FutureTable future_table = {{{2, 0}, NULL}, TRAPS};
static FutureTable chained_table = {{{2, 0}, &table.header}, TRAPS};

// ---- functions of the module -----------------------------------------------------------------

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

static PyObject* get_stream(PyObject* module, PyObject* args) {
    (void)module;
    int type, index;
    if (!PyArg_ParseTuple(args, "ii", &type, &index)) return NULL;
    void* stream;
    if (work_stream((DLDeviceType)type, index, &stream) < 0) return NULL;
    return PyLong_FromVoidPtr(stream);
}

#define COUNTER(name, variable)                                 \
    static PyObject* name(PyObject* module, PyObject* unused) { \
        (void)module;                                           \
        (void)unused;                                           \
        return PyLong_FromLong(atomic_load(&variable));         \
    }
COUNTER(count_items, item_calls)
COUNTER(count_to, to_calls)
COUNTER(count_exports, export_calls)
COUNTER(count_live, live_tensors)
COUNTER(count_live_exports, live_exports)

static PyObject* reset(PyObject* module, PyObject* unused) {
    (void)module;
    (void)unused;
    for (int type = 0; type < DEVICE_TYPES; ++type)
        for (int index = 0; index < DEVICE_INDEXES; ++index)
            atomic_store(&streams[type][index], NULL);
    atomic_store(&item_calls, 0);
    atomic_store(&to_calls, 0);
    atomic_store(&export_calls, 0);
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"set_stream", set_stream, METH_VARARGS, "Set the current stream of (type, index)."},
    {"get_stream", get_stream, METH_VARARGS, "Return the current stream of (type, index)."},
    {"item_calls", count_items, METH_NOARGS, "Calls that would wait: item, cpu, float() ..."},
    {"to_calls", count_to, METH_NOARGS, "Calls of to()."},
    {"exports", count_exports, METH_NOARGS, "Calls of the exchange functions that export."},
    {"live", count_live, METH_NOARGS, "Tensors that are alive: more than a test has is a leak."},
    {"live_exports", count_live_exports, METH_NOARGS, "Owning exports that were not deleted."},
    {"reset", reset, METH_NOARGS, "Forget streams and counts; what lives is still counted."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot tensor_slots[] = {
    {Py_tp_new, tensor_new},
    {Py_tp_dealloc, tensor_dealloc},
    {Py_tp_traverse, tensor_traverse},
    {Py_tp_clear, tensor_clear},
    {Py_tp_getset, tensor_attributes},
    {Py_tp_methods, tensor_methods},
    {Py_nb_float, as_number},
    {Py_nb_int, as_int},
    {Py_nb_bool, as_bool},
    {Py_tp_doc, "A tensor as far as a recorder looks."},
    {0, NULL},
};

static int add_class(PyObject* module, const char* name, const char* full_name, void* exchange) {
    PyType_Spec spec = {
        .name = full_name,
        .basicsize = sizeof(FakeTensor),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
        .slots = tensor_slots,
    };
    PyObject* made = PyType_FromSpec(&spec);
    if (made == NULL) return -1;
    int failed = 0;
    if (exchange != NULL) {
        PyObject* capsule = PyCapsule_New(exchange, "dlpack_exchange_api", NULL);
        failed = capsule == NULL ||
                 PyObject_SetAttrString(made, "__dlpack_c_exchange_api__", capsule) < 0;
        Py_XDECREF(capsule);
    }
    if (!failed) failed = PyModule_AddObjectRef(module, name, made) < 0;
    Py_DECREF(made);
    return failed ? -1 : 0;
}

static int fill_module(PyObject* module) {
    PyObject* collections = PyImport_ImportModule("collections");
    if (collections == NULL) return -1;
    Py_XSETREF(device_class,
               PyObject_CallMethod(collections, "namedtuple", "ss", "FakeDevice", "type index"));
    Py_DECREF(collections);
    if (device_class == NULL) return -1;
    if (add_class(module, "FakeTensor", "fake_tensor.FakeTensor", &table) < 0) return -1;
    if (add_class(module, "LegacyFakeTensor", "fake_tensor.LegacyFakeTensor", NULL) < 0) return -1;
    if (add_class(module, "FutureFakeTensor", "fake_tensor.FutureFakeTensor", &future_table) < 0)
        return -1;
    if (add_class(module, "ChainedFakeTensor", "fake_tensor.ChainedFakeTensor", &chained_table) < 0)
        return -1;
    return add_class(module, "OwningOnlyFakeTensor", "fake_tensor.OwningOnlyFakeTensor",
                     &owning_table);
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
    .m_name = "fake_tensor",
    .m_doc = "Tensors for tests of the recorder without torch and without a device.",
    .m_methods = functions,
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit_fake_tensor(void) { return PyModuleDef_Init(&definition); }
