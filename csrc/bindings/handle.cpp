#include "bindings/handle.hpp"

#include "bindings/submit.hpp"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <memory>
#include <new>
#include <system_error>
#include <utility>

#include "bindings/device_send.hpp"
#include "bindings/gil.hpp"
#include "bindings/timed_block.hpp"

namespace fastlog::bindings {

PyObject* RecorderHandle::closed_error = nullptr;

namespace {

constexpr std::size_t kChildRingBytes = std::size_t{1} << 20;
constexpr std::int64_t kFirstRetryNs = 100'000'000;
constexpr std::int64_t kLongestRetryNs = 5'000'000'000;

// Only one thread at a time opens a forked child's engine. In a child of that child the lock is always free:
// what it guards there is the inherited engine, which does not change.
pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;

class OpeningLock {
  public:
    OpeningLock() noexcept { ::pthread_mutex_lock(&opening); }
    ~OpeningLock() { ::pthread_mutex_unlock(&opening); }
    OpeningLock(const OpeningLock&) = delete;
    OpeningLock& operator=(const OpeningLock&) = delete;
};

// The current Python error, restored at the end of the scope.
class KeptError {
  public:
    KeptError() noexcept { PyErr_Fetch(&type_, &value_, &trace_); }
    ~KeptError() { PyErr_Restore(type_, value_, trace_); }
    KeptError(const KeptError&) = delete;
    KeptError& operator=(const KeptError&) = delete;

  private:
    PyObject* type_;
    PyObject* value_;
    PyObject* trace_;
};

// Returns whether signals are handled in this thread.
bool is_main_thread() noexcept {
    try {
        const auto threading = py::module_::import("threading");
        return threading.attr("main_thread")().attr("ident").cast<unsigned long>() ==
               PyThread_get_thread_ident();
    } catch (const std::exception&) {
        return false;
    }
}

// An error raised by a Python callback must not reach training. In the main thread, however, anything that is
// not an Exception comes from a signal, such as KeyboardInterrupt, and is raised once the caller is back in
// its own code.
void handle_callback_error(PyObject* where) noexcept {
    const auto raise = [](void* error) {
        delete static_cast<KeptError*>(error);  // sets the error
        return -1;
    };
    if (!PyErr_ExceptionMatches(PyExc_Exception)) {
        std::unique_ptr<KeptError> error(new (std::nothrow) KeptError);
        if (error && is_main_thread() && Py_AddPendingCall(raise, error.get()) == 0) {
            error.release();
            return;
        }
    }
    PyErr_WriteUnraisable(where);
}

void set_closed_error() noexcept {
    PyErr_SetString(RecorderHandle::closed_error,
                    "this Recorder is closed; open a new one to continue recording");
}

std::int64_t to_ns(double seconds) noexcept {
    constexpr double kMost = 1e9;  // about 30 years: as good as forever
    if (!(seconds > 0)) return 0;
    return static_cast<std::int64_t>(std::fmin(seconds, kMost) * 1e9);
}

}  // namespace

void RecorderHandle::watch_forks() {
    const int code = ::pthread_atfork(nullptr, nullptr,
                                      [] { opening = pthread_mutex_t PTHREAD_MUTEX_INITIALIZER; });
    if (code != 0) throw std::system_error(code, std::generic_category(), "pthread_atfork");
}

RecorderHandle::RecorderHandle(RecorderOptions options, OnBadValue on_bad_value, py::object hook)
    : on_bad_value_(on_bad_value), hook_(std::move(hook)) {
    Engine* engine = nullptr;
    {
        const GilReleased unlocked;  // creates directories and files
        engine = new Engine(std::move(options), Page::around(this).self);
    }
    page_.store(engine->page.get(), std::memory_order_release);
    tell_messages(*engine);
}

RecorderHandle::~RecorderHandle() {
    Engine* engine = &current();
    engine->key_sets.clear();
    if (engine->inherited()) return;  // the rest is the parent's and leaked here
    const GilReleased unlocked;
    // A flush thread that does not end (a hung disk) still uses the core: leaked.
    if (engine->core.close(to_ns(1.0))) delete engine;
}

[[gnu::noinline, gnu::cold]] void RecorderHandle::set_unopened_error() noexcept {
    PyErr_SetString(PyExc_RuntimeError,
                    "this Recorder was never opened: its __init__ was not called, or it failed");
}

Page* RecorderHandle::attend(bool for_recording) noexcept {
    for (;;) {
        Engine& engine = current();
        const std::uint32_t bits = engine.core.attention().bits();
        if ((bits & AttentionBits::kForked) && !(bits & AttentionBits::kClosed)) {
            if (!reopen_in_child()) return nullptr;
            continue;
        }
        if ((bits & AttentionBits::kMessages) && tell_messages(engine))
            continue;  // the hook may have forked
        if ((bits & AttentionBits::kKept) && engine.core.attention().clear(AttentionBits::kKept)) {
            drop_kept();
            continue;  // likewise
        }
        if (bits & AttentionBits::kClosed) {
            set_closed_error();
            return nullptr;
        }
        if ((bits & AttentionBits::kDrops) && for_recording) engine.core.submit_drop_markers();
        return engine.page.get();
    }
}

// In a forked child: the parent's flush thread does not exist here, its locks may be held forever, and its
// ring is not mapped. False when no engine is available now: logging must not end training.
bool RecorderHandle::reopen_in_child() noexcept {
    if (monotonic_ns() < retry_at_ns_.load(std::memory_order_relaxed)) return false;
    bool opened = false;
    bool tell = false;
    std::string text;
    {
        const GilReleased unlocked;
        const OpeningLock lock;
        Engine& inherited = current();
        // Another thread was faster, or has closed the recorder.
        if (!inherited.inherited() || (inherited.core.attention().bits() & AttentionBits::kClosed))
            return true;
        if (monotonic_ns() < retry_at_ns_.load(std::memory_order_relaxed)) return false;
        opened = open_child_engine(inherited, text);
        tell = !opened && !text.empty() && !std::exchange(reported_unopened_, true);
    }
    if (opened) {
        call_hook("forked", text);
        tell_messages(current());
    } else if (tell) {
        call_hook("message", text);
    }
    return opened;
}

// Sets `text` to the child's label, or to a sentence that says why it could not be opened.
bool RecorderHandle::open_child_engine(Engine& inherited, std::string& text) noexcept {
    try {
        try {
            RecorderOptions options = inherited.core.options();
            const std::string& label = inherited.core.label();
            options.ring_bytes = std::min(options.ring_bytes, kChildRingBytes);
            options.sink.label = (label.empty() ? "w" : label + "-w") + std::to_string(::getpid());
            options.sink.worker = true;
            auto* own = new Engine(std::move(options), std::make_shared<Page>());
            hand_over_lost_calls(own->core);
            page_.store(own->page.get(),
                        std::memory_order_release);  // the inherited engine is leaked
            text = own->core.label();
            return true;
        } catch (const std::exception& error) {
            retry_after_ns_ = std::clamp(2 * retry_after_ns_, kFirstRetryNs, kLongestRetryNs);
            retry_at_ns_.store(monotonic_ns() + retry_after_ns_, std::memory_order_relaxed);
            text =
                std::string("foundry_fastlog cannot record in this forked process: ") +
                error.what() +
                ". Its records are dropped and counted in stats()['dropped']; opening is retried.";
        }
    } catch (const std::bad_alloc&) {
        // No memory for the sentence; it is reported at the next attempt.
    }
    return false;
}

int RecorderHandle::unready(CallKind call, Stream stream) noexcept {
    if (PyErr_Occurred()) return -1;
    lost_calls_[static_cast<std::size_t>(call)][static_cast<std::size_t>(stream)].fetch_add(
        1, std::memory_order_relaxed);
    return 0;
}

void RecorderHandle::hand_over_lost_calls(Recorder& core) noexcept {
    for (std::size_t k = 0; k < kCallKinds; ++k) {
        for (std::size_t s = 0; s < kStreamCount; ++s) {
            const std::uint64_t calls = lost_calls_[k][s].exchange(0, std::memory_order_relaxed);
            if (calls == 0) continue;
            core.count_lost_calls(static_cast<CallKind>(k), static_cast<Stream>(s), calls);
        }
    }
}

void RecorderHandle::add_lost_calls(RecorderStats& stats) const noexcept {
    for (std::size_t k = 0; k < kCallKinds; ++k) {
        for (std::size_t s = 0; s < kStreamCount; ++s) {
            const std::uint64_t calls = lost_calls_[k][s].load(std::memory_order_relaxed);
            stats.calls.calls[k] += calls;
            stats.calls.dropped += calls;
            stats.flush.streams[s].dropped += calls;
        }
    }
}

int submit_refused(Recorder& core, Recorder::Submit result, CallKind call, Stream stream,
                   std::size_t length) noexcept {
    if (result == Recorder::Submit::closed) {
        core.slot().uncount_call(call);
        set_closed_error();
        return -1;
    }
    if (result == Recorder::Submit::full && core.may_block()) {
        const GilReleased unlocked;
        if (core.wait_for_room(length)) return 2;
    }
    core.count_drop(stream, result == Recorder::Submit::too_large);
    return 0;
}

template <class Flush>
bool RecorderHandle::flush_by(Flush&& flush) {
    Engine& engine = current();
    if (engine.inherited()) return true;  // nothing recorded here yet
    bool written;
    {
        const GilReleased unlocked;
        written = flush(engine.core);
    }
    if (engine.core.has_device()) drop_kept();
    tell_messages(engine);
    return written;
}

bool RecorderHandle::flush(double timeout_s) {
    return flush_by([&](Recorder& core) { return core.flush(to_ns(timeout_s)); });
}

bool RecorderHandle::flush_stream(int stream, double timeout_s) {
    if (stream < 0 || stream >= static_cast<int>(kStreamCount)) {
        throw py::value_error("no such stream");
    }
    return flush_by(
        [&](Recorder& core) { return core.flush(static_cast<Stream>(stream), to_ns(timeout_s)); });
}

// Closes what a forked child inherited; false if the child already has its own engine.
bool RecorderHandle::close_inherited() noexcept {
    if (!current().inherited()) return false;
    const GilReleased unlocked;
    const OpeningLock lock;  // a thread may be opening the child's own engine right now
    Engine& engine = current();
    if (!engine.inherited()) return false;
    engine.core.abandon_in_child();
    return true;
}

bool RecorderHandle::close(double timeout_s) {
    if (close_inherited()) return true;  // nothing recorded here
    Engine& engine = current();
    bool written;
    {
        const GilReleased unlocked;
        written = engine.core.close(to_ns(timeout_s));
    }
    drop_blocks_of_recorder(*this);
    if (engine.core.has_device()) drop_kept();
    tell_messages(engine);
    return written;
}

void RecorderHandle::attend_to_show() {
    if ((current().core.attention().bits() & (AttentionBits::kForked | AttentionBits::kMessages)) ==
        0)
        return;
    if (attend(false) != nullptr || !PyErr_Occurred()) return;
    if (!PyErr_ExceptionMatches(closed_error)) throw py::error_already_set();
    PyErr_Clear();  // the statistics of a closed recorder stay available
}

RecorderStats RecorderHandle::stats() {
    attend_to_show();
    Engine& engine = current();
    RecorderStats stats;
    if (!engine.inherited()) {  // otherwise closed before the fork, or unavailable now
        const GilReleased unlocked;
        stats = engine.core.stats();
        stats.left_out = engine.left_out.load(std::memory_order_relaxed);
    }
    add_lost_calls(stats);
    return stats;
}

FileId RecorderHandle::directory() {
    Engine& engine = current();
    if (engine.inherited()) return {};
    const GilReleased unlocked;
    return engine.core.stats().flush.directory;
}

std::vector<std::string> RecorderHandle::files() {
    attend_to_show();
    Engine& engine = current();
    if (engine.inherited()) return {};  // see above
    const GilReleased unlocked;
    return engine.core.files();
}

std::size_t RecorderHandle::largest_payload() noexcept {
    Engine& engine = current();
    const std::size_t own = engine.core.max_payload();
    if (!engine.inherited()) return own;
    return std::min(own, kChildRingBytes / 8 - sizeof(RecordHeader));
}

// True if there was a message.
bool RecorderHandle::tell_messages(Engine& engine) noexcept {
    if (engine.inherited() || !engine.core.attention().clear(AttentionBits::kMessages))
        return false;
    for (const std::string& text : engine.core.take_messages()) call_hook("message", text);
    return true;
}

void RecorderHandle::call_hook(const char* kind, const std::string& text) noexcept {
    const KeptError error;
    // Decoded here: "s#" rejects the bytes of a path that is not UTF-8, and needs PY_SSIZE_T_CLEAN.
    PyObject* sentence =
        PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace");
    if (sentence == nullptr) handle_callback_error(hook_.ptr());
    if (sentence != nullptr) call_hook(kind, sentence, Py_None);
    Py_XDECREF(sentence);
}

void RecorderHandle::tell_left_out(PyObject* name) noexcept {
    PyObject* type;
    PyObject* error;
    PyObject* trace;
    PyErr_Fetch(&type, &error, &trace);
    PyErr_NormalizeException(&type, &error, &trace);
    PyObject* why = python_call([&] { return PyObject_Str(error); });
    if (why == nullptr) handle_callback_error(hook_.ptr());
    if (why != nullptr) call_hook("left out", why, name);
    Py_XDECREF(why);
    Py_XDECREF(type);
    Py_XDECREF(trace);
    python_call([&] { Py_XDECREF(error); });
}

void RecorderHandle::call_hook(const char* kind, PyObject* text, PyObject* name) noexcept {
    const KeptError error;
    PyObject* result =
        python_call([&] { return PyObject_CallFunction(hook_.ptr(), "sOO", kind, text, name); });
    if (result == nullptr) handle_callback_error(hook_.ptr());
    Py_XDECREF(result);
}

}  // namespace fastlog::bindings
