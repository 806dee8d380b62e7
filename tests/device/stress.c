// Many threads on the fake driver at once, for ThreadSanitizer and AddressSanitizer.
//
// Recorders copy and record on their own streams, one poller asks about all events, one thread
// frees, allocates, injects and lets calls wait, in a context of its own too; then two threads go on through resets. With the argument "early" a slot is read before its event is ready:
// the race that the fake has to show.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fake_cuda.h"

int cuDevicePrimaryCtxRetain(void** context, int device);
int cuCtxSetCurrent(void* context);
int cuMemHostAlloc(void** bytes, size_t size, unsigned flags);
int cuMemcpyDtoHAsync_v2(void* host, FakePointer pointer, size_t size, FakeStream stream);
int cuEventCreate(void** event, unsigned flags);
int cuEventDestroy_v2(void* event);
int cuEventRecord(void* event, FakeStream stream);
int cuEventQuery(void* event);
int cuThreadExchangeStreamCaptureMode(int* mode);

enum { RECORDERS = 3, ROUNDS = 200, DEVICES = 2 };

typedef struct {
    int device;
    FakeStream stream;
    FakePointer value;
    int* slots;  // pinned, one for each round
    void* events[ROUNDS];
    atomic_int recorded;  // release: the events below it are recorded
} Recorder;

static Recorder recorders[RECORDERS];

#define CHECK(condition)                                                    \
    do {                                                                    \
        if (!(condition)) {                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                        \
        }                                                                   \
    } while (0)

static void use(int device) {
    void* context;
    CHECK(cuDevicePrimaryCtxRetain(&context, device) == 0 && cuCtxSetCurrent(context) == 0);
}

static void* record(void* argument) {
    Recorder* self = argument;
    use(self->device);
    for (int i = 0; i < ROUNDS; ++i) {
        CHECK(fake_store(self->stream, self->value, &i, sizeof i) == 0);
        CHECK(cuMemcpyDtoHAsync_v2(&self->slots[i], self->value, sizeof i, self->stream) == 0);
        CHECK(cuEventCreate(&self->events[i], 2) == 0);
        CHECK(cuEventRecord(self->events[i], self->stream) == 0);
        if (i % 50 == 0) fake_delay(self->stream, 200);
        atomic_store_explicit(&self->recorded, i + 1, memory_order_release);
    }
    return NULL;
}

static void* disturb(void* argument) {
    (void)argument;
    FakeStream stream = fake_stream_nonblocking(0);
    for (int i = 0; i < ROUNDS; ++i) {
        FakePointer pointer = fake_malloc(0, 4);
        CHECK(pointer != 0 && fake_store_now(pointer, &i, sizeof i) == 0);
        CHECK(fake_begin_capture(stream, FAKE_GLOBAL) == 0 && fake_end_capture(stream));
        CHECK(fake_unmap(pointer) == 0 && fake_free(pointer, stream) == 0);
        fake_not_ready(1);
        fake_queue_depth(i % 4 == 0 ? 0 : 3);
        CHECK(fake_stall("cuEventRecord", i % 8 == 0) == 0);
        CHECK(fake_count("cuEventQuery") >= 0);
    }
    FakeContext context = fake_context(0);
    CHECK(context != NULL && cuCtxSetCurrent(context) == 0);
    FakeStream streams[] = {NULL, fake_context_stream(context, 0)};
    for (int i = 0; i < ROUNDS; ++i) {
        void* event;
        CHECK(cuEventCreate(&event, 2) == 0 && cuEventRecord(event, streams[i % 2]) == 0);
        CHECK(cuEventDestroy_v2(event) == 0);
    }
    fake_queue_depth(3);  // for the rest: whoever waits for room gets it
    CHECK(fake_stall("cuEventRecord", 0) == 0);
    return NULL;
}

static void poll_all(void) {
    int mode = FAKE_RELAXED;
    CHECK(cuThreadExchangeStreamCaptureMode(&mode) == 0 && mode == FAKE_GLOBAL);
    int next[RECORDERS] = {0};
    for (int done = 0; done < RECORDERS * ROUNDS;) {
        for (int i = 0; i < RECORDERS; ++i) {
            Recorder* self = &recorders[i];
            if (next[i] == atomic_load_explicit(&self->recorded, memory_order_acquire)) continue;
            if (cuEventQuery(self->events[next[i]]) != 0) continue;
            CHECK(self->slots[next[i]] == next[i]);
            next[i] += 1;
            done += 1;
        }
    }
}

static atomic_int resets_done;

// Works on while everything is taken away: calls may fail, never more than that.
static void* insist(void* argument) {
    int* slots = argument;
    for (int round = 0; !atomic_load(&resets_done); ++round) {
        void* context;
        void* event = NULL;
        if (cuDevicePrimaryCtxRetain(&context, 0) != 0 || cuCtxSetCurrent(context) != 0) continue;
        FakePointer pointer = fake_malloc(0, 4);
        FakeStream stream = fake_stream(0);
        fake_delay(stream, 50);
        // A slot per round: the last round's copy may still run, given up or taken by a reset.
        cuMemcpyDtoHAsync_v2(&slots[round % ROUNDS], pointer, 4, stream);
        if (cuEventCreate(&event, 2) == 0 && cuEventRecord(event, stream) == 0)
            for (int i = 0; i < 100 && cuEventQuery(event) == 600; ++i) fake_wait(stream, 10);
        fake_free(pointer, stream);
    }
    return NULL;
}

static void reset_meanwhile(void* slots[2]) {
    pthread_t threads[2];
    for (int i = 0; i < 2; ++i) pthread_create(&threads[i], NULL, insist, slots[i]);
    for (int i = 0; i < 50; ++i) {
        struct timespec pause = {0, 500000};
        nanosleep(&pause, NULL);
        fake_reset();
    }
    atomic_store(&resets_done, 1);
    for (int i = 0; i < 2; ++i) pthread_join(threads[i], NULL);
    fake_reset();
}

static int read_early(void) {
    Recorder* self = &recorders[0];
    int value = 7;
    fake_store_now(self->value, &value, sizeof value);
    fake_delay(self->stream, 1000);
    CHECK(cuMemcpyDtoHAsync_v2(self->slots, self->value, sizeof value, self->stream) == 0);
    // No call of the fake from here on: one would order this read after the worker's write.
    for (long i = 0; i < 1000L * 1000 * 1000 && self->slots[0] != 7; ++i)
        __asm__ volatile("" ::: "memory");
    return self->slots[0] == 7 ? 0 : 1;
}

int main(int argc, char** argv) {
    fake_set_devices(DEVICES);
    for (int i = 0; i < RECORDERS; ++i) {
        Recorder* self = &recorders[i];
        self->device = i % DEVICES;
        fake_activate(self->device);
        use(self->device);
        self->stream = fake_stream_nonblocking(self->device);
        self->value = fake_malloc(self->device, sizeof(int));
        CHECK(cuMemHostAlloc((void**)&self->slots, ROUNDS * sizeof(int), 1) == 0);
    }
    use(0);
    if (argc > 1 && strcmp(argv[1], "early") == 0) return read_early();
    pthread_t threads[RECORDERS + 1];
    for (int i = 0; i < RECORDERS; ++i) pthread_create(&threads[i], NULL, record, &recorders[i]);
    pthread_create(&threads[RECORDERS], NULL, disturb, NULL);
    poll_all();
    for (int i = 0; i <= RECORDERS; ++i) pthread_join(threads[i], NULL);
    CHECK(fake_count("pageable_copies") == 0 && fake_count("synchronisations") == 0);
    CHECK(fake_count("live_events") == RECORDERS * ROUNDS);
    fake_hang(recorders[0].stream);
    fake_reset();
    CHECK(fake_count("live_events") == 0 && cuEventQuery(recorders[0].events[0]) == 201);
    void* slots[2] = {recorders[0].slots, recorders[1].slots};
    reset_meanwhile(slots);
    return 0;
}
