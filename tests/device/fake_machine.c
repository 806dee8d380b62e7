// The imagined devices of the fake driver: memory that faults when the host reads it, and streams
// whose operations run in order on a thread each. fake_machine.h says who touches what.
#define _GNU_SOURCE
#include "fake_machine.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static const uintptr_t STREAM_HANDLES = 0x51000000;
static const uintptr_t EVENT_HANDLES = 0xE0000000;
static const uintptr_t CONTEXT_HANDLES = 0xC0000000;
enum { HANDLE_STEP = 16, CONTEXT_STEP = 4096 };

Machine machine = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .bytes_lock = PTHREAD_MUTEX_INITIALIZER,
    .device_count = 2,
    .first_stream = 1,
    .next_stream = 1,
    .first_event = 1,
    .next_event = 1,
};
static unsigned long generation;  // under the lock

static void make_condition(pthread_cond_t* condition) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &attributes);
    pthread_condattr_destroy(&attributes);
}

__attribute__((constructor)) static void load(void) { make_condition(&machine.idle); }

void machine_lock(void) { pthread_mutex_lock(&machine.lock); }
void machine_unlock(void) { pthread_mutex_unlock(&machine.lock); }
unsigned long machine_generation(void) { return generation; }

unsigned long this_thread(void) {
    static atomic_ulong threads;
    static _Thread_local unsigned long mine;
    if (mine == 0) mine = atomic_fetch_add(&threads, 1) + 1;
    return mine;
}

static struct timespec after(long microseconds) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_sec += microseconds / 1000000;
    at.tv_nsec += microseconds % 1000000 * 1000;
    if (at.tv_nsec >= 1000000000) {
        at.tv_sec += 1;
        at.tv_nsec -= 1000000000;
    }
    return at;
}

// ---- contexts ---------------------------------------------------------------------------------

void* context_handle(int context) {
    return (void*)(CONTEXT_HANDLES + (uintptr_t)context * CONTEXT_STEP);
}

int context_index(void* handle) {
    uintptr_t offset = (uintptr_t)handle - CONTEXT_HANDLES;
    uintptr_t index = offset / CONTEXT_STEP;
    if (offset % CONTEXT_STEP != 0 || index >= MAX_CONTEXTS) return -1;
    int primary = index < (uintptr_t)machine.device_count && machine.devices[index].active;
    return primary || machine.contexts[index].used ? (int)index : -1;
}

int is_device(int number) { return number >= 0 && number < machine.device_count; }

int device_of(int context) {
    return context < MAX_DEVICES ? context : machine.contexts[context].device;
}

FakeContext fake_context(int device) {
    LOCKED;
    for (int i = MAX_DEVICES; i < MAX_CONTEXTS && is_device(device); ++i) {
        if (machine.contexts[i].used) continue;
        machine.contexts[i] = (FakeContextState){.used = 1, .device = device};
        return context_handle(i);
    }
    return NULL;
}

// ---- device memory ---------------------------------------------------------------------------

int is_device_memory(FakePointer pointer, size_t size, int* device) {
    for (int i = 0; i < machine.device_count; ++i) {
        Device* candidate = &machine.devices[i];
        if (candidate->shown == NULL) continue;
        FakePointer first = (FakePointer)(uintptr_t)candidate->shown;
        size_t given = candidate->top * BLOCK;
        if (pointer < first || pointer - first > given || size > given - (pointer - first))
            continue;
        *device = i;
        return 1;
    }
    return 0;
}

static int map_arena(Device* device) {
    int fd = memfd_create("fake device memory", MFD_CLOEXEC);
    if (fd < 0) return -1;
    void* shown = MAP_FAILED;
    void* alias = MAP_FAILED;
    if (ftruncate(fd, ARENA) == 0) {
        shown = mmap(NULL, ARENA, PROT_NONE, MAP_SHARED, fd, 0);
        alias = mmap(NULL, ARENA, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    close(fd);
    if (shown == MAP_FAILED || alias == MAP_FAILED) return -1;
    device->shown = shown;
    device->alias = alias;
    return 0;
}

// Finds a block of `length` units; the lock is held.
static size_t take_blocks(Device* device, uint32_t length) {
    for (size_t i = device->freed_count; i-- > 0;) {
        uint32_t first = device->freed[i];
        if (device->length[first] != length) continue;
        memmove(&device->freed[i], &device->freed[i + 1],
                (device->freed_count - i - 1) * sizeof device->freed[0]);
        device->freed_count -= 1;
        device->unmapped[first] = 0;
        return first;
    }
    if (length > BLOCKS - device->top) return BLOCKS;
    size_t first = device->top;
    device->top += length;
    device->length[first] = length;
    return first;
}

FakePointer fake_malloc(int number, size_t size) {
    if (size == 0 || size > ARENA) return 0;
    LOCKED;
    if (!is_device(number)) return 0;
    Device* device = &machine.devices[number];
    if (device->shown == NULL && map_arena(device) != 0) return 0;
    size_t first = take_blocks(device, (uint32_t)((size + BLOCK - 1) / BLOCK));
    return first < BLOCKS ? (FakePointer)(uintptr_t)(device->shown + first * BLOCK) : 0;
}

int fake_free(FakePointer pointer, FakeStream handle) {
    LOCKED;
    int number;
    Stream* stream = stream_of(handle);
    if (stream == NULL || !is_device_memory(pointer, 1, &number)) return -1;
    Device* device = &machine.devices[number];
    size_t offset = pointer - (FakePointer)(uintptr_t)device->shown;
    uint32_t first = (uint32_t)(offset / BLOCK);
    if (offset % BLOCK != 0 || device->length[first] == 0) return -1;
    for (size_t i = 0; i < device->freed_count; ++i)
        if (device->freed[i] == first) return -1;
    device->freed[device->freed_count++] = first;
    if (stream->capture != CAPTURE_NONE) return 0;
    Op* op = new_op(OP_POISON, 0);
    op->pointer = pointer;
    op->size = (size_t)device->length[first] * BLOCK;
    enqueue(stream, op);
    return 0;
}

// Whether a block was unmapped; NULL where there is none.
static unsigned char* unmapped(FakePointer pointer) {
    int number;
    if (!is_device_memory(pointer, 1, &number)) return NULL;
    Device* device = &machine.devices[number];
    return &device->unmapped[(pointer - (FakePointer)(uintptr_t)device->shown) / BLOCK];
}

int fake_unmap(FakePointer pointer) {
    LOCKED;
    unsigned char* block = unmapped(pointer);
    if (block == NULL) return -1;
    *block = 1;
    return 0;
}

// The bytes behind a device pointer; it has been checked.
static unsigned char* alias_of(FakePointer pointer) {
    for (int i = 0; i < MAX_DEVICES; ++i) {
        Device* device = &machine.devices[i];
        FakePointer first = (FakePointer)(uintptr_t)device->shown;
        if (device->shown != NULL && pointer >= first && pointer - first < ARENA)
            return device->alias + (pointer - first);
    }
    abort();
}

// Reads or writes at once, without any order; 0, or -1 where there is no such memory.
static int move_now(FakePointer pointer, void* read, const void* written, size_t size) {
    int device;
    machine_lock();
    unsigned char* alias = is_device_memory(pointer, size, &device) ? alias_of(pointer) : NULL;
    machine_unlock();
    if (alias == NULL) return -1;
    pthread_mutex_lock(&machine.bytes_lock);
    if (read != NULL)
        memcpy(read, alias, size);
    else
        memcpy(alias, written, size);
    pthread_mutex_unlock(&machine.bytes_lock);
    return 0;
}

int fake_store_now(FakePointer pointer, const void* bytes, size_t size) {
    return move_now(pointer, NULL, bytes, size);
}

int fake_load(FakePointer pointer, void* bytes, size_t size) {
    return move_now(pointer, bytes, NULL, size);
}

// ---- workers ---------------------------------------------------------------------------------

// Through a pointer, so that it stays a call: ThreadSanitizer sees calls of memcpy() even from a
// library that was built without it, but not what a compiler makes of one.
static void* (*const volatile copy_bytes)(void*, const void*, size_t) = memcpy;

// Moves bytes without the lock of the machine: a worker is busy meanwhile. Copies go through a
// small buffer, so that host memory is written with no lock held.
static void move_bytes(const Op* op, unsigned char* alias) {
    if (op->kind != OP_COPY) {
        pthread_mutex_lock(&machine.bytes_lock);
        if (op->kind == OP_STORE)
            memcpy(alias, op->bytes, op->size);
        else
            memset(alias, FAKE_POISON, op->size);
        pthread_mutex_unlock(&machine.bytes_lock);
        return;
    }
    unsigned char buffer[1024];
    for (size_t done = 0; done < op->size;) {
        size_t size = op->size - done < sizeof buffer ? op->size - done : sizeof buffer;
        pthread_mutex_lock(&machine.bytes_lock);
        memcpy(buffer, alias + done, size);
        pthread_mutex_unlock(&machine.bytes_lock);
        copy_bytes((unsigned char*)op->host + done, buffer, size);
        done += size;
    }
}

static void complete(const Op* op) {
    Event* event = machine.events[op->number];
    if (event == NULL || op->generation <= event->completed) return;  // destroyed, or overtaken
    event->completed = op->generation;
    clock_gettime(CLOCK_MONOTONIC, &event->timestamp);
}

static void run_op(Stream* stream, const Op* op) {
    int broken = machine.devices[stream->device].broken;
    struct timespec end;
    switch (op->kind) {
        case OP_DELAY:
            end = after(op->microseconds);
            while (!stream->stopping &&
                   pthread_cond_timedwait(&stream->wake, &machine.lock, &end) == 0) {
            }
            break;
        case OP_HANG:
            while (!stream->stopping && stream->released < op->number)
                pthread_cond_wait(&stream->wake, &machine.lock);
            break;
        case OP_RECORD:
            if (!broken) complete(op);
            break;
        default:
            if (op->kind == OP_COPY && unmapped(op->pointer) != NULL && *unmapped(op->pointer))
                broken = machine.devices[stream->device].broken = FAKE_ILLEGAL_ADDRESS;
            if (broken) break;
            unsigned char* alias = alias_of(op->pointer);
            machine_unlock();
            move_bytes(op, alias);
            machine_lock();
    }
}

static void* work(void* argument) {
    Stream* stream = argument;
    machine_lock();
    while (!stream->stopping) {
        Op* op = stream->head;
        if (op == NULL) {
            pthread_cond_broadcast(&machine.idle);
            pthread_cond_wait(&stream->wake, &machine.lock);
            continue;
        }
        stream->head = op->next;
        if (stream->head == NULL) stream->tail = NULL;
        stream->busy = 1;
        run_op(stream, op);
        stream->busy = 0;
        stream->queued -= 1;
        if (machine.queue_depth != 0) pthread_cond_broadcast(&machine.idle);
        free(op);
    }
    machine_unlock();
    return NULL;
}

Op* new_op(enum OpKind kind, size_t payload) {
    Op* op = calloc(1, sizeof(Op) + payload);
    if (op == NULL) abort();
    op->kind = kind;
    return op;
}

void enqueue(Stream* stream, Op* op) {
    if (stream->tail != NULL)
        stream->tail->next = op;
    else
        stream->head = op;
    stream->tail = op;
    stream->queued += 1;
    pthread_cond_signal(&stream->wake);
}

// ---- streams ---------------------------------------------------------------------------------

static size_t make_stream(int context, int nonblocking, int legacy) {
    if (context < 0 || context >= MAX_CONTEXTS || machine.next_stream == MAX_STREAMS) return 0;
    int device = device_of(context);
    if (device >= machine.device_count) return 0;
    Stream* stream = calloc(1, sizeof(Stream));
    if (stream == NULL) abort();
    stream->device = device;
    stream->context = context;
    stream->nonblocking = nonblocking;
    stream->legacy = legacy;
    make_condition(&stream->wake);
    // Signals belong to the program's own threads.
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&stream->worker, NULL, work, stream);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) abort();
    machine.streams[machine.next_stream] = stream;
    return machine.next_stream++;
}

static FakeStream stream_handle(size_t index) {
    return index == 0 ? NULL : (FakeStream)(STREAM_HANDLES + index * HANDLE_STEP);
}

Stream* stream_of(FakeStream handle) {
    uintptr_t offset = (uintptr_t)handle - STREAM_HANDLES;
    if (offset % HANDLE_STEP != 0 || offset / HANDLE_STEP >= machine.next_stream) return NULL;
    return machine.streams[offset / HANDLE_STEP];
}

Stream* legacy_stream(int number) {
    FakeContextState* context = &machine.contexts[number];
    if (context->legacy == 0) context->legacy = make_stream(number, 0, 1);
    return machine.streams[context->legacy];
}

void* event_handle(size_t index) { return (void*)(EVENT_HANDLES + index * HANDLE_STEP); }

size_t event_index(void* handle) { return ((uintptr_t)handle - EVENT_HANDLES) / HANDLE_STEP; }

Event* event_of(void* handle) {
    uintptr_t offset = (uintptr_t)handle - EVENT_HANDLES;
    if (offset % HANDLE_STEP != 0 || offset / HANDLE_STEP >= machine.next_event) return NULL;
    return machine.events[offset / HANDLE_STEP];
}

enum Kind { BLOCKING, NONBLOCKING, LEGACY };

// A handle of a new stream of a context, or of its legacy one.
static FakeStream new_stream(int context, enum Kind kind) {
    LOCKED;
    if (kind != LEGACY) return stream_handle(make_stream(context, kind == NONBLOCKING, 0));
    if (context < 0 || context >= MAX_CONTEXTS || !is_device(device_of(context))) return NULL;
    legacy_stream(context);
    return stream_handle(machine.contexts[context].legacy);
}

FakeStream fake_stream(int device) { return new_stream(device, BLOCKING); }
FakeStream fake_stream_nonblocking(int device) { return new_stream(device, NONBLOCKING); }
FakeStream fake_legacy_stream(int device) { return new_stream(device, LEGACY); }

FakeStream fake_context_stream(FakeContext context, int legacy) {
    machine_lock();
    int index = context_index(context);
    machine_unlock();
    return new_stream(index, legacy ? LEGACY : NONBLOCKING);
}

// Work that a test launches: in a capture it goes into the graph, that is nowhere.
static int launch(FakeStream handle, Op* op) {
    machine_lock();
    Stream* stream = stream_of(handle);
    int known = stream != NULL;
    if (known && op->kind == OP_HANG) op->number = ++stream->hangs;
    if (known && stream->capture == CAPTURE_NONE)
        enqueue(stream, op);
    else
        free(op);
    machine_unlock();
    return known ? 0 : -1;
}

int fake_store(FakeStream stream, FakePointer pointer, const void* bytes, size_t size) {
    int device;
    machine_lock();
    int known = is_device_memory(pointer, size, &device);
    machine_unlock();
    if (!known) return -1;
    Op* op = new_op(OP_STORE, size);
    op->pointer = pointer;
    op->size = size;
    memcpy(op->bytes, bytes, size);
    return launch(stream, op);
}

int fake_delay(FakeStream stream, long microseconds) {
    Op* op = new_op(OP_DELAY, 0);
    op->microseconds = microseconds;
    return launch(stream, op);
}

int fake_hang(FakeStream stream) { return launch(stream, new_op(OP_HANG, 0)); }

int fake_release(FakeStream handle) {
    LOCKED;
    Stream* stream = stream_of(handle);
    if (stream == NULL) return -1;
    stream->released = stream->hangs;
    pthread_cond_signal(&stream->wake);
    return 0;
}

int is_idle(const Stream* stream) { return stream->head == NULL && !stream->busy; }

int fake_wait(FakeStream handle, long microseconds) {
    struct timespec end = after(microseconds);
    LOCKED;
    Stream* stream = stream_of(handle);
    int late = 0;
    while (stream != NULL && !is_idle(stream) && !late) {
        late = pthread_cond_timedwait(&machine.idle, &machine.lock, &end) != 0;
        stream = stream_of(handle);  // a reset may have taken it
    }
    return stream != NULL && is_idle(stream);
}

// ---- capture ----------------------------------------------------------------------------------

int fake_begin_capture(FakeStream handle, int mode) {
    LOCKED;
    Stream* stream = stream_of(handle);
    if (stream == NULL || stream->capture != CAPTURE_NONE || stream->legacy) return -1;
    stream->capture = CAPTURE_ACTIVE;
    stream->capture_mode = mode;
    stream->capture_owner = this_thread();
    machine.captures += 1;
    return 0;
}

int fake_end_capture(FakeStream handle) {
    LOCKED;
    Stream* stream = stream_of(handle);
    if (stream == NULL || stream->capture == CAPTURE_NONE) return 0;
    int valid = stream->capture == CAPTURE_ACTIVE;
    stream->capture = CAPTURE_NONE;
    machine.captures -= 1;
    return valid;
}

// ---- start, stop -----------------------------------------------------------------------------

int fake_set_devices(int count) {
    if (count < 1 || count > MAX_DEVICES) return -1;
    LOCKED;
    machine.device_count = count;
    return 0;
}

void fake_queue_depth(size_t depth) {
    LOCKED;
    machine.queue_depth = depth;
    pthread_cond_broadcast(&machine.idle);
}

int fake_activate(int device) {
    LOCKED;
    if (!is_device(device)) return -1;
    machine.devices[device].active = 1;
    return 0;
}

int fake_break(int device, int code) {
    LOCKED;
    if (!is_device(device)) return -1;
    machine.devices[device].broken = code;
    return 0;
}

static void end_stream(Stream* stream) {
    pthread_join(stream->worker, NULL);
    for (Op* op = stream->head; op != NULL;) {
        Op* next = op->next;
        free(op);
        op = next;
    }
    pthread_cond_destroy(&stream->wake);
    free(stream);
}

void fake_reset(void) {
    machine_lock();
    // First nothing can be found any more, by no other thread; then the workers end.
    size_t count = machine.next_stream - machine.first_stream;
    Stream** ending = calloc(count + 1, sizeof(Stream*));
    if (ending == NULL) abort();
    for (size_t i = 0; i < count; ++i) {
        ending[i] = machine.streams[machine.first_stream + i];
        machine.streams[machine.first_stream + i] = NULL;
        ending[i]->stopping = 1;
        pthread_cond_signal(&ending[i]->wake);
    }
    machine.first_stream = machine.next_stream;
    for (size_t i = machine.first_event; i < machine.next_event; ++i) {
        free(machine.events[i]);
        machine.events[i] = NULL;
    }
    machine.first_event = machine.next_event;
    for (int i = 0; i < MAX_DEVICES; ++i) {
        Device* device = &machine.devices[i];
        device->active = device->broken = 0;
        device->top = device->freed_count = 0;
        memset(device->length, 0, sizeof device->length);
        memset(device->unmapped, 0, sizeof device->unmapped);
    }
    memset(machine.contexts, 0, sizeof machine.contexts);
    machine.queue_depth = 0;
    machine.device_count = 2;
    machine.captures = 0;
    generation += 1;
    reset_driver(1);
    pthread_cond_broadcast(&machine.idle);
    machine_unlock();
    for (size_t i = 0; i < count; ++i) end_stream(ending[i]);
    free(ending);
}
