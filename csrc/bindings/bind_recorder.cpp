// RecorderCore: opening, flushing, closing, statistics; everything that is not hot.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>

#include "bindings/bindings.hpp"
#include "bindings/gil.hpp"
#include "bindings/handle.hpp"
#include "device/device_pool.hpp"

namespace fastlog::bindings {
namespace {

py::dict stats_dict(const RecorderStats& s) {
    py::dict out;
    const CallTotals& calls = s.calls;
    const auto count = [&](CallKind kind) { return calls.calls[static_cast<std::size_t>(kind)]; };
    const std::uint64_t records = count(CallKind::record);
    const std::uint64_t timers = count(CallKind::timer_exit);
    const std::uint64_t events = count(CallKind::event);
    std::uint64_t written = 0;
    std::uint64_t bytes = 0;
    py::dict streams;
    for (std::size_t i = 0; i < kStreamCount; ++i) {
        const StreamStats& stream = s.flush.streams[i];
        written += stream.written;
        bytes += stream.bytes;
        py::dict one;
        one["written"] = stream.written;
        one["bytes"] = stream.bytes;
        one["dropped"] = stream.dropped;
        one["segments"] = stream.segments;
        streams[kStreamNames[i]] = one;
    }
    const auto text = [](const std::string& t) -> py::object {
        if (t.empty()) return py::none();
        return py::reinterpret_steal<py::object>(
            PyUnicode_DecodeUTF8(t.data(), static_cast<Py_ssize_t>(t.size()), "replace"));
    };
    out["calls"] = records + timers + events;
    out["accepted"] = calls.accepted;
    out["dropped"] = calls.dropped;
    out["written"] = written;
    out["bytes_written"] = bytes;
    out["blocked_s"] = s.blocked_s;
    out["record_ns"] = s.mean_ns[static_cast<std::size_t>(CallKind::record)];
    double timer_ns = 0;
    for (const CallKind part : {CallKind::timer_make, CallKind::timer_enter, CallKind::timer_exit})
        timer_ns += s.mean_ns[static_cast<std::size_t>(part)];
    out["timer_ns"] = timer_ns;
    out["record_calls"] = records;
    out["timer_calls"] = timers;
    out["event_calls"] = events;
    out["logging_s"] = s.logging_s;
    out["overhead_fraction"] = s.overhead_fraction;
    out["wall_s"] = s.wall_s;
    out["flush_cpu_s"] = static_cast<double>(s.flush.cpu_ns) / 1e9;
    out["ring_bytes"] = s.ring_bytes;
    out["ring_path"] = text(s.ring_path);
    out["ring_high_water_bytes"] = s.flush.high_water_bytes;
    out["errors"] = s.flush.errors;
    out["first_error"] = text(s.flush.first_error);
    out["last_error"] = text(s.flush.last_error);
    out["key_sets"] = s.key_sets;
    out["left_out"] = s.left_out;
    out["streams"] = streams;
    py::dict device;
    device["scalars"] = s.device_values;
    device["waiting"] = s.device_waiting;
    device["missing"] = s.device_missing;
    const DevicePool* pool = DevicePool::existing();
    device["error"] = text(pool != nullptr ? pool->fault() : std::string());
    out["device"] = device;
    return out;
}

RecorderOptions make_options(const std::string& directory, const std::string& stamp,
                             const std::string& label, bool worker, std::size_t ring_bytes,
                             bool block, double block_timeout_s, double flush_interval_s,
                             std::uint64_t segment_bytes, double overhead_budget, int rank,
                             const std::string& ring, const std::string& fsync,
                             double fsync_interval_s, double device_timeout_s,
                             const std::string& watch_nonfinite) {
    RecorderOptions options;
    options.sink = {directory, stamp, label, worker, segment_bytes};
    options.ring_bytes = ring_bytes;
    options.back_pressure = block ? BackPressure::block : BackPressure::drop;
    options.block_timeout_ns = static_cast<std::int64_t>(block_timeout_s * 1e9);
    options.flush_interval_ns = static_cast<std::int64_t>(flush_interval_s * 1e9);
    options.overhead_budget = overhead_budget;
    options.rank = rank;
    options.ring_place = ring == "memory" ? RingPlace::memory
                         : ring == "shm"  ? RingPlace::shm
                                          : RingPlace::file;
    options.fsync = fsync == "none"          ? Fsync::none
                    : fsync == "every_flush" ? Fsync::every_flush
                                             : Fsync::interval;
    options.fsync_interval_ns = static_cast<std::int64_t>(fsync_interval_s * 1e9);
    options.device_timeout_ns = static_cast<std::int64_t>(device_timeout_s * 1e9);
    options.watch_nonfinite = watch_nonfinite == "none"  ? WatchNonfinite::none
                              : watch_nonfinite == "all" ? WatchNonfinite::all
                                                         : WatchNonfinite::device;
    return options;
}

OnBadValue on_bad_value_of(const std::string& text) {
    return text == "drop"    ? OnBadValue::drop
           : text == "raise" ? OnBadValue::raise
                             : OnBadValue::warn;
}

// The handle behind a method's `self`. Does not use pybind11's conversion, which returns raw memory for an
// instance without a handle.
RecorderHandle& opened(py::handle self) {
    if (!py::isinstance<RecorderHandle>(self)) throw py::type_error("needs a Recorder");
    RecorderHandle* handle = RecorderHandle::from(self.ptr());
    if (handle == nullptr) throw py::error_already_set();
    return *handle;
}

}  // namespace

void bind_recorder(py::module_& module) {
    RecorderHandle::watch_forks();
    RecorderHandle::closed_error = PyErr_NewExceptionWithDoc(
        "foundry_fastlog.RecorderClosedError", "Raised when recording on a closed Recorder.",
        PyExc_RuntimeError, nullptr);
    if (RecorderHandle::closed_error == nullptr) throw py::error_already_set();
    module.attr("RecorderClosedError") = py::handle(RecorderHandle::closed_error);

    py::class_<RecorderHandle> type(module, "RecorderCore",
                                    "The native half of foundry_fastlog.Recorder.");
    type.def(
        py::init([](const std::string& directory, const std::string& stamp,
                    const std::string& label, bool worker, std::size_t ring_bytes, bool block,
                    double block_timeout_s, double flush_interval_s, std::uint64_t segment_bytes,
                    double overhead_budget, int rank, const std::string& ring,
                    const std::string& fsync, double fsync_interval_s, double device_timeout_s,
                    const std::string& watch_nonfinite, const std::string& on_bad_value,
                    py::object hook) {
            return std::make_unique<RecorderHandle>(
                make_options(directory, stamp, label, worker, ring_bytes, block, block_timeout_s,
                             flush_interval_s, segment_bytes, overhead_budget, rank, ring, fsync,
                             fsync_interval_s, device_timeout_s, watch_nonfinite),
                on_bad_value_of(on_bad_value), std::move(hook));
        }),
        py::kw_only(), py::arg("directory"), py::arg("stamp"), py::arg("label"), py::arg("worker"),
        py::arg("ring_bytes"), py::arg("block"), py::arg("block_timeout_s"),
        py::arg("flush_interval_s"), py::arg("segment_bytes"), py::arg("overhead_budget"),
        py::arg("rank"), py::arg("ring"), py::arg("fsync"), py::arg("fsync_interval_s"),
        py::arg("device_timeout_s"), py::arg("watch_nonfinite"), py::arg("on_bad_value"),
        py::arg("hook"));
    type.def(
        "_flush", [](py::handle self, double timeout) { return opened(self).flush(timeout); },
        py::arg("timeout_s"));
    type.def(
        "_flush_stream",
        [](py::handle self, int stream, double timeout) {
            return opened(self).flush_stream(stream, timeout);
        },
        py::arg("stream"), py::arg("timeout_s"));
    type.def(
        "_close", [](py::handle self, double timeout) { return opened(self).close(timeout); },
        py::arg("timeout_s"));
    type.def(
        "_continue_from", [](py::handle self, std::int64_t step) { opened(self).saw_step(step); },
        py::arg("step"));
    type.def("_last_step", [](py::handle self) { return opened(self).last_step(); });
    type.def("_stats", [](py::handle self) { return stats_dict(opened(self).stats()); });
    type.def("_files", [](py::handle self) {
        py::list out;
        for (const std::string& path : opened(self).files()) {
            out.append(py::reinterpret_steal<py::object>(PyUnicode_DecodeFSDefaultAndSize(
                path.data(), static_cast<Py_ssize_t>(path.size()))));
        }
        return out;
    });
    type.def_property_readonly("_label", [](py::handle self) -> py::object {
        const FlushThreadStats stats = opened(self).stats().flush;
        if (!stats.label_known) return py::none();
        return py::str(stats.label);
    });
    type.def_property_readonly("_directory", [](py::handle self) {
        const FileId id = opened(self).directory();
        return std::pair(id.device, id.inode);
    });
    type.def_property_readonly("_remedy", [](py::handle self) {
        const int code = opened(self).stats().flush.last_code;
        return code == 0 ? std::string() : std::string(remedy(code));
    });
    type.def_property_readonly("_largest_fragment",
                               [](py::handle self) { return opened(self).largest_payload(); });
    type.def_property_readonly(
        "closed", [](py::handle self) { return opened(self).closed(); }, "True after close().");
    type.def_property_readonly(
        "_opened",
        [](py::handle self) {
            if (!py::isinstance<RecorderHandle>(self)) return false;
            const bool is = RecorderHandle::from(self.ptr()) != nullptr;
            PyErr_Clear();
            return is;
        },
        "False when __init__ did not complete.");
}

namespace {

PyObject* begin_span(PyObject*, PyObject*) {
    return PyLong_FromUnsignedLongLong(CallerTime::begin());
}

PyObject* end_span(PyObject*, PyObject* begin) {
    const unsigned long long ticks = PyLong_AsUnsignedLongLong(begin);
    if (ticks == static_cast<unsigned long long>(-1) && PyErr_Occurred()) return nullptr;
    CallerTime::end(ticks);
    Py_RETURN_NONE;
}

PyMethodDef span_functions[] = {
    {"begin_span", begin_span, METH_NOARGS,
     "Begin to count time that Python code of this package takes on the calling thread."},
    {"end_span", end_span, METH_O, "End what begin_span() has begun."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void bind_spans(py::module_& module) {
    if (PyModule_AddFunctions(module.ptr(), span_functions) != 0) throw py::error_already_set();
}

void add_hot_methods(PyObject* recorder_type) {
    if (!PyType_IsSubtype(reinterpret_cast<PyTypeObject*>(recorder_type),
                          reinterpret_cast<PyTypeObject*>(py::type::of<RecorderHandle>().ptr()))) {
        throw py::type_error("add_hot_methods() takes a subclass of RecorderCore");
    }
    add_record_methods(recorder_type);
    add_timer_method(recorder_type);
}

}  // namespace fastlog::bindings
