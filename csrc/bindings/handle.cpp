#include "bindings/handle.hpp"

#include "bindings/submit.hpp"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <new>
#include <system_error>

#include "bindings/gil.hpp"

namespace fastlog::bindings {

PyObject* RecorderHandle::closed_error = nullptr;

namespace {

constexpr std::size_t kChildRingBytes = std::size_t{1} << 20;

void set_closed_error() noexcept {
    PyErr_SetString(RecorderHandle::closed_error,
                    "this Recorder is closed; open a new one to go on recording");
}

std::int64_t to_ns(double seconds) noexcept {
    constexpr double kMost = 1e9;  // about 30 years: as good as forever
    if (!(seconds > 0)) return 0;
    return static_cast<std::int64_t>(std::fmin(seconds, kMost) * 1e9);
}

}  // namespace

RecorderHandle::RecorderHandle(RecorderOptions options, py::object hook) : hook_(std::move(hook)) {
    Recorder* core = nullptr;
    {
        const GilReleased unlocked;  // creates directories and files
        core = new Recorder(std::move(options));
        label_ = core->stats().flusher.label;
    }
    core_.store(core, std::memory_order_release);
    tell_messages();
}

RecorderHandle::~RecorderHandle() {
    Recorder* core = core_.load(std::memory_order_acquire);
    if (core->gate().bits() & Gate::kForked) return;  // the parent's: leaked here
    bool ended;
    {
        const GilReleased unlocked;
        ended = core->close(to_ns(1.0));
        if (ended) delete core;
    }
    // A flush thread that does not end (a dead disk) still uses the core: leaked.
}

void RecorderHandle::set_unopened_error() noexcept {
    PyErr_SetString(PyExc_RuntimeError, "this Recorder was never opened: its __init__ did not run");
}

bool RecorderHandle::attend(bool for_recording) {
    std::uint32_t bits = core().gate().bits();
    if ((bits & Gate::kForked) && !(bits & Gate::kClosed)) {
        if (!reopen_in_child()) return false;
        bits = core().gate().bits();
    }
    if (bits & Gate::kMessages) tell_messages();
    if (bits & Gate::kClosed) {
        PyErr_SetString(closed_error, "this Recorder is closed; open a new one to go on recording");
        return false;
    }
    if ((bits & Gate::kDrops) && for_recording) core().submit_drop_markers();
    return true;
}

// In the child of a fork: the parent's flush thread does not exist here, its locks may be held for
// ever and its ring is not mapped. Open a core of our own and leave the inherited one alone.
bool RecorderHandle::reopen_in_child() {
    std::string label;
    try {
        const GilReleased unlocked;
        const std::lock_guard lock(reopen_mutex_);
        Recorder* inherited = core_.load(std::memory_order_acquire);
        if (!(inherited->gate().bits() & Gate::kForked)) return true;  // another thread was faster
        RecorderOptions options = inherited->options();
        options.ring_bytes = std::min(options.ring_bytes, kChildRingBytes);
        options.sink.label = (label_.empty() ? "w" : label_ + "-w") + std::to_string(::getpid());
        options.sink.worker = true;
        key_sets_stale_ = true;
        auto* own = new Recorder(std::move(options));
        label_ = label = own->stats().flusher.label;
        core_.store(own, std::memory_order_release);
    } catch (const std::exception& error) {
        PyErr_Format(PyExc_RuntimeError, "cannot open a recorder in this forked process: %s",
                     error.what());
        return false;
    }
    if (key_sets_stale_) {
        key_sets_stale_ = false;
        key_sets_.clear();  // ids of the parent's key table
    }
    call_hook("forked", label);
    tell_messages();
    return true;
}

bool RecorderHandle::wait_for_room(std::size_t payload) {
    Recorder& recorder = core();
    const GilReleased unlocked;
    return recorder.wait_for_room(payload);
}

int submit_refused(RecorderHandle& handle, Recorder::Submit result, CallKind call, Stream stream,
                   std::size_t length) noexcept {
    Recorder& core = handle.core();
    if (result == Recorder::Submit::closed) {
        core.slot().uncount_call(call);
        set_closed_error();
        return -1;
    }
    if (result == Recorder::Submit::full && core.may_block() && handle.wait_for_room(length)) {
        return 2;
    }
    try {
        core.count_drop(stream, result == Recorder::Submit::too_large);
    } catch (const std::bad_alloc&) {
        // No memory for the message; the drop itself has been counted.
    }
    return 0;
}

bool RecorderHandle::flush(double timeout_s) {
    Recorder& recorder = core();
    if (recorder.gate().bits() & Gate::kForked) return true;  // nothing recorded here yet
    bool written;
    {
        const GilReleased unlocked;
        written = recorder.flush(to_ns(timeout_s));
    }
    tell_messages();
    return written;
}

bool RecorderHandle::flush_stream(int stream, double timeout_s) {
    if (stream < 0 || stream >= static_cast<int>(kStreamCount)) {
        throw py::value_error("no such stream");
    }
    Recorder& recorder = core();
    if (recorder.gate().bits() & Gate::kForked) return true;  // nothing recorded here yet
    bool written;
    {
        const GilReleased unlocked;
        written = recorder.flush(static_cast<Stream>(stream), to_ns(timeout_s));
    }
    tell_messages();
    return written;
}

bool RecorderHandle::close(double timeout_s) {
    Recorder& recorder = core();
    if (recorder.gate().bits() & Gate::kForked) {
        recorder.abandon_in_child();  // nothing recorded here
        return true;
    }
    bool written;
    {
        const GilReleased unlocked;
        written = recorder.close(to_ns(timeout_s));
    }
    tell_messages();
    return written;
}

void RecorderHandle::attend_to_show() {
    if (core().gate().bits() & (Gate::kForked | Gate::kMessages)) {
        if (!attend(false) && PyErr_Occurred()) {
            if (!PyErr_ExceptionMatches(closed_error)) throw py::error_already_set();
            PyErr_Clear();  // the figures of a closed recorder stay readable
        }
    }
}

RecorderStats RecorderHandle::stats() {
    attend_to_show();
    Recorder& recorder = core();
    if (recorder.gate().bits() & Gate::kForked) return {};  // closed before the fork
    const GilReleased unlocked;
    return recorder.stats();
}

std::vector<std::string> RecorderHandle::files() {
    attend_to_show();
    Recorder& recorder = core();
    if (recorder.gate().bits() & Gate::kForked) return {};  // closed before the fork
    const GilReleased unlocked;
    return recorder.files();
}

std::size_t RecorderHandle::largest_payload() noexcept {
    Recorder& recorder = core();
    const std::size_t own = recorder.max_payload();
    if (!(recorder.gate().bits() & Gate::kForked)) return own;
    return std::min(own, kChildRingBytes / 8 - sizeof(RecordHeader));
}

void RecorderHandle::tell_messages() {
    Recorder& recorder = core();
    if ((recorder.gate().bits() & Gate::kForked) || !recorder.gate().clear(Gate::kMessages)) return;
    for (const std::string& text : recorder.take_messages()) call_hook("message", text);
}

void RecorderHandle::call_hook(const char* kind, const std::string& text) noexcept {
    PyObject* type;
    PyObject* value;
    PyObject* trace;
    PyErr_Fetch(&type, &value, &trace);
    // Decoded here: "s#" refuses the bytes of a path that is not UTF-8, and needs PY_SSIZE_T_CLEAN.
    PyObject* sentence =
        PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace");
    PyObject* result = sentence == nullptr ? nullptr : python_call([&] {
        return PyObject_CallFunction(hook_.ptr(), "sO", kind, sentence);
    });
    Py_XDECREF(sentence);
    if (result == nullptr) PyErr_WriteUnraisable(hook_.ptr());  // must not reach training
    Py_XDECREF(result);
    PyErr_Restore(type, value, trace);
}

}  // namespace fastlog::bindings
