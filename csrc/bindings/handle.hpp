// What a Python Recorder holds: the engine of *this* process.
//
// A forked child inherits the handle, but its engine belongs to the parent: the child's first use opens an
// engine of its own and abandons the inherited one without touching it. All Python-facing code gets the
// engine from here.
//
// Other code (a value's item(), __index__, a key's __del__, a logging handler) may fork, and then returns in
// the child to a caller that holds the parent's engine. So a page from ready() is valid only until other
// code runs; after that, Engine::inherited() tells whether it still is.
#pragma once

#include <pybind11/pybind11.h>

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bindings/engine.hpp"

namespace fastlog::bindings {

namespace py = pybind11;

/// What log() does with a value that record() rejects, by the option `on_bad_value`.
enum class OnBadValue : std::uint8_t { warn, drop, raise };

class RecorderHandle {
  public:
    /// `hook(kind, text, name)` is called with ("message", sentence) for messages to the user, with ("forked",
    /// label) after a forked child has opened its own files, and with ("left out", why, name) or ("cut", "",
    /// name) for a value that log() left out or shortened. It must not raise.
    RecorderHandle(RecorderOptions options, OnBadValue on_bad_value, py::object hook);
    ~RecorderHandle();
    RecorderHandle(const RecorderHandle&) = delete;
    RecorderHandle& operator=(const RecorderHandle&) = delete;
    /// On the page of its first engine.
    static void* operator new(std::size_t) {
        static_assert(sizeof(RecorderHandle) <= Page::kHandleBytes);
        auto page = std::make_shared<Page>();
        Page& own = *page;
        own.self = std::move(page);
        return own.handle;
    }
    static void operator delete(void* handle) noexcept {
        const std::shared_ptr<Page> last = std::move(Page::around(handle).self);
    }

    /// The page of this process's engine. GIL held.
    Page& page() noexcept { return *page_.load(std::memory_order_acquire); }
    /// The same once it can be recorded through. Null with a Python error set if it is closed, and without one if a
    /// forked child cannot open its own now; see unready().
    Page* ready(bool for_recording) noexcept {
        Page& own = page();
        if (own.attention.bits() == 0) [[likely]]
            return &own;
        return attend(for_recording);
    }
    /// Whether ready() has work to do first.
    bool needs_attention() noexcept { return page().attention.bits() != 0; }
    /// As ready(), without any other work; null where it is closed, or a forked child has none.
    Page* ready_now() noexcept {
        Page& own = page();
        const std::uint32_t bits = own.attention.bits();
        return (bits & (AttentionBits::kForked | AttentionBits::kClosed)) == 0 ? &own : nullptr;
    }
    /// The result of a call without an engine: -1 with the error set, or 0 for a record that is dropped and
    /// counted.
    int unready(CallKind call, Stream stream) noexcept;

    bool flush(double timeout_s);
    /// Flushes one stream, whatever the other streams wait for.
    bool flush_stream(int stream, double timeout_s);
    bool close(double timeout_s);
    /// The length of a tick, also of a recorder that is closed.
    double ns_per_tick() noexcept { return current().core.ns_per_tick(); }
    bool closed() noexcept {
        return (current().core.attention().bits() & AttentionBits::kClosed) != 0;
    }
    RecorderStats stats();
    /// The directory that the files are in; none if it is not created yet, or in a forked child that has not
    /// recorded yet. Does not open anything.
    FileId directory();
    /// The files of this process so far; in a forked child, those of its own core.
    std::vector<std::string> files();
    /// The largest payload that the ring accepts; in a forked child, that of the ring it will open.
    std::size_t largest_payload() noexcept;

    /// Takes the step after the last one, for log() without a step; the maximum is not exceeded.
    std::int64_t take_step() noexcept {
        std::int64_t last = last_step_.load(std::memory_order_relaxed);
#ifdef Py_GIL_DISABLED
        while (!last_step_.compare_exchange_weak(last, after(last), std::memory_order_relaxed)) {
        }
#else
        last_step_.store(after(last), std::memory_order_relaxed);  // atomic under the GIL
#endif
        return after(last);
    }
    /// The step that take_step() would take, for log() of a step that goes on.
    std::int64_t next_step() const noexcept {
        return after(last_step_.load(std::memory_order_relaxed));
    }
    std::int64_t last_step() const noexcept { return last_step_.load(std::memory_order_relaxed); }
    void saw_step(std::int64_t step) noexcept { last_step_.store(step, std::memory_order_relaxed); }

    OnBadValue on_bad_value() const noexcept { return on_bad_value_; }
    /// Tells of a value that log() leaves out, with the current error as the reason; clears the error.
    void tell_left_out(PyObject* name) noexcept;
    /// Tells of a text that log() has shortened.
    void tell_cut(PyObject* name) noexcept { call_hook("cut", Py_None, name); }

    /// The handle of a `_core.Recorder` instance; null with a Python error set if its __init__ did not
    /// complete.
    static RecorderHandle* from(PyObject* self) noexcept {
        // A method descriptor has already checked the type. pybind11 keeps the C++ pointer of a
        // class without C++ bases in the first holder slot (pybind11/detail/common.h, `instance`).
        auto* instance = reinterpret_cast<py::detail::instance*>(self);
        void* value = instance->simple_layout ? instance->simple_value_holder[0] : nullptr;
        if (value == nullptr) [[unlikely]]
            set_unopened_error();
        return static_cast<RecorderHandle*>(value);
    }

    /// Called once, when the module is created.
    static void watch_forks();
    static PyObject* closed_error;  // RecorderClosedError

  private:
    static std::int64_t after(std::int64_t step) noexcept {
        return step == INT64_MAX ? step : step + 1;
    }
    Engine& current() noexcept { return *page().engine; }
    Page* attend(bool for_recording) noexcept;
    template <class Flush>
    bool flush_by(Flush&& flush);
    void attend_to_show();
    [[gnu::cold]] static void set_unopened_error() noexcept;
    bool reopen_in_child() noexcept;
    bool close_inherited() noexcept;
    bool open_child_engine(Engine& inherited, std::string& why) noexcept;
    void hand_over_lost_calls(Recorder& core) noexcept;
    void add_lost_calls(RecorderStats& stats) const noexcept;
    bool tell_messages(Engine& engine) noexcept;
    void call_hook(const char* kind, const std::string& text) noexcept;
    void call_hook(const char* kind, PyObject* text, PyObject* name) noexcept;

    std::atomic<Page*> page_;
    std::atomic<std::int64_t> last_step_{-1};
    const OnBadValue on_bad_value_;
    py::object hook_;

    // For a forked child that cannot open its engine: lost calls by kind and stream, and when to retry.
    std::atomic<std::uint64_t> lost_calls_[kCallKinds][kStreamCount]{};
    std::atomic<std::int64_t> retry_at_ns_{0};
    std::int64_t retry_after_ns_ = 0;  // guarded by the lock for opening
    bool reported_unopened_ = false;   // likewise
};

}  // namespace fastlog::bindings
