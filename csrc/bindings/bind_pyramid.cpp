// Curves of a run's metrics at all scales. The GIL is released around the work.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "bindings/bindings.hpp"
#include "bindings/gil.hpp"
#include "reader/pyramid.hpp"

namespace fastlog::bindings {
namespace py = pybind11;
namespace {

py::bytes bytes_of(const reader::Buckets& buckets) {
    return {reinterpret_cast<const char*>(buckets.data()), buckets.size() * sizeof(reader::Bucket)};
}

py::list dump(const reader::Pyramids& pyramids) {
    py::list out;
    for (const auto& [key, pyramid] : pyramids.all()) {
        out.append(
            py::make_tuple(key.first, key.second, pyramid.level(), bytes_of(pyramid.buckets())));
    }
    return out;
}

bool load(reader::Pyramids& pyramids, std::int64_t rank, std::string name, int level,
          const py::buffer& from) {
    const py::buffer_info bytes = from.request();
    const auto size = static_cast<std::size_t>(bytes.size * bytes.itemsize);
    if (size % sizeof(reader::Bucket) != 0) return false;
    reader::Buckets buckets(size / sizeof(reader::Bucket));
    if (!buckets.empty()) std::memcpy(buckets.data(), bytes.ptr, size);
    return pyramids.load({rank, std::move(name)}, level, std::move(buckets));
}

}  // namespace

void bind_pyramid(py::module_& module) {
    py::class_<reader::Pyramids>(module, "Pyramids")
        .def(py::init<bool, std::size_t, std::size_t, std::size_t>(), py::arg("several_ranks"),
             py::arg("size"), py::arg("most"), py::arg("least"))
        .def(
            "add",
            [](reader::Pyramids& pyramids, const reader::Frame& frame) {
                const GilReleased unlocked;
                pyramids.add(frame);
            },
            py::arg("frame"))
        .def(
            "draw",
            [](const reader::Pyramids& pyramids, const std::vector<std::int64_t>& ranks,
               const std::string& name, std::int64_t first, std::int64_t last, std::size_t points) {
                reader::Drawn drawn;
                {
                    const GilReleased unlocked;
                    drawn = pyramids.draw(ranks, name, first, last, points);
                }
                return py::make_tuple(drawn.level, bytes_of(drawn.buckets), drawn.is_coarse,
                                      drawn.first, drawn.last);
            },
            py::arg("ranks"), py::arg("name"), py::arg("first"), py::arg("last"), py::arg("points"),
            "Level, buckets, whether the values are to be looked at instead, and the first and "
            "last "
            "step of those.")
        .def("dump", &dump, "Rank, name, level and buckets of each curve.")
        .def("load", &load, py::arg("rank"), py::arg("name"), py::arg("level"), py::arg("buckets"),
             "The reverse; whether they were buckets.");
}

}  // namespace fastlog::bindings
