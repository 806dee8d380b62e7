// What Python names to be read, and what it is told of it besides rows.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <unordered_map>
#include <vector>

#include "bindings/gil.hpp"
#include "reader/scan.hpp"
#include "reader/selection.hpp"

namespace fastlog::bindings {

namespace py = pybind11;

/// The sources of a scan, from `Source` tuples of the stub.
class ReadSources {
  public:
    explicit ReadSources(const py::list& sources);

    const std::vector<reader::Source>& sources() const noexcept { return sources_; }
    std::vector<reader::SourceRows>& rows() noexcept { return rows_; }

  private:
    void add(const py::tuple& from);
    std::shared_ptr<const reader::Cutoffs> cutoffs_of(const py::object& from);

    std::vector<reader::Source> sources_;
    std::vector<reader::SourceRows> rows_;
    std::vector<py::object> held_;
    std::unordered_map<const void*, std::shared_ptr<const reader::Cutoffs>> cutoffs_;
};

/// A part that was read; its chunk may have lost its rows.
struct Account {
    std::size_t source;
    std::size_t segment;
    std::shared_ptr<const reader::Chunk> chunk;
};

/// What an account needs of a chunk, moved out of it.
std::shared_ptr<const reader::Chunk> without_rows(reader::Chunk& chunk);

/// `Account` tuples of the stub.
py::list account_list(const std::vector<Account>& accounts);

/// Counts as a dict.
py::dict count_dict(const reader::Counts& counts);

struct Interrupted {};  // by a signal, whose exception is set

/// Lets the handlers of signals run; throws Interrupted. For a thread that has released the GIL.
void check_signals();

/// Calls `work` without the GIL; throws what a signal's handler raised meanwhile.
template <class Work>
void without_gil(Work&& work) {
    bool interrupted = false;
    {
        const GilReleased unlocked;
        try {
            work();
        } catch (const Interrupted&) {
            interrupted = true;
        }
    }
    if (interrupted) throw py::error_already_set();
}

}  // namespace fastlog::bindings
