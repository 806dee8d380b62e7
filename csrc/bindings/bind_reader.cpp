// Reading runs: scans of their files, frames, and what of them Arrow and numpy take without a copy. The
// GIL is released around all of the work.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/bindings.hpp"
#include "bindings/gil.hpp"
#include "bindings/read_sources.hpp"
#include "reader/arrow_export.hpp"
#include "reader/frame.hpp"
#include "reader/line_merge.hpp"
#include "reader/scan.hpp"

namespace fastlog::bindings {

namespace py = pybind11;
namespace {

using AskedOf = std::pair<std::optional<std::int64_t>, std::optional<double>>;

/// What was read of a run.
class Scan {
  public:
    Scan(const py::list& sources, reader::Options options, const reader::ScanLimits& limits)
        : options_(std::move(options)), sources_(sources) {
        without_gil([&] {
            scan(limits);
            if (options_.seqs || !went_back()) return;
            options_.seqs = true;  // which lines a writer went back behind, their numbers say
            accounts_.clear();
            for (auto& source : sources_.rows()) source.chunks.clear();
            scan(limits);
        });
    }

    py::list accounts() const { return account_list(accounts_); }

    std::vector<std::pair<std::string, std::int64_t>> names(std::size_t source) {
        std::vector<std::pair<std::string, std::int64_t>> found;
        for (const auto& chunk : sources_.rows().at(source).chunks) {
            for (const reader::Columns* columns : {&chunk->metrics, &chunk->summary}) {
                for (const reader::Column& column : *columns) {
                    if (column.is_listed) found.emplace_back(column.name, column.first_time);
                }
            }
        }
        return found;
    }

    std::vector<std::pair<std::int64_t, std::int64_t>> steps() {
        std::vector<std::pair<std::int64_t, std::int64_t>> found;
        for (const auto& source : sources_.rows()) {
            for (const auto& chunk : source.chunks) {
                for (const auto& range : chunk->recorded_steps) {
                    found.emplace_back(range.first, range.last);
                }
            }
        }
        std::sort(found.begin(), found.end());
        std::size_t kept = 0;
        for (const auto& range : found) {
            auto* const before = kept == 0 ? nullptr : &found[kept - 1];
            if (before != nullptr &&
                (before->second == INT64_MAX || range.first <= before->second + 1)) {
                before->second = std::max(before->second, range.second);
            } else {
                found[kept++] = range;
            }
        }
        found.resize(kept);
        return found;
    }

    /// Names with their first step, and their first epoch.
    std::vector<std::tuple<std::string, std::optional<std::int64_t>, std::optional<double>>>
    firsts() {
        reader::Cutoffs found;
        for (const auto& source : sources_.rows()) {
            for (const auto& chunk : source.chunks) {
                for (const reader::Columns* columns : {&chunk->metrics, &chunk->summary}) {
                    for (const reader::Column& column : *columns) note_first(column, found);
                }
            }
        }
        std::vector<std::tuple<std::string, std::optional<std::int64_t>, std::optional<double>>>
            out;
        for (const auto& [name, first] : found) out.emplace_back(name, first.step, first.epoch);
        return out;
    }

    std::shared_ptr<reader::Frame> frame(int stream) {
        const GilReleased unlocked;
        return std::make_shared<reader::Frame>(static_cast<reader::Stream>(stream),
                                               std::move(sources_.rows()));
    }

  private:
    void scan(const reader::ScanLimits& limits) {
        reader::scan(
            sources_.sources(), options_, limits,
            [this](reader::Part&& part) {
                std::shared_ptr<reader::Chunk> chunk = std::move(part.chunk);
                accounts_.push_back({part.source, part.segment, chunk});
                sources_.rows()[part.source].chunks.push_back(std::move(chunk));
            },
            &check_signals);
    }

    bool went_back() {
        const auto& rows = sources_.rows();
        return std::any_of(rows.begin(), rows.end(), [](const reader::SourceRows& source) {
            return source.counts &&
                   std::any_of(source.chunks.begin(), source.chunks.end(),
                               [](const auto& chunk) { return !chunk->rewinds.empty(); });
        });
    }

    static void note_first(const reader::Column& column, reader::Cutoffs& found) {
        if (!column.first_step && !column.first_epoch) return;
        reader::Cutoff& first = found[column.name];
        if (column.first_step && (!first.step || *column.first_step < *first.step)) {
            first.step = column.first_step;
        }
        if (column.first_epoch && (!first.epoch || *column.first_epoch < *first.epoch)) {
            first.epoch = column.first_epoch;
        }
    }

    reader::Options options_;
    ReadSources sources_;
    std::vector<Account> accounts_;
};

/// The lines of several sources, merged by time.
class Lines {
  public:
    Lines(const py::list& sources, const std::vector<AskedOf>& asked) : sources_(sources) {
        std::vector<reader::Asked> from;
        for (const auto& [step, epoch] : asked) from.push_back({step, epoch});
        const GilReleased unlocked;
        merge_ = std::make_unique<reader::LineMerge>(
            sources_.sources(), std::move(from), [this](reader::Part&& part) {
                accounts_.push_back({part.source, part.segment, without_rows(*part.chunk)});
            });
    }

    /// The next lines with their sources, and the places of those to ask about; None at the end.
    py::object next() {
        std::string text;
        std::vector<std::size_t> ends;
        std::vector<std::size_t> origins;
        std::vector<std::size_t> asked;
        {
            const GilReleased unlocked;
            merge_->read(kBatch, [&](const reader::LineMerge::Line& line) {
                if (line.is_asked) asked.push_back(origins.size());
                text += line.text;
                ends.push_back(text.size());
                origins.push_back(line.source);
            });
        }
        if (origins.empty()) return py::none();
        py::list lines(ends.size());
        std::size_t begin = 0;
        for (std::size_t i = 0; i < ends.size(); ++i) {
            lines[i] = py::bytes(text.data() + begin, ends[i] - begin);
            begin = ends[i];
        }
        return py::make_tuple(lines, origins, asked);
    }

    py::list accounts() const { return account_list(accounts_); }

  private:
    static constexpr std::size_t kBatch = std::size_t{1} << 20;

    ReadSources sources_;
    std::vector<Account> accounts_;
    std::unique_ptr<reader::LineMerge> merge_;
};

/// A buffer of a column, and who owns it.
struct FrameBuffer {
    const void* data;
    std::size_t bytes;
    std::shared_ptr<const void> owner;
};

py::object buffer_of(const reader::ColumnPart& part, std::size_t at, std::size_t bytes) {
    if (part.buffers[at] == nullptr) return py::none();
    return py::cast(FrameBuffer{part.buffers[at], bytes, part.owners[at]});
}

py::tuple part_tuple(const reader::ColumnPart& part, reader::Type type) {
    py::object values = py::none();
    py::object texts = py::none();
    if (type == reader::Type::kText) {
        values = buffer_of(part, 1, (part.rows + 1) * 8);
        const auto* const offsets = static_cast<const std::int64_t*>(part.buffers[1]);
        texts = buffer_of(part, 2, static_cast<std::size_t>(offsets[part.rows]));
    } else if (type == reader::Type::kBool) {
        values = buffer_of(part, 1, (part.rows + 7) / 8);
    } else if (type != reader::Type::kNull) {
        values = buffer_of(part, 1, part.rows * 8);
    }
    return py::make_tuple(part.rows, part.nulls, buffer_of(part, 0, (part.rows + 7) / 8), values,
                          texts);
}

const char* type_name(reader::Type type) {
    switch (type) {
        case reader::Type::kNull:
            return "null";
        case reader::Type::kBool:
            return "bool";
        case reader::Type::kInt64:
            return "int64";
        case reader::Type::kDouble:
            return "float64";
        case reader::Type::kText:
            return "text";
        case reader::Type::kTime:
            return "time";
    }
    return "null";
}

template <class T>
py::capsule capsule_of(std::unique_ptr<T> it, const char* name) {
    py::capsule out(it.get(), name, [](PyObject* capsule) {
        const char* const named = PyCapsule_GetName(capsule);
        auto* const held = static_cast<T*>(PyCapsule_GetPointer(capsule, named));
        if (held->release != nullptr) held->release(held);  // else somebody has taken it
        delete held;
    });
    it.release();
    return out;
}

py::capsule schema_capsule(const reader::Frame& frame) {
    auto schema = std::make_unique<ArrowSchema>();
    reader::export_schema(frame, schema.get());
    return capsule_of(std::move(schema), "arrow_schema");
}

py::capsule stream_capsule(const std::shared_ptr<reader::Frame>& frame) {
    auto stream = std::make_unique<ArrowArrayStream>();
    reader::export_stream(frame, stream.get());
    return capsule_of(std::move(stream), "arrow_array_stream");
}

py::list schema_list(const reader::Frame& frame) {
    py::list out;
    for (const auto& column : frame.columns()) {
        out.append(py::make_tuple(column.name, type_name(column.type)));
    }
    return out;
}

py::list batches_list(const reader::Frame& frame) {
    std::vector<std::unique_ptr<reader::Batch>> batches;
    {
        const GilReleased unlocked;
        reader::Frame::Batches source(frame);
        while (auto batch = source.next()) batches.push_back(std::move(batch));
    }
    py::list out;
    for (const auto& batch : batches) {
        py::list parts;
        for (std::size_t i = 0; i < batch->columns.size(); ++i) {
            parts.append(part_tuple(batch->columns[i], frame.columns()[i].type));
        }
        out.append(parts);
    }
    return out;
}

}  // namespace

void bind_reader(py::module_& module) {
    py::class_<FrameBuffer>(module, "FrameBuffer", py::buffer_protocol())
        .def_buffer([](const FrameBuffer& buffer) {
            return py::buffer_info(static_cast<std::uint8_t*>(const_cast<void*>(buffer.data)),
                                   static_cast<py::ssize_t>(buffer.bytes), true);
        });
    py::class_<reader::Frame, std::shared_ptr<reader::Frame>>(module, "Frame")
        .def_property_readonly("rows", &reader::Frame::rows)
        .def_property_readonly("schema", &schema_list)
        .def_property_readonly(
            "left_out",
            [](const reader::Frame& frame) { return count_dict(frame.selection().left_out()); })
        .def("batches", &batches_list,
             "The columns of each batch, as (rows, nulls, validity, values or offsets, text).")
        .def("arrow_schema", &schema_capsule)
        .def("arrow_stream", &stream_capsule);
    py::class_<Lines>(module, "Lines")
        .def(py::init<const py::list&, const std::vector<AskedOf>&>(), py::arg("sources"),
             py::arg("asked"))
        .def("next", &Lines::next)
        .def("accounts", &Lines::accounts, "As of a Scan, when all lines have been read.");
    py::class_<Scan>(module, "Scan")
        .def(py::init([](const py::list& sources, const std::vector<std::string>& patterns,
                         bool all_names, bool exact, bool seqs, std::int64_t first_step,
                         std::int64_t last_step, bool rows, bool list_names, bool note_steps,
                         bool note_firsts, unsigned threads, std::uint64_t part_bytes) {
                 reader::Options options;
                 options.names = {all_names, exact, patterns};
                 options.first_step = first_step;
                 options.last_step = last_step;
                 options.only_count = !rows;
                 options.seqs = seqs;
                 options.list_names = list_names;
                 options.note_steps = note_steps;
                 options.note_firsts = note_firsts;
                 reader::ScanLimits limits;
                 limits.threads = threads;
                 limits.part_bytes = part_bytes;
                 return std::make_unique<Scan>(sources, std::move(options), limits);
             }),
             py::arg("sources"), py::kw_only(), py::arg("patterns") = std::vector<std::string>(),
             py::arg("all_names") = true, py::arg("exact") = false, py::arg("seqs") = true,
             py::arg("first_step") = INT64_MIN, py::arg("last_step") = INT64_MAX,
             py::arg("rows") = true, py::arg("list_names") = false, py::arg("note_steps") = false,
             py::arg("note_firsts") = false, py::arg("threads") = 0,
             py::arg("part_bytes") = std::uint64_t{32} << 20, "Reads the streams of some writers.")
        .def("accounts", &Scan::accounts,
             "What was found besides rows: (source, segment, lines, seqs, damages, drops, tail, "
             "error) per part.")
        .def("names", &Scan::names, py::arg("source"))
        .def("steps", &Scan::steps)
        .def("firsts", &Scan::firsts)
        .def("frame", &Scan::frame, py::arg("stream"), "The rows as columns; once.");
}

}  // namespace fastlog::bindings
