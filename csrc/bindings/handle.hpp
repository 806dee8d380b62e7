// What a Python Recorder holds: the core recorder of *this* process.
//
// A forked child inherits the handle, but the core behind it belongs to the parent: the child's
// first use opens a core of its own (reopen_in_child) and forgets the inherited one without touching
// it. All Python-facing code reaches the core through here.
#pragma once

#include <pybind11/pybind11.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "bindings/key_set_cache.hpp"
#include "core/recorder.hpp"

namespace fastlog::bindings {

namespace py = pybind11;

class RecorderHandle {
  public:
    /// `hook(kind, text)` is called with ("message", sentence) for things to tell the user and with
    /// ("forked", label) after a forked child has opened its own files. It must not raise.
    RecorderHandle(RecorderOptions options, py::object hook);
    ~RecorderHandle();
    RecorderHandle(const RecorderHandle&) = delete;
    RecorderHandle& operator=(const RecorderHandle&) = delete;

    Recorder& core() noexcept { return *core_.load(std::memory_order_acquire); }
    KeySetCache& key_sets() noexcept { return key_sets_; }

    /// The slow path of every call, taken when the core's gate shows a bit: opens the child's own
    /// core after a fork, marks drops, tells the user. GIL held. Returns false with a Python error
    /// set when the recorder is closed.
    bool attend(bool for_recording);

    /// Waits for room with the GIL released; false when the record is to be dropped.
    bool wait_for_room(std::size_t payload);

    bool flush(double timeout_s);
    /// Of one stream: what others wait for does not hold it up.
    bool flush_stream(int stream, double timeout_s);
    bool close(double timeout_s);
    bool closed() noexcept { return (core().gate().bits() & Gate::kClosed) != 0; }
    RecorderStats stats();
    /// The files of this process so far; in a forked child those of its own core.
    std::vector<std::string> files();
    /// The largest payload that the ring takes; in a forked child that of the ring it will open.
    std::size_t largest_payload() noexcept;

    /// The step after the last one, for log() without a step; the greatest one stays.
    std::int64_t next_step() const noexcept {
        const std::int64_t last = last_step_.load(std::memory_order_relaxed);
        return last == INT64_MAX ? last : last + 1;
    }
    void saw_step(std::int64_t step) noexcept { last_step_.store(step, std::memory_order_relaxed); }

    /// The handle of a `_core.Recorder` instance; null with a Python error set when its __init__
    /// never ran.
    static RecorderHandle* from(PyObject* self) noexcept {
        // A method descriptor has already checked the type. pybind11 keeps the C++ pointer of a
        // class without C++ bases in the first holder slot (pybind11/detail/common.h, `instance`).
        auto* instance = reinterpret_cast<py::detail::instance*>(self);
        void* value = instance->simple_layout ? instance->simple_value_holder[0] : nullptr;
        if (value == nullptr) [[unlikely]]
            set_unopened_error();
        return static_cast<RecorderHandle*>(value);
    }

    static PyObject* closed_error;  // RecorderClosedError

  private:
    void attend_to_show();
    static void set_unopened_error() noexcept;
    bool reopen_in_child();
    void tell_messages();
    void call_hook(const char* kind, const std::string& text) noexcept;

    std::atomic<Recorder*> core_;
    KeySetCache key_sets_;
    std::atomic<std::int64_t> last_step_{-1};
    std::mutex reopen_mutex_;
    std::string label_;            // of the core; kept here for a forked child
    bool key_sets_stale_ = false;  // the thread that reopened clears the cache
    py::object hook_;
};

}  // namespace fastlog::bindings
