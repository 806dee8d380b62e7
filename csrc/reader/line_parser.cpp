#include "reader/line_parser.hpp"

#include <limits>
#include <span>
#include <stdexcept>

#include "reader/line_fields.hpp"
#include "reader/text.hpp"

namespace fastlog::reader {
namespace {

constexpr Kinds kNumbers = bit_of(Kind::kInt) | bit_of(Kind::kBig) | bit_of(Kind::kDouble);
constexpr Kinds kTexts = bit_of(Kind::kText);
constexpr Kinds kAny = 0xFF;

// More names than a run can have; and those that are not wanted, which are only expected again.
constexpr std::size_t kMostNames = std::size_t{1} << 20;
constexpr std::size_t kMostExpected = std::size_t{1} << 16;

}  // namespace

LineParser::LineParser(Stream stream, const Options& options, Chunk& chunk)
    : stream_(stream), options_(options), chunk_(chunk) {
    for (const auto& fields : {std::span<const Field>(kCommon), fields_of(stream)}) {
        for (const Field& field : fields) {
            const bool stored =
                field.role >= kContext || (field.role == kEpoch && stream == Stream::kMetrics);
            Column& column = chunk_.fields.add(field.name, stored);
            column.role = field.role;
            if (field.role == kMetrics) metrics_field_ = &column;
            if (field.role == kEpoch) epoch_field_ = &column;
        }
    }
}

void LineParser::grow_rows(std::size_t rows) {
    if (options_.seqs) chunk_.seq.reserve(rows);
    chunk_.step.reserve(rows);
    chunk_.has_step.reserve(rows);
    chunk_.time.reserve(rows);  // last: the others have room where it has
}

void LineParser::reserve(std::size_t rows) {
    grow_rows(rows);
    for (Columns* columns : {&chunk_.fields, &chunk_.metrics}) {
        for (Column& column : *columns) {
            if (column.size() > 8 && column.is_dense()) column.reserve(rows);
        }
    }
}

const char* LineParser::parse(const char* p) {
    line_ = Line{};
    metrics_.clear();
    summary_.clear();
    fields_.clear();
    nonfinite_.clear();
    missing_.clear();
    const char* const begin = p;
    const std::size_t texts_before = chunk_.texts.size();
    const char* const behind = stream_ == Stream::kMetrics ? parse_usual(p) : nullptr;
    if (behind != nullptr) {
        p = *behind == '}' ? behind + 1 : parse_more(behind, &metrics_field_->next);
    } else {
        p = skip_blanks(p);
        p = *p == '{' ? parse_members(p + 1, &chunk_.fields.first) : nullptr;
    }
    if (p != nullptr) p = skip_blanks(p);
    if (p == nullptr || *p != '\n' || !is_sound()) {
        chunk_.texts.resize(texts_before);
        return nullptr;
    }
    if (!finish()) chunk_.texts.resize(texts_before);
    if (options_.keep_lines) keep_line(begin, p);
    return p;
}

const char* LineParser::parse_more(const char* p, Column** expected) {
    p = skip_blanks(p);
    if (*p == '}') return p + 1;
    return *p == ',' ? parse_members(p + 1, expected) : nullptr;
}

const char* LineParser::parse_members(const char* p, Column** expected) {
    for (;;) {
        Column* field = *expected;
        if (field != nullptr && field->spelling.begins(p)) [[likely]] {
            p += field->spelling.size();
            if (*p <= ' ') p = skip_blanks(p);
        } else {
            const char* const begin = p;
            std::string_view key;
            if ((p = parse_key(p, key)) == nullptr) return nullptr;
            field = chunk_.fields.find(key);
            if (field != nullptr) {
                if (!field->spelling.begins(begin)) {
                    field->spelling.set({begin, static_cast<std::size_t>(p - begin)});
                }
                *expected = field;
            }
        }
        if (field != nullptr) {
            p = parse_field(p, *field);
            expected = &field->next;
        } else {
            Value ignored;
            p = parse_value(p, 1, false, ignored);
        }
        if (p == nullptr) return nullptr;
        if (*p != ',' && *p != '}') p = skip_blanks(p);
        if (*p == '}') return p + 1;
        if (*p != ',') return nullptr;
        ++p;
    }
}

const char* LineParser::parse_key(const char* p, std::string_view& key) {
    p = skip_blanks(p);
    if (*p != '"' || (p = parse_string(p + 1, key, key_scratch_)) == nullptr) return nullptr;
    p = skip_blanks(p);
    return *p == ':' ? skip_blanks(p + 1) : nullptr;
}

void LineParser::note(std::uint32_t role, bool good) {
    line_.has = good ? line_.has | flag(role) : line_.has & ~flag(role);
    line_.bad = good ? line_.bad & ~flag(role) : line_.bad | flag(role);
}

void LineParser::set(Column& column, Value value, std::vector<Found>& found) {
    if (column.place < found.size() && found[column.place].column == &column) {
        found[column.place].value = value;  // a key that the line has twice: the last one counts
        return;
    }
    column.place = static_cast<std::uint32_t>(found.size());
    found.push_back({&column, value});
}

const char* LineParser::parse_field(const char* p, Column& field) {
    Value value;
    bool good = true;
    switch (field.role) {
        case kTime:
            return parse_time(p);
        case kSeq:
            p = parse_value(p, 1, true, value);
            line_.seq = static_cast<std::int64_t>(value.bits);
            note(kSeq, value.kind == Kind::kInt && line_.seq >= 0);
            return p;
        case kStep:
            p = parse_value(p, 1, true, value);
            line_.step = static_cast<std::int64_t>(value.bits);
            note(kStep, value.kind == Kind::kInt);
            if (value.kind == Kind::kNull) line_.bad &= ~flag(kStep);
            return p;
        case kEpoch:
            p = parse_value(p, 1, true, value);
            line_.epoch = value;
            note(kEpoch, value.kind == Kind::kNull || (bit_of(value.kind) & kNumbers) != 0);
            return p;
        case kDropped:
            p = parse_value(p, 1, true, value);
            line_.dropped = value;
            note(kDropped,
                 value.kind == Kind::kBig ||
                     (value.kind == Kind::kInt && static_cast<std::int64_t>(value.bits) >= 0));
            return p;
        case kMetrics:
            return parse_body(p, chunk_.metrics, metrics_, line_.metrics);
        case kSummary:
            return parse_body(p, chunk_.summary, summary_, line_.summary);
        case kSystem:
            return parse_body(p, chunk_.metrics, metrics_, line_.metrics);
        case kRewind:
            p = parse_value(p, 1, true, value);
            line_.rewind = static_cast<std::int64_t>(value.bits);
            note(kRewind, value.kind == Kind::kInt);
            return p;
        case kNonfinite:
            p = parse_names(p, nonfinite_, good);
            note(kNonfinite, good);
            return p;
        case kMissing:
            p = parse_names(p, missing_, good);
            note(kMissing, good);
            return p;
        case kContext: {
            const char* const begin = p;
            p = parse_value(p, 1, false, value);
            if (p == nullptr) return nullptr;
            note(kContext, *begin == '{');
            const std::size_t at = chunk_.texts.size();
            if (options_.only_count) return p;
            chunk_.texts.append(begin, static_cast<std::size_t>(p - begin));
            set(field, Value::of_text(Kind::kText, at, chunk_.texts.size() - at), fields_);
            return p;
        }
        case kName:
        case kLevel:
        case kMessage:
            return parse_scalar(p, field, kTexts);
        case kDuration:
            return parse_scalar(p, field, bit_of(Kind::kInt) | kNumbers);
        case kDevice:
            return parse_scalar(p, field, kTexts | bit_of(Kind::kNull));
        case kDeviceDuration:
            return parse_scalar(p, field, kNumbers | bit_of(Kind::kNull));
        default:
            return parse_scalar(p, field, kAny);
    }
}

const char* LineParser::parse_scalar(const char* p, Column& field, Kinds allowed) {
    Value value;
    p = parse_value(p, 1, true, value);
    if (p == nullptr) return nullptr;
    note(field.role, (bit_of(value.kind) & allowed) != 0);
    if (field.role == kName && !options_.names.all && value.kind == Kind::kText) {
        line_.is_wanted = options_.names.has(chunk_.text(value.bits));
    }
    if (value.kind != Kind::kNull) {
        set(field, value, fields_);
    } else {
        std::erase_if(fields_, [&field](const Found& found) { return found.column == &field; });
    }
    return p;
}

const char* LineParser::parse_time(const char* p) {
    if (*p == '"') {
        line_.time = moments_.read(p + 1);
        note(kTime, true);
        if (line_.time != kNoTime) [[likely]]
            return p + 1 + MomentReader::kSize + 1;
        std::string_view text;
        p = parse_string(p + 1, text, scratch_);
        if (p != nullptr) odd_time_.assign(text);
        return p;
    }
    Value ignored;
    note(kTime, false);
    return parse_value(p, 1, false, ignored);
}

const char* LineParser::parse_text(const char* p, Value& value) {
    std::string_view text;
    p = parse_string(p, text, scratch_);
    if (p == nullptr) return nullptr;
    const std::size_t at = chunk_.texts.size();
    chunk_.texts.append(text.data(), text.size());
    value = Value::of_text(Kind::kText, at, text.size());
    return p;
}

const char* LineParser::parse_other(const char* p, unsigned depth, bool store, Value& value) {
    switch (*p) {
        case '"':
            if (store) return parse_text(p + 1, value);
            value.kind = Kind::kText;
            return skip_string(p + 1);
        case 't':
            value = {Kind::kBool, 1};
            return skip_literal(p);
        case 'f':
            value = {Kind::kBool, 0};
            return skip_literal(p);
        case 'n':
            value = {};
            return skip_literal(p);
        case '{':
        case '[': {
            const char* const begin = p;
            p = skip_value(p, depth);
            value.kind = Kind::kJson;
            if (p == nullptr || !store) return p;
            const std::size_t at = chunk_.texts.size();
            chunk_.texts.append(begin, static_cast<std::size_t>(p - begin));
            value = Value::of_text(Kind::kJson, at, chunk_.texts.size() - at);
            return p;
        }
        default:
            return nullptr;
    }
}

const char* LineParser::parse_body(const char* p, Columns& columns, std::vector<Found>& found,
                                   Body& body) {
    found.clear();
    if (*p == '{') {
        body = Body::kObject;
        return parse_values(p + 1, columns, found);
    }
    Value ignored;
    body = *p == 'n' ? Body::kNone : Body::kOther;
    return parse_value(p, 1, false, ignored);
}

const char* LineParser::parse_values(const char* p, Columns& columns, std::vector<Found>& found) {
    // Known before the values as a rule: then none that is not wanted is converted.
    const bool store = !options_.only_count &&
                       ((line_.has & flag(kStep)) == 0 ||
                        (line_.step >= options_.first_step && line_.step <= options_.last_step));
    Column* nobody = nullptr;
    Column** expected = &columns.first;
    if (*p != '"' && *(p = skip_blanks(p)) == '}') return p + 1;
    for (;;) {
        Column* column = *expected;
        if (column != nullptr && column->spelling.begins(p)) [[likely]] {
            p += column->spelling.size();
            if (*p <= ' ') p = skip_blanks(p);
        } else {
            const char* const begin = p;
            std::string_view key;
            if ((p = parse_key(p, key)) == nullptr) return nullptr;
            column = column_of(key, columns);
            if (column != nullptr) {
                if (!column->spelling.begins(begin)) {
                    column->spelling.set({begin, static_cast<std::size_t>(p - begin)});
                }
                *expected = column;
            }
        }
        const bool wanted = store && column != nullptr && column->is_stored;
        Value value;
        if ((p = parse_value(p, 2, wanted, value)) == nullptr) return nullptr;
        if (wanted || (options_.keeps_names() && column != nullptr)) set(*column, value, found);
        nobody = nullptr;
        expected = column != nullptr ? &column->next : &nobody;
        if (*p != ',' && *p != '}') p = skip_blanks(p);
        if (*p == '}') return p + 1;
        if (*p != ',') return nullptr;
        ++p;
    }
}

Column* LineParser::column_of(std::string_view key, Columns& columns) {
    if (Column* const known = columns.find(key)) return known;
    const bool stored = !options_.only_count && options_.names.has(key);
    if (!stored && !options_.keeps_names() && columns.size() >= kMostExpected) return nullptr;
    if (columns.size() >= kMostNames) throw std::length_error("too many names of metrics");
    Column& column = columns.add(key, stored);
    column.first_time = line_.time;
    return &column;
}

const char* LineParser::parse_names(const char* p, std::vector<Name>& names, bool& good) {
    names.clear();
    good = *p == 'n';
    if (*p != '{') {
        Value ignored;
        return parse_value(p, 1, false, ignored);
    }
    good = true;
    p = skip_blanks(p + 1);
    if (*p == '}') return p + 1;
    for (;;) {
        std::string_view text;
        if ((p = parse_key(p, text)) == nullptr) return nullptr;
        names.push_back({std::string(text), {}});
        if (*p == '"') {
            p = parse_string(p + 1, text, scratch_);
            names.back().text.assign(text);
        } else {
            Value ignored;
            good = false;
            p = parse_value(p, 2, false, ignored);
        }
        if (p == nullptr) return nullptr;
        p = skip_blanks(p);
        if (*p == '}') return p + 1;
        if (*p != ',') return nullptr;
        ++p;
    }
}

bool LineParser::is_sound() const {
    constexpr std::uint32_t kAlways = flag(kTime) | flag(kSeq);
    constexpr std::uint32_t kNever = flag(kStep) | flag(kEpoch) | flag(kNonfinite) | flag(kMissing);
    const auto has = [this](std::uint32_t flags) { return (line_.has & flags) == flags; };
    if (!has(kAlways) || (line_.bad & kNever) != 0) return false;
    if (((line_.has | line_.bad) & flag(kRewind)) != 0) return has(flag(kRewind));
    if (((line_.has | line_.bad) & flag(kDropped)) != 0) return has(flag(kDropped));
    switch (stream_) {
        case Stream::kMetrics:
            return line_.metrics == Body::kObject ||
                   (line_.metrics == Body::kNone && line_.summary == Body::kObject);
        case Stream::kPerformance:
            return has(flag(kName) | flag(kDuration)) &&
                   (line_.bad & (flag(kDevice) | flag(kDeviceDuration))) == 0;
        case Stream::kSystem:
            return line_.metrics == Body::kObject;
        case Stream::kErrors:
        case Stream::kLog:
            break;
    }
    return has(flag(kLevel) | flag(kMessage)) && (line_.bad & flag(kContext)) == 0;
}

}  // namespace fastlog::reader
