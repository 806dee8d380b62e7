// Inside of the fake driver: devices, their memory, and streams with their workers.
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "fake_cuda.h"

enum {
    MAX_DEVICES = 8,
    MAX_CONTEXTS = 64,      // the first MAX_DEVICES are the primary ones
    MAX_STREAMS = 1 << 16,  // over the life of the process: handles are never given out twice
    MAX_EVENTS = 1 << 20,
    BLOCK = 512,  // unit of device memory
    ARENA = 16 << 20,
    BLOCKS = ARENA / BLOCK,
};

enum OpKind { OP_COPY, OP_STORE, OP_POISON, OP_RECORD, OP_DELAY, OP_HANG };

typedef struct Op {
    struct Op* next;
    enum OpKind kind;
    FakePointer pointer;
    void* host;  // where a copy goes
    size_t size;
    unsigned long number;      // RECORD: index of the event; HANG: its ticket
    unsigned long generation;  // RECORD: which record of that event
    long microseconds;
    unsigned char bytes[];  // STORE
} Op;

enum CaptureState { CAPTURE_NONE = 0, CAPTURE_ACTIVE = 1, CAPTURE_INVALID = 2 };

typedef struct Stream {
    int device;
    int context;  // index
    int nonblocking;
    int legacy;
    pthread_t worker;
    pthread_cond_t wake;
    Op* head;
    Op* tail;
    size_t queued;  // ops that are not done
    int busy;
    int stopping;
    unsigned long hangs;     // tickets given out
    unsigned long released;  // hangs up to this ticket end
    enum CaptureState capture;
    int capture_mode;
    unsigned long capture_owner;
} Stream;

typedef struct Event {
    int device;
    int context;  // index
    int timed;
    int captured;               // last recorded into a graph
    unsigned long recorded;     // generation asked for
    unsigned long completed;    // generation that the worker has reached
    struct timespec timestamp;  // of `completed`
} Event;

typedef struct Device {
    int active;
    int broken;  // 0, or the sticky error
    // Written once, by the first allocation; read afterwards by everyone.
    unsigned char* shown;  // PROT_NONE: the addresses that are given out
    unsigned char* alias;  // the same bytes, for the workers
    size_t top;            // blocks ever given out
    uint32_t length[BLOCKS];
    uint32_t freed[BLOCKS];  // stack of first blocks
    size_t freed_count;
    unsigned char unmapped[BLOCKS];  // by first block: to read it is an illegal address
} Device;

// A primary context, or one that somebody else made on a device.
typedef struct FakeContextState {
    int used;
    int device;
    size_t legacy;  // index of its legacy stream, 0: none yet
} FakeContextState;

// Who touches what: everything is read and written under `lock`, by callers and workers alike,
// except the bytes behind `alias`, which have `bytes_lock`, and the host memory of a copy, which
// the worker writes under no lock at all: only the query that returns "ready" orders it before the
// reader, so a reader that is too early is a race that ThreadSanitizer reports.
typedef struct Machine {
    pthread_mutex_t lock;
    pthread_mutex_t bytes_lock;
    pthread_cond_t idle;  // a stream has less to do, or is gone; or a stalled call goes on
    int device_count;
    Device devices[MAX_DEVICES];
    FakeContextState contexts[MAX_CONTEXTS];
    size_t queue_depth;            // a call that would queue more on a stream waits; 0: none does
    Stream* streams[MAX_STREAMS];  // index 0 is never used
    size_t first_stream;           // since the last reset
    size_t next_stream;
    Event* events[MAX_EVENTS];
    size_t first_event;
    size_t next_event;
    size_t captures;  // streams that capture
} Machine;

extern Machine machine;

// Holds the lock to the end of the block.
#define LOCKED                                                    \
    __attribute__((cleanup(end_of_lock), unused)) int locked = 0; \
    machine_lock()

// Everything below, except the first two, is called with the lock held.
void machine_lock(void);
void machine_unlock(void);
static inline void end_of_lock(int* locked) {
    (void)locked;
    machine_unlock();
}
Stream* stream_of(FakeStream handle);  // NULL when there is no such stream
Stream* legacy_stream(int context);
void* context_handle(int context);
int is_device(int number);
int device_of(int context);       // of a context that there is
int context_index(void* handle);  // -1: there is no such context
Event* event_of(void* handle);
void* event_handle(size_t index);
size_t event_index(void* handle);  // of a handle that event_of() knows
Op* new_op(enum OpKind kind, size_t payload);
void enqueue(Stream* stream, Op* op);
int is_device_memory(FakePointer pointer, size_t size, int* device);
int is_idle(const Stream* stream);
unsigned long this_thread(void);
unsigned long machine_generation(void);  // changes with each reset
void reset_driver(int everything);       // of fake_cuda.c: its counts and injections
