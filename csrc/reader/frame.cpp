#include "reader/frame.hpp"

#include <algorithm>
#include <span>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "reader/batch.hpp"
#include "reader/moment.hpp"

namespace fastlog::reader {
namespace {

// Rows of a batch that is put together of several chunks: its columns stay in the cache.
constexpr std::size_t kMergedRows = std::size_t{1} << 17;

constexpr Kinds kInts = bit_of(Kind::kInt);
constexpr Kinds kNumbers = kInts | bit_of(Kind::kBig) | bit_of(Kind::kDouble);

struct Fixed {
    const char* name;
    Type type;  // where it has no values; one of floats takes integers, too
};
constexpr Fixed kMetrics[] = {{"step", Type::kInt64}, {"epoch", Type::kInt64}};
constexpr Fixed kPerformance[] = {
    {"name", Type::kText},   {"duration_s", Type::kDouble}, {"step", Type::kInt64},
    {"depth", Type::kInt64}, {"parent", Type::kText},       {"thread", Type::kInt64},
    {"error", Type::kText},  {"device", Type::kText},       {"device_duration_s", Type::kDouble}};
constexpr Fixed kErrors[] = {{"level", Type::kText},         {"logger", Type::kText},
                             {"step", Type::kInt64},         {"message", Type::kText},
                             {"event", Type::kText},         {"error_type", Type::kText},
                             {"error_message", Type::kText}, {"traceback", Type::kText},
                             {"fingerprint", Type::kText},   {"context", Type::kText}};
constexpr Fixed kSystem[] = {{"step", Type::kInt64}};
constexpr Fixed kLog[] = {{"level", Type::kText},
                          {"logger", Type::kText},
                          {"step", Type::kInt64},
                          {"message", Type::kText},
                          {"context", Type::kText}};

std::span<const Fixed> fixed_of(Stream stream) {
    switch (stream) {
        case Stream::kMetrics:
            return kMetrics;
        case Stream::kPerformance:
            return kPerformance;
        case Stream::kErrors:
            return kErrors;
        case Stream::kSystem:
            return kSystem;
        case Stream::kLog:
            break;
    }
    return kLog;
}

/// Where a key stood first: its time, source, chunk, row, and place in the chunk.
using First = std::tuple<std::int64_t, std::size_t, std::size_t, std::uint32_t, std::size_t>;

struct Known {
    Kinds kinds = 0;
    First first{};
    std::vector<Column*> columns;
};

using Metrics = std::unordered_map<std::string, Known>;

constexpr const char* kPrefix = "metrics.";

/// A metric's name without the NUL that would end it for Arrow.
std::string without_nul(std::string_view name) {
    std::string out;
    for (const char c : name) {
        if (c == 0) {
            out += "\\u0000";
        } else {
            out += c;
        }
    }
    return out;
}

/// What the metrics' columns are called: as the metrics, but for those whose name is taken, empty or
/// changed here. These get "metrics." before it, until no other column has the name.
std::unordered_map<std::string_view, std::string> metric_names(
    const Metrics& known, std::unordered_set<std::string> taken) {
    std::unordered_map<std::string_view, std::string> names;
    std::vector<std::pair<std::string_view, std::string>> others;
    for (const auto& [name, metric] : known) {
        std::string out = without_nul(name);
        if (!name.empty() && out == name && taken.insert(out).second) {
            names.emplace(name, std::move(out));
        } else {
            others.emplace_back(name, std::move(out));
        }
    }
    std::sort(others.begin(), others.end());
    for (auto& [name, out] : others) {
        if (out == name || taken.contains(out)) out.insert(0, kPrefix);
        while (!taken.insert(out).second) out.insert(0, kPrefix);
        names.emplace(name, std::move(out));
    }
    return names;
}

/// The kinds of a column's entries that are shown; `row` becomes the first one's row.
Kinds shown_kinds(const Column& column, const Marks& marks, std::uint32_t& row) {
    if (column.empty()) return 0;
    if (marks.empty()) {
        row = column.row(0);
        return column.kinds();
    }
    Kinds kinds = 0;
    for (std::size_t i = 0; i < column.size(); ++i) {
        if (marks[column.row(i)] != Mark::kShown) continue;
        if (kinds == 0) row = column.row(i);
        kinds = static_cast<Kinds>(kinds | bit_of(column.kind(i)));
    }
    return kinds;
}

}  // namespace

Type type_of(Kinds kinds) noexcept {
    kinds = static_cast<Kinds>(kinds & ~bit_of(Kind::kNull));
    if (kinds == 0) return Type::kNull;
    if (kinds == bit_of(Kind::kBool)) return Type::kBool;
    // Beside numbers, true and false are 1 and 0.
    kinds = static_cast<Kinds>(kinds & ~bit_of(Kind::kBool));
    if (kinds == kInts) return Type::kInt64;
    return (kinds & ~kNumbers) == 0 ? Type::kDouble : Type::kText;
}

Frame::Frame(Stream stream, std::vector<SourceRows> sources)
    : sources_(std::move(sources)), selection_(sources_) {
    name_columns(stream);
    std::size_t most = std::min(kMergedRows, static_cast<std::size_t>(selection_.shown()));
    for (const SourceRows& source : sources_) {
        for (const auto& chunk : source.chunks) most = std::max(most, chunk->rows());
    }
    auto zeros = std::make_shared<Buffer<std::int64_t>>();
    zeros->resize(most + 1);
    std::fill_n(zeros->data(), most + 1, 0);
    zeros_ = std::move(zeros);
}

void Frame::name_columns(Stream stream) {
    Metrics known;
    std::unordered_map<std::string, Known> fields;
    const auto fixed = fixed_of(stream);
    std::unordered_set<std::string> taken;
    for (const char* name : {"timestamp", "seq", "rank", "start", "label"}) taken.insert(name);
    for (const Fixed& field : fixed) taken.insert(field.name);
    for (std::size_t s = 0; s < sources_.size(); ++s) {
        for (std::size_t c = 0; c < sources_[s].chunks.size(); ++c) {
            Chunk& chunk = *sources_[s].chunks[c];
            const Marks& marks = selection_.marks(s, c);
            std::uint32_t row = 0;
            for (Column& column : chunk.fields) {
                if (!column.is_stored) continue;
                Known& field = fields[column.name];
                field.kinds = static_cast<Kinds>(field.kinds | shown_kinds(column, marks, row));
                field.columns.push_back(&column);
            }
            std::size_t place = 0;
            for (Columns* columns : {&chunk.metrics, &chunk.summary}) {
                for (Column& column : *columns) {
                    const Kinds kinds = shown_kinds(column, marks, row);
                    if (kinds == 0) continue;
                    Known& metric = known[column.name];
                    const First first{chunk.time[row], s, c, row, place++};
                    if (metric.columns.empty() || first < metric.first) metric.first = first;
                    metric.kinds = static_cast<Kinds>(metric.kinds | kinds);
                    metric.columns.push_back(&column);
                }
            }
        }
    }
    const auto add = [this](std::string name, Type type) {
        columns_.push_back({std::move(name), type});
        return static_cast<std::uint32_t>(columns_.size() - 1);
    };
    add("timestamp", Type::kTime);
    add("seq", Type::kInt64);
    for (const Fixed& field : fixed) {
        const auto found = fields.find(field.name);
        Type type = type_of(found == fields.end() ? Kinds{0} : found->second.kinds);
        if (type == Type::kNull || (type == Type::kInt64 && field.type == Type::kDouble)) {
            type = field.type;
        }
        const std::uint32_t out = add(field.name, type);
        if (std::string_view(field.name) == "step") step_column_ = out;
        if (found == fields.end()) continue;
        for (Column* column : found->second.columns) column->out = out;
    }
    std::vector<std::pair<First, const std::pair<const std::string, Known>*>> order;
    for (const auto& metric : known) order.emplace_back(metric.second.first, &metric);
    std::sort(order.begin(), order.end(),
              [](const auto& a, const auto& b) { return a.first < b.first; });
    const auto names = metric_names(known, std::move(taken));
    for (const auto& [first, metric] : order) {
        const std::uint32_t out = add(names.at(metric->first), type_of(metric->second.kinds));
        for (Column* column : metric->second.columns) column->out = out;
    }
    add("rank", Type::kInt64);
    add("start", Type::kInt64);
    add("label", Type::kText);
}

Frame::Batches::Batches(const Frame& frame) : frame_(frame) {
    const auto has_rows = [](const SourceRows& source) {
        return std::any_of(source.chunks.begin(), source.chunks.end(),
                           [](const auto& chunk) { return chunk->rows() != 0; });
    };
    const auto& sources = frame.sources();
    if (std::count_if(sources.begin(), sources.end(), has_rows) > 1) {
        merge_ = std::make_unique<Merge>(sources, frame.selection());
    }
}

std::unique_ptr<Batch> Frame::Batches::next() { return merge_ ? next_merged() : next_chunk(); }

std::unique_ptr<Batch> Frame::Batches::next_chunk() {
    std::size_t number = 0;  // of all chunks: those of the sources before have no rows
    for (std::size_t s = 0; s < frame_.sources().size(); ++s) {
        const auto& chunks = frame_.sources()[s].chunks;
        for (std::size_t c = 0; c < chunks.size(); ++c, ++number) {
            if (number < chunk_ || chunks[c]->rows() == 0) continue;
            chunk_ = number + 1;
            std::vector<Piece> pieces(1);
            Piece& piece = pieces.front();
            piece.source = s;
            piece.chunk = chunks[c];
            piece.end = static_cast<std::uint32_t>(chunks[c]->rows());
            std::uint32_t rows = piece.end;
            const Marks& marks = frame_.selection().marks(s, c);
            if (!marks.empty()) {
                rows = 0;
                for (const Mark mark : marks) {
                    piece.at.push_back(mark == Mark::kShown ? rows++ : kSkipped);
                }
                if (rows == 0) continue;
            }
            return make_batch(frame_, pieces, rows);
        }
    }
    return nullptr;
}

std::unique_ptr<Batch> Frame::Batches::next_merged() {
    std::vector<Piece> pieces;
    constexpr std::size_t kNone = SIZE_MAX;
    std::vector<std::size_t> open(frame_.sources().size(), kNone);
    std::uint32_t rows = 0;
    for (; rows < kMergedRows && !merge_->done(); merge_->pop()) {
        const Merge::Place place = merge_->top();
        const Marks& marks = frame_.selection().marks(place.source, place.chunk);
        if (!marks.empty() && marks[place.row] != Mark::kShown) continue;
        const auto& chunk = frame_.sources()[place.source].chunks[place.chunk];
        std::size_t& piece = open[place.source];
        if (piece == kNone || pieces[piece].chunk != chunk) {
            piece = pieces.size();
            pieces.emplace_back();
            pieces.back().source = place.source;
            pieces.back().chunk = chunk;
            pieces.back().begin = pieces.back().end = place.row;
        }
        Piece& to = pieces[piece];
        for (; to.end < place.row; ++to.end) to.at.push_back(kSkipped);
        to.at.push_back(rows++);
        ++to.end;
    }
    return rows == 0 ? nullptr : make_batch(frame_, pieces, rows);
}

}  // namespace fastlog::reader
