// Statistics of a run's streams. The GIL is released around all of the work.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <bit>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/bindings.hpp"
#include "bindings/read_sources.hpp"
#include "reader/sums.hpp"

namespace fastlog::bindings {
namespace {

class Statistics {
  public:
    Statistics(const py::list& sources, int stream, std::vector<std::string> first,
               unsigned threads)
        : sums_(static_cast<reader::Stream>(stream), std::move(first)) {
        ReadSources from(sources);
        reader::ScanLimits limits;
        limits.threads = threads;
        limits.part_bytes = std::uint64_t{8} << 20;
        limits.ahead = 2;  // what was read and not taken in fills memory
        without_gil([&] {
            sums_.read(
                from.sources(), from.rows(), limits,
                [this](reader::Part&& part) {
                    accounts_.push_back({part.source, part.segment, without_rows(*part.chunk)});
                },
                [this] { accounts_.clear(); }, &check_signals);
        });
    }

    py::list accounts() const { return account_list(accounts_); }
    const reader::Sums& sums() const noexcept { return sums_; }

  private:
    reader::Sums sums_;
    std::vector<Account> accounts_;
};

/// A value, and whether it is JSON text.
py::tuple value_of(const reader::Kept& kept) {
    const std::uint64_t bits = kept.value.bits;
    switch (kept.value.kind) {
        case reader::Kind::kNull:
            break;
        case reader::Kind::kBool:
            return py::make_tuple(bits != 0, false);
        case reader::Kind::kInt:
            return py::make_tuple(static_cast<std::int64_t>(bits), false);
        case reader::Kind::kBig:
            return py::make_tuple(bits, false);
        case reader::Kind::kDouble:
            return py::make_tuple(std::bit_cast<double>(bits), false);
        case reader::Kind::kText:
            return py::make_tuple(kept.text, false);
        case reader::Kind::kJson:
            return py::make_tuple(kept.text, true);
    }
    return py::make_tuple(py::none(), false);
}

/// The items of a map in the order in which they appeared.
template <class Map>
auto in_order(const Map& map) {
    std::vector<const typename Map::value_type*> items;
    for (const auto& item : map) items.push_back(&item);
    std::sort(items.begin(), items.end(), [](const auto* a, const auto* b) {
        return a->second.first_place < b->second.first_place;
    });
    return items;
}

py::list metric_list(const reader::Sums::Metrics& metrics) {
    py::list out;
    for (const auto* item : in_order(metrics)) {
        const reader::MetricSum& sum = item->second;
        py::dict fields;
        fields["name"] = item->first;
        fields["count"] = sum.count;
        fields["numbers"] = sum.numbers;
        fields["nonfinite"] = sum.nonfinite;
        fields["first"] = value_of(sum.first);
        fields["last"] = value_of(sum.last);
        fields["min"] = value_of({sum.min, {}});
        fields["min_step"] = sum.min_step;
        fields["max"] = value_of({sum.max, {}});
        fields["max_step"] = sum.max_step;
        fields["mean"] = sum.sum.mean(static_cast<double>(sum.numbers));
        fields["curve"] = sum.curve.points();
        fields["missing"] = sum.missing.get();
        const reader::Place& place = sum.first_place;
        fields["place"] = py::make_tuple(place.time, place.source, place.row, place.column);
        out.append(fields);
    }
    return out;
}

py::list timer_list(const reader::Sums& sums) {
    py::list out;
    for (const auto* item : in_order(sums.timers())) {
        const reader::TimerSum& sum = item->second;
        std::vector<double> ascending;
        {
            const GilReleased unlocked;
            ascending = sum.samples;
            std::sort(ascending.begin(), ascending.end());
        }
        py::dict fields;
        fields["name"] = item->first;
        fields["count"] = sum.count;
        fields["errors"] = sum.errors;
        fields["max"] = sum.max;
        fields["total"] = sum.sum.total();
        fields["ascending"] = std::move(ascending);
        fields["in_step"] = sum.in_step;
        fields["missing"] = sum.missing.get();
        out.append(fields);
    }
    return out;
}

py::list source_list(const reader::Sums& sums) {
    py::list out;
    for (const reader::SourceSum& source : sums.sources()) {
        const bool has_blocks = source.begun != INT64_MAX;
        out.append(py::make_tuple(source.first, source.last,
                                  has_blocks ? reader::moment_text(source.begun) : std::string(),
                                  source.first_step, source.last_step));
    }
    return out;
}

}  // namespace

void bind_sums(py::module_& module) {
    py::class_<Statistics>(module, "Statistics")
        .def(py::init<const py::list&, int, std::vector<std::string>, unsigned>(),
             py::arg("sources"), py::kw_only(), py::arg("stream"), py::arg("first"),
             py::arg("threads") = 0, "Sums up a stream of some writers.")
        .def("accounts", &Statistics::accounts, "As of a Scan.")
        .def("metrics", [](const Statistics& it) { return metric_list(it.sums().metrics()); })
        .def("summaries", [](const Statistics& it) { return metric_list(it.sums().summaries()); })
        .def("timers", [](const Statistics& it) { return timer_list(it.sums()); })
        .def(
            "sources", [](const Statistics& it) { return source_list(it.sums()); },
            "First and last timestamp, longest duration at its begin, first and last step, per "
            "source.")
        .def("left_out", [](const Statistics& it) { return count_dict(it.sums().left_out()); });
}

}  // namespace fastlog::bindings
