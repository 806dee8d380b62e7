#include "bindings/read_sources.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <string_view>
#include <utility>

namespace fastlog::bindings {
namespace {

py::tuple account_of(const Account& account) {
    const reader::Chunk& chunk = *account.chunk;
    py::list seqs;
    for (const auto& run : chunk.seqs) seqs.append(py::make_tuple(run.first, run.count, run.line));
    py::list damages;
    for (const auto& damage : chunk.damages) {
        damages.append(py::make_tuple(damage.line, damage.offset, damage.size));
    }
    py::list drops;
    for (const auto& [row, value] : chunk.drops) {
        if (value.kind == reader::Kind::kBig) {
            drops.append(value.bits);
        } else {
            drops.append(static_cast<std::int64_t>(value.bits));
        }
    }
    return py::make_tuple(account.source, account.segment, chunk.lines, seqs, damages, drops,
                          chunk.tail, chunk.error);
}

/// Decompresses with a Python function, for a thread without the GIL. What it raises is an error of the
/// file.
reader::ReadOn read_on_of(const py::object& function) {
    return [function = function.ptr()](std::uint64_t offset, char* to, std::size_t count,
                                       std::size_t& taken) {
        taken = 0;
        const PyGILState_STATE state = python_call([] { return PyGILState_Ensure(); });
        PyObject* const got = python_call([&]() -> PyObject* {
            PyObject* const buffer =
                PyMemoryView_FromMemory(to, static_cast<Py_ssize_t>(count), PyBUF_WRITE);
            PyObject* const answer =
                buffer == nullptr
                    ? nullptr
                    : PyObject_CallFunction(function, "KO", static_cast<unsigned long long>(offset),
                                            buffer);
            Py_XDECREF(buffer);
            return answer;
        });
        const long long bytes = got == nullptr ? -1 : PyLong_AsLongLong(got);
        Py_XDECREF(got);
        const bool raised = PyErr_Occurred() != nullptr;
        const bool full = raised && PyErr_ExceptionMatches(PyExc_MemoryError) != 0;
        PyErr_Clear();
        python_call([state] { PyGILState_Release(state); });
        if (raised) return full ? ENOMEM : EIO;
        if (bytes < 0) return static_cast<int>(-bytes);
        taken = std::min(static_cast<std::size_t>(bytes), count);
        return 0;
    };
}

}  // namespace

ReadSources::ReadSources(const py::list& sources) {
    for (const py::handle source : sources) add(py::cast<py::tuple>(source));
}

std::shared_ptr<const reader::Cutoffs> ReadSources::cutoffs_of(const py::object& from) {
    if (from.is_none()) return nullptr;
    auto& known = cutoffs_[from.ptr()];  // those of all ranks of a start are one object
    if (known == nullptr) {
        auto cutoffs = std::make_shared<reader::Cutoffs>();
        for (const auto& [name, places] : py::cast<py::dict>(from)) {
            const auto both = py::cast<py::tuple>(places);
            (*cutoffs)[py::cast<std::string>(name)] = {
                py::cast<std::optional<std::int64_t>>(both[0]),
                py::cast<std::optional<double>>(both[1])};
        }
        known = std::move(cutoffs);
    }
    return known;
}

void ReadSources::add(const py::tuple& from) {
    reader::Source source;
    source.stream = static_cast<reader::Stream>(py::cast<int>(from[0]));
    reader::SourceRows rows;
    rows.rank = py::cast<std::int64_t>(from[1]);
    rows.start = py::cast<std::int64_t>(from[2]);
    rows.label = py::cast<std::string>(from[3]);
    rows.counts = py::cast<bool>(from[4]);
    rows.cutoffs = cutoffs_of(from[5]);
    for (const auto& [seq, step] :
         py::cast<std::vector<std::pair<std::int64_t, std::int64_t>>>(from[7])) {
        rows.rewinds.push_back({seq, step});
    }
    for (const py::handle part : py::cast<py::list>(from[6])) {
        const auto fields = py::cast<py::tuple>(part);
        reader::Segment segment;
        segment.path = py::cast<std::string>(fields[0]);
        segment.whole = fields[1].is_none();
        if (!segment.whole) {
            for (const py::handle range : py::cast<py::tuple>(fields[1])) {
                const auto ends = py::cast<py::tuple>(range);
                segment.kept.push_back(
                    {py::cast<std::uint64_t>(ends[0]), py::cast<std::uint64_t>(ends[1])});
            }
        }
        held_.push_back(py::cast<py::bytes>(fields[2]));
        segment.pending =
            static_cast<std::string_view>(py::reinterpret_borrow<py::bytes>(held_.back()));
        if (!fields[3].is_none()) {
            held_.push_back(fields[3]);
            (py::cast<bool>(fields[4]) ? segment.read_on : segment.read_moved) =
                read_on_of(held_.back());
        }
        source.segments.push_back(std::move(segment));
    }
    sources_.push_back(std::move(source));
    rows_.push_back(std::move(rows));
}

std::shared_ptr<const reader::Chunk> without_rows(reader::Chunk& chunk) {
    auto out = std::make_shared<reader::Chunk>();
    out->lines = chunk.lines;
    out->seqs = std::move(chunk.seqs);
    out->damages = std::move(chunk.damages);
    out->drops = std::move(chunk.drops);
    out->tail = chunk.tail;
    out->error = chunk.error;
    return out;
}

py::list account_list(const std::vector<Account>& accounts) {
    py::list out;
    for (const Account& account : accounts) out.append(account_of(account));
    return out;
}

py::dict count_dict(const reader::Counts& counts) {
    py::dict out;
    for (const auto& [text, count] : counts.get()) out[py::str(text)] = count;
    return out;
}

void check_signals() {
    const PyGILState_STATE state = python_call([] { return PyGILState_Ensure(); });
    const int raised = PyErr_CheckSignals();
    PyGILState_Release(state);
    if (raised != 0) throw Interrupted{};
}

}  // namespace fastlog::bindings
