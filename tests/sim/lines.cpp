#include "lines.hpp"

#include <algorithm>
#include <charconv>

#include "disk.hpp"

namespace sim {

std::string difference(std::string_view a, std::string_view b) {
    std::size_t at = 0;
    while (at < std::min(a.size(), b.size()) && a[at] == b[at]) ++at;
    const auto part = [at](std::string_view text) {
        return "(" + std::to_string(text.size()) + " bytes) ..." +
               std::string(text.substr(at, 160));
    };
    return "at " + std::to_string(at) + ": " + part(a) + "\n but " + part(b);
}

namespace {

bool number_behind(std::string_view line, std::string_view name, std::uint64_t& number) {
    const std::size_t at = line.find(name);
    if (at == line.npos) return false;
    const char* begin = line.data() + at + name.size();
    const auto [end, error] = std::from_chars(begin, line.data() + line.size(), number);
    return error == std::errc{} && end != begin;
}

}  // namespace

bool parse(std::string_view text, Line& line) {
    std::uint64_t value = 0;
    std::uint64_t dropped = 0;
    if (!text.starts_with("{\"timestamp\":\"20") || !text.ends_with('}') ||
        std::count(text.begin(), text.end(), '{') != std::count(text.begin(), text.end(), '}') ||
        text.find("timestamp", 5) != text.npos || !number_behind(text, "\",\"seq\":", line.seq)) {
        return false;
    }
    if (number_behind(text, "\"dropped\":", dropped)) return true;
    line.record = number_behind(text, "\"w\":", line.key.first) &&
                  number_behind(text, "\"n\":", line.key.second) &&
                  number_behind(text, "\"v\":", value) &&
                  value == value_of(line.key.first, line.key.second);
    return line.record;
}

void collect(std::string_view bytes, std::set<Key>& keys, bool whole) {
    const auto see = [&keys](std::string_view text) {
        Line line;
        if (parse(text, line) && line.record) keys.insert(line.key);
    };
    const std::string_view torn = each_line(bytes, see);
    if (torn.ends_with('}') && !whole) see(torn);
}

std::uint64_t value_of(std::uint64_t writer, std::uint64_t n) {
    std::uint64_t seed = writer * 1'000'003 + n;
    return draw(seed) % 1'000'000;
}

fastlog::Stream stream_of(std::uint64_t writer, std::uint64_t n) {
    const std::uint64_t part = value_of(writer, n) % 16;
    return part < 2    ? fastlog::Stream::errors
           : part == 2 ? fastlog::Stream::system
                       : fastlog::Stream::metrics;
}

bool is_stream_file(const std::string& name) { return name.find(".jsonl") != name.npos; }

}  // namespace sim
