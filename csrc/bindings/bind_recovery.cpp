// Recovery of what dead processes left in a run, and the reader's view of a ring. The GIL is released during
// all of the work.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bindings/bindings.hpp"
#include "bindings/gil.hpp"
#include "core/clock.hpp"
#include "core/labels.hpp"
#include "core/machine.hpp"
#include "core/recovery.hpp"
#include "core/ring_view.hpp"

namespace fastlog::bindings {

namespace py = pybind11;
namespace {

py::object text(const std::string& t) {
    return py::reinterpret_steal<py::object>(
        PyUnicode_DecodeFSDefaultAndSize(t.data(), static_cast<Py_ssize_t>(t.size())));
}

py::dict report_dict(const RecoveryReport& report) {
    py::dict out;
    out["outcome"] = outcome_name(report.outcome);
    out["ring"] = text(report.ring);
    out["label"] = text(report.label);
    out["reason"] = text(report.reason);
    out["same_boot"] = report.same_boot;
    out["emitted"] = report.emitted;
    out["skipped"] = report.skipped;
    out["holes"] = report.holes;
    out["hole_bytes"] = report.hole_bytes;
    out["damaged"] = report.damaged;
    out["cut_bytes"] = report.cut_bytes;
    return out;
}

// Changes by file name, as (kept ranges, pending bytes, removed).
class Changes {
  public:
    explicit Changes(const py::dict& changes) {
        for (const auto& [name, change] : changes) {
            const auto fields = py::cast<py::tuple>(change);
            const auto encoded = py::reinterpret_steal<py::bytes>(
                PyUnicode_EncodeFSDefault(py::cast<py::str>(name).ptr()));
            if (!encoded) throw py::error_already_set();
            FileEdit edit;
            for (const auto& range : py::cast<py::tuple>(fields[0])) {
                const auto ends = py::cast<py::tuple>(range);
                edit.kept.push_back(
                    {py::cast<std::uint64_t>(ends[0]), py::cast<std::uint64_t>(ends[1])});
            }
            held_.push_back(py::cast<py::bytes>(fields[1]));
            edit.pending = static_cast<std::string_view>(held_.back());
            edit.removed = py::cast<bool>(fields[2]);
            edits_.emplace(static_cast<std::string>(encoded), std::move(edit));
        }
    }
    const FileEdits& edits() const noexcept { return edits_; }

  private:
    std::vector<py::bytes> held_;
    FileEdits edits_;
};

py::dict changes_dict(const FileEdits& edits) {
    py::dict out;
    for (const auto& [name, edit] : edits) {
        py::tuple kept(edit.kept.size());
        for (std::size_t i = 0; i < edit.kept.size(); ++i) {
            kept[i] = py::make_tuple(edit.kept[i].begin, edit.kept[i].end);
        }
        out[text(name)] =
            py::make_tuple(kept, py::bytes(edit.pending.data(), edit.pending.size()), edit.removed);
    }
    return out;
}

py::object writing_dict(const std::optional<Writing>& writing) {
    if (!writing) return py::none();
    py::list streams;
    py::list files;
    for (std::size_t s = 0; s < kStreamCount; ++s) {
        const StreamCommit& at = writing->streams[s];
        py::object trimmed = py::none();
        if (at.has_trim != 0) trimmed = py::make_tuple(at.trim_segment, at.trim_bytes);
        streams.append(py::make_tuple(at.segment, at.offset, trimmed));
        py::dict noted;
        for (const Writing::File& file : writing->files[s]) {
            noted[py::int_(file.segment)] = py::make_tuple(file.id.device, file.id.inode);
        }
        files.append(noted);
    }
    py::dict out;
    out["label"] = text(writing->label);
    out["stamp"] = text(writing->stamp);
    out["streams"] = streams;
    out["files"] = files;
    return out;
}

py::dict view_ring(const std::string& run_directory, const std::string& path,
                   const py::dict& before, std::uint64_t most_bytes, std::size_t most_ranges) {
    const Changes changes(before);
    std::optional<RingView> view;
    FileEdits edits;
    {
        const GilReleased unlocked;
        view.emplace(run_directory, path, changes.edits(),
                     ShadowFiles::Limits{most_bytes, most_ranges});
        edits = view->edits();
    }
    py::dict out;
    out["report"] = report_dict(view->report());
    out["epoch"] = view->report().epoch;
    out["edits"] = changes_dict(edits);
    out["writing"] = writing_dict(view->writing());
    out["at_work"] = view->is_being_recovered();
    const GilReleased unlocked;
    view.reset();
    return out;
}

// Who recovers a ring holds its lock for that time: a process that has ended does not record.
bool has_ended(const LiveWriter& writer) {
    return has_ended_here(writer.pid, writer.process_start, writer.pid_namespace, writer.boot);
}

}  // namespace

void bind_recovery(py::module_& module) {
    module.def(
        "recover_run",
        [](const std::string& run_directory, double timeout_s) {
            std::vector<RecoveryReport> reports;
            {
                const GilReleased unlocked;
                const auto deadline = monotonic_ns() + static_cast<std::int64_t>(timeout_s * 1e9);
                reports =
                    recover_run(run_directory, [deadline] { return monotonic_ns() < deadline; });
            }
            py::list out;
            for (const RecoveryReport& report : reports) out.append(report_dict(report));
            return out;
        },
        py::arg("run_directory"), py::arg("timeout_s") = 1e9,
        "Recovers what dead processes left in a run's ring files; one dict per ring. Once the time "
        "is up, no further ring is started.");
    constexpr ShadowFiles::Limits kLimits;
    module.def("view_ring", &view_ring, py::arg("run_directory"), py::arg("path"),
               py::arg("before"), py::arg("most_bytes") = kLimits.pending_bytes,
               py::arg("most_ranges") = kLimits.ranges,
               "Returns what recovery would make of a ring, or how far its live writer is; "
               "changes nothing.");
    module.def(
        "live_writers",
        [](const std::string& run_directory) {
            std::vector<LiveWriter> writers;
            {
                const GilReleased unlocked;
                writers = live_writers(posix_files(), run_directory);
                std::erase_if(writers, &has_ended);
            }
            py::list out;
            for (const LiveWriter& writer : writers) {
                out.append(py::make_tuple(text(writer.label), text(writer.host), writer.pid));
            }
            return out;
        },
        py::arg("run_directory"),
        "The processes that record in a run now, as (label, host, pid); those of this host.");
    module.def(
        "dead_ring_epoch",
        [](const std::string& ring) {
            const GilReleased unlocked;
            return dead_ring_epoch(ring);
        },
        py::arg("ring"),
        "The number of a dead ring's last commit; None if the ring is in use, gone, or not a "
        "ring.");
    module.def(
        "held_ring_epochs",
        [](const std::vector<std::string>& rings) {
            const GilReleased unlocked;
            std::vector<std::optional<std::uint64_t>> epochs;
            for (const std::string& ring : rings) epochs.push_back(held_ring_epoch(ring));
            return epochs;
        },
        py::arg("rings"),
        "The number of each ring's newest commit, as long as its writer lives, or a recovery is at "
        "work; else None.");
}

}  // namespace fastlog::bindings
