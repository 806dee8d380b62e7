// Reads lines into the columns of a chunk.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "reader/chunk.hpp"
#include "reader/moment.hpp"

namespace fastlog::reader {

/// Which names of metrics, or of blocks, are wanted: all, or those that one of the patterns fits.
struct Wanted {
    bool all = true;
    bool exact = false;  // patterns are names
    std::vector<std::string> patterns;

    bool has(std::string_view name) const;
};

/// Whether a name fits a pattern of the shell: `*`, `?`, `[abc]`, `[!a-z]`. A name fits itself.
bool fits(std::string_view pattern, std::string_view name) noexcept;

struct Options {
    Wanted names;
    std::int64_t first_step = INT64_MIN;
    std::int64_t last_step = INT64_MAX;  // included
    bool only_count = false;             // keep no rows
    bool seqs = true;                    // keep the numbers of rows
    bool list_names = false;             // but mark the names that were recorded
    bool note_steps = false;             // fill Chunk::recorded_steps
    bool note_firsts = false;            // fill Column::first_step and first_epoch
    bool keep_lines = false;             // rows are all sound lines, as they stand, without values

    /// Whether names are kept where values are not.
    bool keeps_names() const noexcept { return list_names || note_firsts; }
    bool has_steps() const noexcept { return first_step != INT64_MIN || last_step != INT64_MAX; }
};

/// A strict parser that expects of each line what it found in the one before: a key that comes where
/// it came before is recognised at one look, and all else is what any parser of JSON does. So there
/// is one parser, and not a quick one beside a right one.
class LineParser {
  public:
    LineParser(Stream stream, const Options& options, Chunk& chunk);

    /// Reads the line at `p`, which a newline ends. Returns the newline, or null where the line is
    /// damaged; then nothing of it is kept.
    const char* parse(const char* p);

    /// Makes room for so many rows.
    void reserve(std::size_t rows);

  private:
    struct Found {
        Column* column;
        Value value;
    };
    struct Name {
        std::string name;
        std::string text;
    };
    enum class Body : std::uint8_t { kNone, kObject, kOther };  // none: absent, or null

    /// What is known of the line so far, but what lies in vectors.
    struct Line {
        std::uint32_t has = 0;  // bits of the fields that are there and as they must be
        std::uint32_t bad = 0;  // of those that are there and must not be so
        std::int64_t time = 0;
        std::int64_t seq = 0;
        std::int64_t step = 0;
        std::int64_t rewind = 0;
        Value epoch;
        Value dropped;
        Body metrics = Body::kNone;
        Body summary = Body::kNone;
        bool is_wanted = true;
    };

    /// What a line of metrics begins with as a rule, at one stroke: up to the end of its values, from
    /// where the parser goes on as behind any member. Null where it begins otherwise.
    const char* parse_usual(const char* p);
    const char* parse_more(const char* p, Column** expected);
    const char* parse_members(const char* p, Column** expected);
    const char* parse_field(const char* p, Column& field);
    const char* parse_key(const char* p, std::string_view& key);
    const char* parse_value(const char* p, unsigned depth, bool store, Value& value) {
        if (is_digit(*p) || *p == '-') [[likely]] {
            return store ? parse_number(p, value) : skip_number(p);
        }
        return parse_other(p, depth, store, value);
    }
    const char* parse_other(const char* p, unsigned depth, bool store, Value& value);
    const char* parse_text(const char* p, Value& value);
    const char* parse_time(const char* p);
    const char* parse_scalar(const char* p, Column& field, Kinds allowed);
    const char* parse_body(const char* p, Columns& columns, std::vector<Found>& found, Body& body);
    const char* parse_values(const char* p, Columns& columns, std::vector<Found>& found);
    const char* parse_names(const char* p, std::vector<Name>& names, bool& good);
    Column* column_of(std::string_view key, Columns& columns);
    bool is_sound() const;
    void note(std::uint32_t role, bool good);
    void restore_nonfinite(const Columns& columns, std::vector<Found>& found);
    bool finish();
    void keep_line(const char* begin, const char* end);
    static void set(Column& column, Value value, std::vector<Found>& found);
    void note_seq();
    void note_step();
    void note_firsts();
    /// The column, without entries, of the block that a line of performance is of.
    Column* block_of_line();
    void keep_row();
    void grow_rows(std::size_t rows);
    void list_names();
    void keep_missing(std::uint32_t row);

    /// Whether its lines have an object of values by names.
    bool has_values() const noexcept {
        return stream_ == Stream::kMetrics || stream_ == Stream::kSystem;
    }

    const Stream stream_;
    const Options& options_;
    Chunk& chunk_;
    MomentReader moments_;
    Column* metrics_field_ = nullptr;
    Column* epoch_field_ = nullptr;

    // Of the line that is read.
    Line line_;
    std::vector<Found> metrics_;
    std::vector<Found> summary_;
    std::vector<Found> fields_;
    std::vector<Name> nonfinite_;
    std::vector<Name> missing_;
    std::string odd_time_;
    std::string scratch_;
    std::string key_scratch_;
};

}  // namespace fastlog::reader
