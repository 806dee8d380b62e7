// Controls of the fake driver: what a test does to the imagined devices.
//
// The library itself (fake_cuda.c, fake_machine.c) exports the subset of the CUDA driver API that
// the recorder uses, or with -DFAKE_HIP the same under the names of HIP. Linux only.
//
//   cc -std=c11 -shared -fPIC -fvisibility=hidden -pthread -o libfake_cuda.so fake_cuda.c fake_machine.c
//
// All functions are safe from any thread. A test shares the instance with the recorder by loading
// the same path: dlopen() gives both the same library.
#pragma once

#include <stddef.h>

#define FAKE_EXPORT __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

typedef unsigned long long FakePointer;  // a CUdeviceptr
typedef void* FakeStream;                // a CUstream
typedef void* FakeContext;               // a CUcontext

enum FakeCode {
    FAKE_SUCCESS = 0,
    FAKE_INVALID_VALUE = 1,
    FAKE_NOT_INITIALIZED = 3,
    FAKE_INVALID_DEVICE = 101,
    FAKE_INVALID_CONTEXT = 201,
    FAKE_INVALID_HANDLE = 400,
    FAKE_NOT_READY = 600,
    FAKE_ILLEGAL_ADDRESS = 700,
    FAKE_CAPTURE_UNSUPPORTED = 900,
    FAKE_CAPTURE_INVALIDATED = 901,
    FAKE_CAPTURE_IMPLICIT = 906,
    FAKE_CAPTURED_EVENT = 907,
};

enum FakeCaptureMode { FAKE_GLOBAL = 0, FAKE_THREAD_LOCAL = 1, FAKE_RELAXED = 2 };

// ---- the machine ----------------------------------------------------------------------------

// Back to the start: two inactive devices, no streams, events, injections or counts; workers are
// joined, whatever they waited for. Old handles stay invalid for ever. Host memory given out stays
// mapped, so that a slot which the recorder keeps does not become a dangling pointer.
FAKE_EXPORT void fake_reset(void);
// Counts and injections only, for a test beside a recorder that keeps its events and slots.
FAKE_EXPORT void fake_reset_counts(void);
FAKE_EXPORT int fake_set_devices(int count);  // 1..8; 0, or -1 for a bad count
FAKE_EXPORT int fake_activate(int device);    // makes the primary context, as the framework does

// A context beside the primary one, as a green context or another library makes it.
FAKE_EXPORT FakeContext fake_context(int device);  // NULL when there is no such device
// A stream of it, or its legacy stream.
FAKE_EXPORT FakeStream fake_context_stream(FakeContext context, int legacy);

// ---- device memory: the host cannot read it --------------------------------------------------

// Freed blocks of the same size are given out again, the last first, as by a caching allocator.
FAKE_EXPORT FakePointer fake_malloc(int device, size_t size);  // 0 when there is no room
// The block can be reused at once; its bytes become FAKE_POISON in the order of `stream`.
FAKE_EXPORT int fake_free(FakePointer pointer, FakeStream stream);
// A copy that reads the block from now on, whenever it was enqueued, is an illegal address (700).
FAKE_EXPORT int fake_unmap(FakePointer pointer);
FAKE_EXPORT int fake_store(FakeStream stream, FakePointer pointer, const void* bytes, size_t size);
FAKE_EXPORT int fake_store_now(FakePointer pointer, const void* bytes, size_t size);
FAKE_EXPORT int fake_load(FakePointer pointer, void* bytes, size_t size);  // as it is now
#define FAKE_POISON 0xDB

// ---- streams: one worker thread each ---------------------------------------------------------

FAKE_EXPORT FakeStream fake_stream(int device);  // blocking towards the legacy stream's captures
FAKE_EXPORT FakeStream fake_stream_nonblocking(int device);
// A handle for these controls; the recorder says NULL and means its current context's.
FAKE_EXPORT FakeStream fake_legacy_stream(int device);
FAKE_EXPORT int fake_delay(FakeStream stream, long microseconds);
FAKE_EXPORT int fake_hang(FakeStream stream);
FAKE_EXPORT int fake_release(FakeStream stream);                  // every hang enqueued so far
FAKE_EXPORT int fake_wait(FakeStream stream, long microseconds);  // 1: nothing is left to do

// ---- calls that wait -------------------------------------------------------------------------

// The launch queue of a stream: a copy or record beyond it waits until there is room. 0: no bound. The
// controls above never wait.
FAKE_EXPORT void fake_queue_depth(size_t depth);
// Calls of the named function wait while `stalled`; 0, or -1: no such function.
FAKE_EXPORT int fake_stall(const char* name, int stalled);

// ---- injections ------------------------------------------------------------------------------

FAKE_EXPORT void fake_not_ready(int queries);  // the next event queries say "not ready"
// The next `count` calls (-1: all) of the named function return `code`; 0, or -1: no such function.
FAKE_EXPORT int fake_fail(const char* name, int code, int count);
// A sticky error: calls on the device's context return `code`, and its streams do nothing more.
FAKE_EXPORT int fake_break(int device, int code);

// ---- capture ---------------------------------------------------------------------------------

FAKE_EXPORT int fake_begin_capture(FakeStream stream, int mode);  // owned by the calling thread
FAKE_EXPORT int fake_end_capture(FakeStream stream);              // 1: the capture is still valid

// ---- counts ----------------------------------------------------------------------------------

// Calls of an exported function by its name, or one of: "synchronisations", "pageable_copies",
// "contexts_created", "captured_ops", "live_events", "live_host_allocations", "waiting_calls" (those
// that wait now). -1: no such name.
FAKE_EXPORT long fake_count(const char* name);
// Calls made in processes forked from the one that loaded the library. They all return 3.
FAKE_EXPORT long fake_calls_in_child(void);

#ifdef __cplusplus
}
#endif
