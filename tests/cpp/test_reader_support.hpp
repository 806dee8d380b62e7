// Lines to read, and what was read of them as text.
#pragma once

#include <algorithm>
#include <bit>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/json_writer.hpp"
#include "reader/chunk_reader.hpp"
#include "reader/moment.hpp"
#include "reader/scan.hpp"

namespace reader_tests {

using namespace fastlog::reader;

/// A segment of which nothing is on disk.
inline Segment in_memory(std::string_view text) {
    Segment segment;
    segment.whole = false;
    segment.pending = text;
    return segment;
}

inline std::string line(int seq, int step, const std::string& metrics, int second = 15) {
    return "{\"timestamp\":\"2026-01-30T14:32:" + std::to_string(second) + "." +
           std::to_string(100'000 + seq) + "Z\",\"seq\":" + std::to_string(seq) +
           ",\"step\":" + std::to_string(step) + ",\"metrics\":{" + metrics + "}}\n";
}

inline std::string shown(Value value, const Chunk& chunk) {
    std::string out;
    switch (value.kind) {
        case Kind::kNull:
            return "null";
        case Kind::kBool:
            return value.bits != 0 ? "true" : "false";
        case Kind::kInt:
            return std::to_string(static_cast<std::int64_t>(value.bits));
        case Kind::kBig:
            return std::to_string(value.bits);
        case Kind::kDouble: {
            const double number = std::bit_cast<double>(value.bits);
            if (const char* name = fastlog::json::nonfinite_name(number)) return name;
            fastlog::json::append_double(out, number);
            return out;
        }
        case Kind::kText:
            return '"' + std::string(chunk.text(value.bits)) + '"';
        case Kind::kJson:
            break;
    }
    return std::string(chunk.text(value.bits));
}

/// Each row of some chunks, with its columns sorted by name.
inline std::vector<std::string> rows_of(const std::vector<std::unique_ptr<Chunk>>& chunks) {
    std::vector<std::string> out;
    for (const auto& chunk : chunks) {
        std::vector<std::map<std::string, std::string>> rows(chunk->rows());
        for (std::uint32_t row = 0; row < chunk->rows(); ++row) {
            const auto odd = chunk->odd_times.find(row);
            rows[row]["@"] =
                odd == chunk->odd_times.end() ? moment_text(chunk->time[row]) : odd->second;
            rows[row]["#"] = std::to_string(chunk->seq[row]);
            if (chunk->has_step[row] != 0) rows[row]["step"] = std::to_string(chunk->step[row]);
        }
        for (const auto& [row, value] : chunk->drops) {
            if (row < chunk->rows()) rows[row]["dropped"] = shown(value, *chunk);
        }
        const auto put = [&](const Columns& columns, const std::string& prefix) {
            for (const Column& column : columns) {
                for (std::size_t i = 0; i < column.size(); ++i) {
                    rows[column.row(i)][prefix + column.name] = shown(column.value(i), *chunk);
                }
            }
        };
        put(chunk->fields, "");
        put(chunk->metrics, "m.");
        put(chunk->summary, "s.");
        for (const auto& gone : chunk->missing)
            rows[gone.row]["~" + gone.column->name] = gone.reason;
        for (const auto& row : rows) {
            std::string text;
            for (const auto& [name, value] : row) text += name + "=" + value + " ";
            out.push_back(text);
        }
    }
    return out;
}

struct Outcome {
    std::vector<std::unique_ptr<Chunk>> chunks;
    std::vector<std::string> rows;
    std::int64_t lines = 0;
    std::vector<std::int64_t> damaged;  // numbers of lines, from 0
    std::uint64_t tail = 0;

    bool operator==(const Outcome& other) const {
        return rows == other.rows && lines == other.lines && damaged == other.damaged &&
               tail == other.tail;
    }
};

/// Reads a text in parts of so many bytes, with a window of so many.
inline Outcome read_text(std::string_view text, const Options& options = {},
                         Stream stream = Stream::kMetrics, std::uint64_t part = 1 << 20,
                         std::size_t window = 1 << 16, std::uint64_t longest = kMaxLineBytes) {
    const Segment segment = in_memory(text);
    const SegmentFile file(segment);
    ChunkReader reader(window, longest);
    Outcome out;
    for (std::uint64_t begin = 0; begin < text.size(); begin += part) {
        auto chunk = std::make_unique<Chunk>();
        reader.read(file, begin, std::min<std::uint64_t>(begin + part, text.size()), stream,
                    options, *chunk);
        for (const Damage& damage : chunk->damages) out.damaged.push_back(out.lines + damage.line);
        out.lines += chunk->lines;
        out.tail += chunk->tail;
        out.chunks.push_back(std::move(chunk));
    }
    out.rows = rows_of(out.chunks);
    return out;
}

/// What breaks lines.
inline const std::vector<std::string> kPieces = {"\"",
                                                 "\\",
                                                 "\\u",
                                                 "\\ud83d",
                                                 "\\ud83d\\ude00",
                                                 "{",
                                                 "}",
                                                 "[",
                                                 "]",
                                                 ",",
                                                 ":",
                                                 "null",
                                                 "true",
                                                 "1e",
                                                 "0",
                                                 "-",
                                                 ".5",
                                                 "e+5",
                                                 "1e400",
                                                 "-0",
                                                 "99999999999999999999",
                                                 "\xc3\xa9",
                                                 "\xff",
                                                 "\xed\xa0\x80",
                                                 "\xef\xbb\xbf",
                                                 std::string(1, '\0'),
                                                 "\n",
                                                 " ",
                                                 "\t",
                                                 "\r",
                                                 "\"loss\":",
                                                 "\"step\":",
                                                 "\"seq\":",
                                                 "\"rewind\":",
                                                 "\"epoch\":",
                                                 "\"metrics\":{",
                                                 "\"nonfinite\":{\"loss\":\"nan\"},",
                                                 "{\"a\":[[[["};

/// Changes a line at one place; `below(n)` is any number below n. Parts of `others` may come into it.
template <class Below>
void mutate(std::string& line, const std::vector<std::string>& others, Below below) {
    const auto at = static_cast<std::size_t>(below(line.size() + 1));
    const auto part_of = [&below](const std::string& text, std::size_t most) {
        const auto begin = static_cast<std::size_t>(below(text.size() + 1));
        return text.substr(begin, static_cast<std::size_t>(below(most)));
    };
    switch (below(5)) {
        case 0:
            line.insert(at, kPieces[static_cast<std::size_t>(below(kPieces.size()))]);
            break;
        case 1:
            line.erase(at, static_cast<std::size_t>(below(9)));
            break;
        case 2:
            if (at < line.size()) line[at] = static_cast<char>(below(256));
            break;
        case 3:
            line.insert(at, part_of(line, 40));
            break;
        default: {
            const std::string& other = others[static_cast<std::size_t>(below(others.size()))];
            line.replace(at, static_cast<std::size_t>(below(30)), part_of(other, 60));
        }
    }
    if (line.empty()) line = "{}";
}

}  // namespace reader_tests
