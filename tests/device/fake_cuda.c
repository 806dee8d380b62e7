// The driver API of the fake: what the recorder finds with dlsym(). fake_cuda.h has the controls.
//
// Semantics are those that NVIDIA documents, in their strict reading: where the real driver may let
// something pass, the fake refuses; where it synchronises, the fake counts it; and any call can be made
// to wait, as real ones do for room in the launch queue or for a lock of the driver. Not modelled: the legacy stream's ordering with blocking streams, peers, and events between streams.
//
// Ownership: counts, injections and captures are under the lock of the machine; the current context
// and the capture mode belong to their thread. In a forked child nothing is touched but one number
// in shared memory, as the lock may be held there for ever.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "fake_machine.h"

#ifdef FAKE_HIP
#define NAME(cuda, hip) hip
#define TEXT(cuda, hip) #hip
#else
#define NAME(cuda, hip) cuda
#define TEXT(cuda, hip) #cuda
#endif

typedef void* Context;

#define FUNCTIONS(X)                                                         \
    X(cuDeviceGet, hipDeviceGet)                                             \
    X(cuDevicePrimaryCtxGetState, hipDevicePrimaryCtxGetState)               \
    X(cuDevicePrimaryCtxRetain, hipDevicePrimaryCtxRetain)                   \
    X(cuCtxGetCurrent, hipCtxGetCurrent)                                     \
    X(cuCtxSetCurrent, hipCtxSetCurrent)                                     \
    X(cuCtxGetDevice, hipCtxGetDevice)                                       \
    X(cuMemHostAlloc, hipHostMalloc)                                         \
    X(cuMemFreeHost, hipHostFree)                                            \
    X(cuMemcpyDtoHAsync_v2, hipMemcpyDtoHAsync)                              \
    X(cuEventCreate, hipEventCreateWithFlags)                                \
    X(cuEventDestroy_v2, hipEventDestroy)                                    \
    X(cuEventRecord, hipEventRecord)                                         \
    X(cuEventQuery, hipEventQuery)                                           \
    X(cuEventElapsedTime, hipEventElapsedTime)                               \
    X(cuStreamIsCapturing, hipStreamIsCapturing)                             \
    X(cuThreadExchangeStreamCaptureMode, hipThreadExchangeStreamCaptureMode) \
    X(cuCtxSynchronize, hipDeviceSynchronize)                                \
    X(cuStreamSynchronize, hipStreamSynchronize)                             \
    X(cuEventSynchronize, hipEventSynchronize)                               \
    X(cuMemcpyDtoH_v2, hipMemcpyDtoH)

enum Function {
#define X(cuda, hip) IN_##cuda,
    FUNCTIONS(X)
#undef X
        FUNCTION_COUNT
};

static const char* const function_names[FUNCTION_COUNT] = {
#define X(cuda, hip) TEXT(cuda, hip),
    FUNCTIONS(X)
#undef X
};

typedef struct Injection {
    int code;
    int left;  // -1: for ever
} Injection;

typedef struct HostBlock {
    struct HostBlock* next;
    unsigned char* bytes;
    size_t size;
    int live;
} HostBlock;

static struct {
    long calls[FUNCTION_COUNT];
    Injection injections[FUNCTION_COUNT];
    int stalled[FUNCTION_COUNT];
    long waiting_calls;
    int not_ready;
    long synchronisations;
    long pageable_copies;
    long contexts_created;
    long captured_ops;
    long live_events;
    long live_host_allocations;
    HostBlock* host;  // every block ever given out
} driver;

static pid_t loaded_in;
static atomic_long* calls_in_child;  // shared with forked processes

static _Thread_local struct {
    unsigned long generation;  // of the machine; another one: the rest is void
    Context current;
    int mode;
} own;

__attribute__((constructor)) static void load_driver(void) {
    loaded_in = getpid();
    void* page =
        mmap(NULL, sizeof(atomic_long), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) abort();
    calls_in_child = page;
}

// ---- entry and exit of every call -----------------------------------------------------------

static void wait_for_change(void) {
    driver.waiting_calls += 1;
    pthread_cond_wait(&machine.idle, &machine.lock);
    driver.waiting_calls -= 1;
}

// 0 with the lock held, or what the call has to return, without it.
static int enter(enum Function function) {
    if (getpid() != loaded_in) {
        atomic_fetch_add(calls_in_child, 1);
        return FAKE_NOT_INITIALIZED;
    }
    machine_lock();
    if (own.generation != machine_generation()) {
        own.generation = machine_generation();
        own.current = NULL;
        own.mode = FAKE_GLOBAL;
    }
    driver.calls[function] += 1;
    while (driver.stalled[function]) wait_for_change();
    Injection* injection = &driver.injections[function];
    if (injection->left == 0) return 0;
    if (injection->left > 0) injection->left -= 1;
    int code = injection->code;
    machine_unlock();
    return code;
}

static int leave(int code) {
    machine_unlock();
    return code;
}

#define ENTER(function)                     \
    do {                                    \
        int refused = enter(IN_##function); \
        if (refused) return refused;        \
    } while (0)

// ---- contexts --------------------------------------------------------------------------------

// The current context, or an error.
static int current_context(int* context) {
    *context = own.current == NULL ? -1 : context_index(own.current);
    return *context < 0 ? FAKE_INVALID_CONTEXT : machine.devices[device_of(*context)].broken;
}

// Its device, or an error.
static int current_device(int* device) {
    int context;
    int refused = current_context(&context);
    if (context >= 0) *device = device_of(context);
    return refused;
}

FAKE_EXPORT int NAME(cuDeviceGet, hipDeviceGet)(int* device, int ordinal) {
    ENTER(cuDeviceGet);
    if (!is_device(ordinal)) return leave(FAKE_INVALID_DEVICE);
    *device = ordinal;
    return leave(0);
}

FAKE_EXPORT int NAME(cuDevicePrimaryCtxGetState,
                     hipDevicePrimaryCtxGetState)(int device, unsigned* flags, int* active) {
    ENTER(cuDevicePrimaryCtxGetState);
    if (!is_device(device)) return leave(FAKE_INVALID_DEVICE);
    *flags = 0;
    *active = machine.devices[device].active;
    return leave(0);
}

FAKE_EXPORT int NAME(cuDevicePrimaryCtxRetain, hipDevicePrimaryCtxRetain)(Context* context,
                                                                          int device) {
    ENTER(cuDevicePrimaryCtxRetain);
    if (!is_device(device)) return leave(FAKE_INVALID_DEVICE);
    if (!machine.devices[device].active) driver.contexts_created += 1;
    machine.devices[device].active = 1;
    *context = context_handle(device);
    return leave(0);
}

FAKE_EXPORT int NAME(cuCtxGetCurrent, hipCtxGetCurrent)(Context* context) {
    ENTER(cuCtxGetCurrent);
    *context = own.current;
    return leave(0);
}

FAKE_EXPORT int NAME(cuCtxSetCurrent, hipCtxSetCurrent)(Context context) {
    ENTER(cuCtxSetCurrent);
    if (context != NULL && context_index(context) < 0) return leave(FAKE_INVALID_CONTEXT);
    own.current = context;
    return leave(0);
}

FAKE_EXPORT int NAME(cuCtxGetDevice, hipCtxGetDevice)(int* device) {
    ENTER(cuCtxGetDevice);
    return leave(current_device(device));
}

// ---- capture ---------------------------------------------------------------------------------

// Ends every capture that is `wanted`; 1 when there was one.
static int invalidate_where(int (*wanted)(const Stream*, int), int argument) {
    int found = 0;
    if (machine.captures == 0) return 0;
    for (size_t i = machine.first_stream; i < machine.next_stream; ++i) {
        Stream* stream = machine.streams[i];
        if (stream->capture == CAPTURE_NONE || !wanted(stream, argument)) continue;
        stream->capture = CAPTURE_INVALID;
        found = 1;
    }
    return found;
}

static int forbids_unsafe(const Stream* stream, int mode) {
    if (stream->capture_owner == this_thread()) return stream->capture_mode != FAKE_RELAXED;
    return mode == FAKE_GLOBAL && stream->capture_mode == FAKE_GLOBAL;
}

// A call that may synchronise: it ends the captures that forbid it to this thread.
static int unsafe_call(void) {
    if (own.mode == FAKE_RELAXED) return 0;
    return invalidate_where(forbids_unsafe, own.mode) ? FAKE_CAPTURE_UNSUPPORTED : 0;
}

static int blocks_legacy(const Stream* stream, int context) {
    return stream->context == context && !stream->nonblocking;
}

// What a copy or a record on this stream finds: 0 run it, -1 it went into a graph, or an error.
static int captured(const Stream* stream) {
    if (stream->capture == CAPTURE_INVALID) return FAKE_CAPTURE_INVALIDATED;
    if (stream->capture == CAPTURE_ACTIVE) {
        driver.captured_ops += 1;
        return -1;
    }
    if (stream->legacy && invalidate_where(blocks_legacy, stream->context))
        return FAKE_CAPTURE_IMPLICIT;
    return 0;
}

// NULL and 1 are the legacy stream of the current context.
static Stream* resolve(FakeStream handle, int context) {
    if (handle == NULL || handle == (FakeStream)1) return legacy_stream(context);
    return stream_of(handle);
}

// The same where it has room in its launch queue, for which this waits; NULL too when a reset took it.
static Stream* resolve_room(FakeStream handle, int context) {
    unsigned long generation = machine_generation();
    Stream* stream = resolve(handle, context);
    while (stream != NULL && machine.queue_depth != 0 && stream->queued >= machine.queue_depth &&
           stream->capture == CAPTURE_NONE) {
        wait_for_change();
        stream = generation == machine_generation() ? resolve(handle, context) : NULL;
    }
    return stream;
}

FAKE_EXPORT int NAME(cuStreamIsCapturing, hipStreamIsCapturing)(FakeStream handle, int* status) {
    ENTER(cuStreamIsCapturing);
    int context;
    int refused = current_context(&context);
    if (refused) return leave(refused);
    Stream* stream = resolve(handle, context);
    if (stream == NULL) return leave(FAKE_INVALID_HANDLE);
    for (size_t i = machine.first_stream; stream->legacy && i < machine.next_stream; ++i) {
        const Stream* other = machine.streams[i];
        if (other->capture != CAPTURE_NONE && blocks_legacy(other, stream->context))
            return leave(FAKE_CAPTURE_IMPLICIT);
    }
    *status = (int)stream->capture;
    return leave(0);
}

FAKE_EXPORT int NAME(cuThreadExchangeStreamCaptureMode,
                     hipThreadExchangeStreamCaptureMode)(int* mode) {
    ENTER(cuThreadExchangeStreamCaptureMode);
    if (*mode < FAKE_GLOBAL || *mode > FAKE_RELAXED) return leave(FAKE_INVALID_VALUE);
    int before = own.mode;
    own.mode = *mode;
    *mode = before;
    return leave(0);
}

// ---- host memory and copies ------------------------------------------------------------------

FAKE_EXPORT int NAME(cuMemHostAlloc, hipHostMalloc)(void** bytes, size_t size, unsigned flags) {
    (void)flags;
    ENTER(cuMemHostAlloc);
    int device;
    int refused = current_device(&device);
    if (refused == 0) refused = unsafe_call();
    if (refused == 0 && size == 0) refused = FAKE_INVALID_VALUE;
    if (refused) return leave(refused);
    HostBlock* block = calloc(1, sizeof *block);
    void* memory = NULL;
    if (block == NULL || posix_memalign(&memory, 4096, size) != 0) abort();
    memset(memory, FAKE_POISON, size);
    *block = (HostBlock){.next = driver.host, .bytes = memory, .size = size, .live = 1};
    driver.host = block;
    driver.live_host_allocations += 1;
    *bytes = memory;
    return leave(0);
}

// Counts only: a copy that is still queued would write into freed memory.
FAKE_EXPORT int NAME(cuMemFreeHost, hipHostFree)(void* bytes) {
    ENTER(cuMemFreeHost);
    int device;
    int refused = current_device(&device);
    if (refused == 0) refused = unsafe_call();
    if (refused) return leave(refused);
    for (HostBlock* block = driver.host; block != NULL; block = block->next) {
        if (block->bytes != bytes || !block->live) continue;
        block->live = 0;
        driver.live_host_allocations -= 1;
        return leave(0);
    }
    return leave(FAKE_INVALID_VALUE);
}

static int is_pinned(const void* host, size_t size) {
    uintptr_t address = (uintptr_t)host;
    for (const HostBlock* block = driver.host; block != NULL; block = block->next) {
        uintptr_t first = (uintptr_t)block->bytes;
        if (block->live && address >= first && address + size <= first + block->size) return 1;
    }
    return 0;
}

// Checks a copy and enqueues it; *used is the stream that it went to, if it went to one.
static int copy(void* host, FakePointer pointer, size_t size, FakeStream handle, Stream** used) {
    int context;
    int refused = current_context(&context);
    if (refused) return refused;
    int device = device_of(context);
    Stream* stream = resolve_room(handle, context);
    if (stream == NULL) return FAKE_INVALID_HANDLE;
    if (stream->device != device) return FAKE_INVALID_CONTEXT;
    int source;
    if (host == NULL || !is_device_memory(pointer, size, &source) || source != device)
        return FAKE_INVALID_VALUE;
    int found = captured(stream);
    if (found != 0) return found < 0 ? 0 : found;
    if (!is_pinned(host, size)) driver.pageable_copies += 1;
    Op* op = new_op(OP_COPY, 0);
    op->host = host;
    op->pointer = pointer;
    op->size = size;
    enqueue(stream, op);
    *used = stream;
    return 0;
}

FAKE_EXPORT int NAME(cuMemcpyDtoHAsync_v2, hipMemcpyDtoHAsync)(void* host, FakePointer pointer,
                                                               size_t size, FakeStream stream) {
    ENTER(cuMemcpyDtoHAsync_v2);
    Stream* used = NULL;
    return leave(copy(host, pointer, size, stream, &used));
}

// ---- events ----------------------------------------------------------------------------------

enum { DISABLE_TIMING = 2 };

FAKE_EXPORT int NAME(cuEventCreate, hipEventCreateWithFlags)(void** event, unsigned flags) {
    ENTER(cuEventCreate);
    int context;
    int refused = current_context(&context);
    if (refused) return leave(refused);
    Event* made = machine.next_event < MAX_EVENTS ? calloc(1, sizeof(Event)) : NULL;
    if (made == NULL) abort();
    made->device = device_of(context);
    made->context = context;
    made->timed = (flags & DISABLE_TIMING) == 0;
    machine.events[machine.next_event] = made;
    *event = event_handle(machine.next_event++);
    driver.live_events += 1;
    return leave(0);
}

FAKE_EXPORT int NAME(cuEventDestroy_v2, hipEventDestroy)(void* handle) {
    ENTER(cuEventDestroy_v2);
    int forbidden = unsafe_call();
    Event* event = event_of(handle);
    if (forbidden) return leave(forbidden);
    if (event == NULL) return leave(FAKE_INVALID_HANDLE);
    machine.events[event_index(handle)] = NULL;
    free(event);
    driver.live_events -= 1;
    return leave(0);
}

FAKE_EXPORT int NAME(cuEventRecord, hipEventRecord)(void* handle, FakeStream stream_handle) {
    ENTER(cuEventRecord);
    int context;
    int refused = current_context(&context);
    if (refused) return leave(refused);
    Stream* stream = resolve_room(stream_handle, context);
    Event* event = event_of(handle);
    if (event == NULL || stream == NULL || event->context != stream->context)
        return leave(FAKE_INVALID_HANDLE);
    if (machine.devices[stream->device].broken)
        return leave(machine.devices[stream->device].broken);
    int found = captured(stream);
    if (found > 0) return leave(found);
    event->captured = found < 0;
    if (event->captured) return leave(0);
    Op* op = new_op(OP_RECORD, 0);
    op->number = event_index(handle);
    op->generation = ++event->recorded;
    enqueue(stream, op);
    return leave(0);
}

// What all questions about an event have in common.
static int ask_event(void* handle, Event** event) {
    int device;
    int refused = current_device(&device);
    *event = event_of(handle);
    if (refused) return refused;
    if (*event == NULL) return FAKE_INVALID_HANDLE;
    if (machine.devices[(*event)->device].broken) return machine.devices[(*event)->device].broken;
    return (*event)->captured ? FAKE_CAPTURED_EVENT : 0;
}

FAKE_EXPORT int NAME(cuEventQuery, hipEventQuery)(void* handle) {
    ENTER(cuEventQuery);
    Event* event;
    int refused = ask_event(handle, &event);
    int forbidden = unsafe_call();  // even a bad handle ends a capture
    if (forbidden || refused) return leave(forbidden ? forbidden : refused);
    if (driver.not_ready > 0) {
        driver.not_ready -= 1;
        return leave(FAKE_NOT_READY);
    }
    return leave(event->completed == event->recorded ? 0 : FAKE_NOT_READY);
}

FAKE_EXPORT int NAME(cuEventElapsedTime, hipEventElapsedTime)(float* milliseconds, void* start,
                                                              void* end) {
    ENTER(cuEventElapsedTime);
    Event* from;
    Event* to;
    int refused = ask_event(start, &from);
    if (refused == 0) refused = ask_event(end, &to);
    if (refused) return leave(refused);
    if (!from->timed || !to->timed || from->recorded == 0 || to->recorded == 0 ||
        from->device != to->device)
        return leave(FAKE_INVALID_HANDLE);
    if (from->completed != from->recorded || to->completed != to->recorded)
        return leave(FAKE_NOT_READY);
    double seconds = (double)(to->timestamp.tv_sec - from->timestamp.tv_sec);
    double nanoseconds = (double)(to->timestamp.tv_nsec - from->timestamp.tv_nsec);
    *milliseconds = (float)(seconds * 1e3 + nanoseconds * 1e-6);
    return leave(0);
}

// ---- synchronisation: the recorder never asks for it ------------------------------------------

static int synchronise(int code) {
    int forbidden = unsafe_call();
    driver.synchronisations += 1;
    return forbidden ? forbidden : code;
}

// Waits until all streams of a device are idle, or a reset ends them.
static void drain(int device) {
    unsigned long generation = machine_generation();
    for (size_t i = machine.first_stream; i < machine.next_stream; ++i) {
        while (generation == machine_generation() && machine.streams[i]->device == device &&
               !is_idle(machine.streams[i]))
            pthread_cond_wait(&machine.idle, &machine.lock);
        if (generation != machine_generation()) return;
    }
}

FAKE_EXPORT int NAME(cuCtxSynchronize, hipDeviceSynchronize)(void) {
    ENTER(cuCtxSynchronize);
    int device;
    int code = synchronise(current_device(&device));
    if (code == 0) drain(device);
    return leave(code);
}

FAKE_EXPORT int NAME(cuStreamSynchronize, hipStreamSynchronize)(FakeStream handle) {
    ENTER(cuStreamSynchronize);
    (void)handle;  // waits for more than it has to
    int device;
    int code = synchronise(current_device(&device));
    if (code == 0) drain(device);
    return leave(code);
}

FAKE_EXPORT int NAME(cuEventSynchronize, hipEventSynchronize)(void* handle) {
    ENTER(cuEventSynchronize);
    Event* event;
    int code = synchronise(ask_event(handle, &event));
    if (code == 0) drain(event->device);
    return leave(code);
}

FAKE_EXPORT int NAME(cuMemcpyDtoH_v2, hipMemcpyDtoH)(void* host, FakePointer pointer, size_t size) {
    ENTER(cuMemcpyDtoH_v2);
    int code = synchronise(0);
    Stream* used = NULL;
    if (code == 0) code = copy(host, pointer, size, NULL, &used);
    if (used != NULL) drain(used->device);
    return leave(code);
}

// ---- injections and counts -------------------------------------------------------------------

static int function_index(const char* name) {
    for (int i = 0; i < FUNCTION_COUNT; ++i)
        if (strcmp(name, function_names[i]) == 0) return i;
    return -1;
}

void fake_not_ready(int queries) {
    LOCKED;
    driver.not_ready = queries;
}

int fake_fail(const char* name, int code, int count) {
    int function = function_index(name);
    if (function < 0) return -1;
    LOCKED;
    driver.injections[function] = (Injection){.code = code, .left = count};
    return 0;
}

int fake_stall(const char* name, int stalled) {
    int function = function_index(name);
    if (function < 0) return -1;
    LOCKED;
    driver.stalled[function] = stalled;
    pthread_cond_broadcast(&machine.idle);
    return 0;
}

void reset_driver(int everything) {
    memset(driver.calls, 0, sizeof driver.calls);
    memset(driver.injections, 0, sizeof driver.injections);
    memset(driver.stalled, 0, sizeof driver.stalled);
    pthread_cond_broadcast(&machine.idle);
    driver.not_ready = 0;
    driver.synchronisations = driver.pageable_copies = 0;
    driver.contexts_created = driver.captured_ops = 0;
    atomic_store(calls_in_child, 0);
    if (!everything) return;
    driver.live_events = driver.live_host_allocations = 0;
    for (HostBlock* block = driver.host; block != NULL; block = block->next) block->live = 0;
}

void fake_reset_counts(void) {
    LOCKED;
    reset_driver(0);
}

long fake_count(const char* name) {
    const struct {
        const char* name;
        const long* count;
    } counts[] = {
        {"synchronisations", &driver.synchronisations},
        {"pageable_copies", &driver.pageable_copies},
        {"contexts_created", &driver.contexts_created},
        {"captured_ops", &driver.captured_ops},
        {"live_events", &driver.live_events},
        {"live_host_allocations", &driver.live_host_allocations},
        {"waiting_calls", &driver.waiting_calls},
    };
    const long* found = NULL;
    int function = function_index(name);
    if (function >= 0) found = &driver.calls[function];
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; ++i)
        if (strcmp(name, counts[i].name) == 0) found = counts[i].count;
    if (found == NULL) return -1;
    LOCKED;
    return *found;
}

long fake_calls_in_child(void) { return atomic_load(calls_in_child); }
