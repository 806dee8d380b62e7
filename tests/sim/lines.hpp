// The records of a world, and the lines that they become: by other code than the recorder's own.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "core/record.hpp"

namespace sim {

/// What a user's own file has.
inline constexpr std::string_view kForeign = "what is none of the recorder's\n";

using Key = std::pair<std::uint64_t, std::uint64_t>;  // writer, number

/// What a record holds follows from who it is.
std::uint64_t value_of(std::uint64_t writer, std::uint64_t n);
fastlog::Stream stream_of(std::uint64_t writer, std::uint64_t n);

struct Line {
    Key key;
    std::uint64_t seq = 0;
    bool record = false;  // and no drop marker
};

/// Whether it is a line that a recorder writes here.
bool parse(std::string_view text, Line& line);

/// Every whole line; what follows the last newline is `torn`.
template <class See>
std::string_view each_line(std::string_view bytes, See&& see) {
    while (!bytes.empty()) {
        const std::size_t end = bytes.find('\n');
        if (end == bytes.npos) break;
        see(bytes.substr(0, end));
        bytes.remove_prefix(end + 1);
    }
    return bytes;
}

/// The records of all lines; a torn one counts, unless only whole ones are asked for.
void collect(std::string_view bytes, std::set<Key>& keys, bool whole = false);

bool is_stream_file(const std::string& name);

/// Where two texts part.
std::string difference(std::string_view a, std::string_view b);

}  // namespace sim
