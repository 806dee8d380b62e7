#include "reader/batch.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/json_writer.hpp"
#include "reader/moment.hpp"

namespace fastlog::reader {
namespace {

/// A column of a chunk, and the piece that it is of.
struct From {
    const Piece* piece;
    const Column* column;
};

template <class T>
std::shared_ptr<Buffer<T>> make_values(std::size_t count, bool cleared) {
    auto values = std::make_shared<Buffer<T>>();
    values->resize(std::max<std::size_t>(count, 1));
    if (cleared) std::memset(values->data(), 0, values->size() * sizeof(T));
    return values;
}

/// Bits of which rows have a value; made when one is found to have none.
class Validity {
  public:
    explicit Validity(std::size_t rows)
        : rows_(rows), bits_(make_values<std::uint8_t>((rows + 7) / 8, true)) {}

    void set(std::uint32_t row) noexcept {
        auto& byte = (*bits_)[row >> 3];
        byte = static_cast<std::uint8_t>(byte | 1U << (row & 7));
        ++valid_;
    }
    void give(ColumnPart& part) {
        part.nulls = rows_ - valid_;
        if (part.nulls == 0) return;
        part.buffers[0] = bits_->data();
        part.owners[0] = std::move(bits_);
    }

  private:
    std::size_t rows_;
    std::size_t valid_ = 0;
    std::shared_ptr<Buffer<std::uint8_t>> bits_;
};

template <class T>
void give(ColumnPart& part, std::size_t at, std::shared_ptr<Buffer<T>> values) {
    part.buffers[at] = values->data();
    part.owners[at] = std::move(values);
}

/// The entries of some columns that lie in their pieces: calls `put(place, value, chunk)` for each.
template <class Put>
void each_entry(const std::vector<From>& sources, Put put) {
    for (const From& from : sources) {
        const Piece& piece = *from.piece;
        const Column& column = *from.column;
        const std::size_t end = column.entry_at(piece.end);
        for (std::size_t i = column.entry_at(piece.begin); i < end; ++i) {
            const std::uint32_t place = piece.place(column.row(i));
            if (place == kSkipped) continue;
            put(place, column.value(i), *piece.chunk);
        }
    }
}

/// A value as text: a text as it is, all else as JSON has it, and what JSON has not as `nonfinite`
/// names it.
void append_text(std::string& out, Value value, const Chunk& chunk) {
    switch (value.kind) {
        case Kind::kNull:
            return;
        case Kind::kBool:
            out.append(value.bits != 0 ? "true" : "false");
            return;
        case Kind::kInt:
            json::append_int(out, static_cast<std::int64_t>(value.bits));
            return;
        case Kind::kBig:
            json::append_uint(out, value.bits);
            return;
        case Kind::kDouble: {
            const double number = std::bit_cast<double>(value.bits);
            if (const char* const name = json::nonfinite_name(number)) {
                out.append(name);
            } else {
                json::append_double(out, number);
            }
            return;
        }
        case Kind::kText:
        case Kind::kJson:
            out.append(chunk.text(value.bits));
            return;
    }
}

class BatchBuilder {
  public:
    BatchBuilder(const Frame& frame, const std::vector<Piece>& pieces, std::size_t rows)
        : frame_(frame), pieces_(pieces), rows_(rows), batch_(std::make_unique<Batch>()) {
        batch_->rows = rows;
        batch_->columns.resize(frame.columns().size());
    }

    std::unique_ptr<Batch> build() {
        std::vector<std::vector<From>> sources(batch_->columns.size());
        for (const Piece& piece : pieces_) {
            for (const Columns* columns :
                 {&piece.chunk->fields, &piece.chunk->metrics, &piece.chunk->summary}) {
                for (const Column& column : *columns) {
                    if (column.out != 0) sources[column.out].push_back({&piece, &column});
                }
            }
        }
        const std::size_t count = batch_->columns.size();
        for (std::uint32_t c = 0; c < count; ++c) {
            ColumnPart& part = batch_->columns[c];
            part.rows = rows_;
            if (c == kTimeColumn) {
                times(part);
            } else if (c == kSeqColumn) {
                row_values(part, &Chunk::seq, nullptr);
            } else if (c == frame_.step_column()) {
                row_values(part, &Chunk::step, &Chunk::has_step);
            } else if (c >= count - kRankFromEnd) {
                origin(part, static_cast<std::uint32_t>(count) - c);
            } else {
                values(part, frame_.columns()[c].type, sources[c]);
            }
        }
        return std::move(batch_);
    }

  private:
    bool is_one_chunk() const { return pieces_.size() == 1 && pieces_.front().is_whole(); }

    void times(ColumnPart& part) {
        const Chunk& first = *pieces_.front().chunk;
        if (is_one_chunk() && first.odd_times.empty()) {
            part.buffers[1] = first.time.data();
            part.owners[1] = pieces_.front().chunk;
            return;
        }
        auto out = make_values<std::int64_t>(rows_, false);
        Validity valid(rows_);
        for (const Piece& piece : pieces_) {
            for (std::uint32_t row = piece.begin; row < piece.end; ++row) {
                const std::uint32_t place = piece.place(row);
                if (place == kSkipped) continue;
                const std::int64_t time = piece.chunk->time[row];
                (*out)[place] = time == kNoTime ? 0 : time;
                if (time != kNoTime) valid.set(place);
            }
        }
        valid.give(part);
        give(part, 1, std::move(out));
    }

    void row_values(ColumnPart& part, Buffer<std::int64_t> Chunk::* values,
                    Buffer<std::uint8_t> Chunk::* has) {
        const Chunk& first = *pieces_.front().chunk;
        if ((first.*values).empty()) return none(part);  // they were not kept
        if (is_one_chunk() && (has == nullptr || first.has_all_steps())) {
            part.buffers[1] = (first.*values).data();
            part.owners[1] = pieces_.front().chunk;
            return;
        }
        auto out = make_values<std::int64_t>(rows_, false);
        Validity valid(rows_);
        for (const Piece& piece : pieces_) {
            const Chunk& chunk = *piece.chunk;
            for (std::uint32_t row = piece.begin; row < piece.end; ++row) {
                const std::uint32_t place = piece.place(row);
                if (place == kSkipped) continue;
                (*out)[place] = (chunk.*values)[row];
                if (has == nullptr || (chunk.*has)[row] != 0) valid.set(place);
            }
        }
        valid.give(part);
        give(part, 1, std::move(out));
    }

    void values(ColumnPart& part, Type type, const std::vector<From>& sources) {
        switch (type) {
            case Type::kNull:
                part.nulls = rows_;
                return;
            case Type::kBool:
                bools(part, sources);
                return;
            case Type::kInt64:
                numbers<std::int64_t>(part, sources, Kind::kInt);
                return;
            case Type::kDouble:
                numbers<double>(part, sources, Kind::kDouble);
                return;
            default:
                texts(part, sources);
                return;
        }
    }

    template <class T>
    void numbers(ColumnPart& part, const std::vector<From>& sources, Kind kind) {
        if (sources.empty()) return none(part);
        const Column& only = *sources.front().column;
        if (is_one_chunk() && sources.size() == 1 && only.is_dense() && only.size() == rows_ &&
            only.is_uniform() && only.kind(0) == kind) {
            part.buffers[1] = only.data();
            part.owners[1] = pieces_.front().chunk;
            return;
        }
        auto out = make_values<T>(rows_, true);
        Validity valid(rows_);
        each_entry(sources, [&](std::uint32_t place, Value value, const Chunk&) {
            if (value.kind == Kind::kNull) return;
            if constexpr (std::is_same_v<T, double>) {
                (*out)[place] = as_double(value);
            } else {
                (*out)[place] = static_cast<T>(value.bits);
            }
            valid.set(place);
        });
        valid.give(part);
        give(part, 1, std::move(out));
    }

    void bools(ColumnPart& part, const std::vector<From>& sources) {
        auto out = make_values<std::uint8_t>((rows_ + 7) / 8, true);
        Validity valid(rows_);
        each_entry(sources, [&](std::uint32_t place, Value value, const Chunk&) {
            if (value.kind == Kind::kNull) return;
            auto& byte = (*out)[place >> 3];
            byte = static_cast<std::uint8_t>(byte | (value.bits & 1) << (place & 7));
            valid.set(place);
        });
        valid.give(part);
        give(part, 1, std::move(out));
    }

    void texts(ColumnPart& part, const std::vector<From>& sources) {
        // Texts lie in the order of the rows, which the pieces bring in another.
        struct Text {
            const char* data = nullptr;
            std::size_t size = 0;
        };
        std::vector<Text> found(rows_);
        std::vector<std::pair<std::uint32_t, std::size_t>> rendered;  // place, offset
        std::string scratch;
        Validity valid(rows_);
        each_entry(sources, [&](std::uint32_t place, Value value, const Chunk& chunk) {
            if (value.kind == Kind::kNull) return;
            valid.set(place);
            if (value.kind == Kind::kText || value.kind == Kind::kJson) {
                const std::string_view text = chunk.text(value.bits);
                found[place] = {text.data(), text.size()};
                return;
            }
            const std::size_t at = scratch.size();
            append_text(scratch, value, chunk);
            rendered.emplace_back(place, at);
            found[place].size = scratch.size() - at;
        });
        for (const auto& [place, at] : rendered) found[place].data = scratch.data() + at;
        auto offsets = make_values<std::int64_t>(rows_ + 1, false);
        std::size_t size = 0;
        for (std::size_t i = 0; i < rows_; ++i) {
            (*offsets)[i] = static_cast<std::int64_t>(size);
            size += found[i].size;
        }
        (*offsets)[rows_] = static_cast<std::int64_t>(size);
        auto data = std::make_shared<Buffer<char>>();
        data->reserve(size + 1);
        for (const Text& text : found) data->append(text.data, text.size);
        valid.give(part);
        give(part, 1, std::move(offsets));
        give(part, 2, std::move(data));
    }

    /// No row has a value.
    void none(ColumnPart& part) {
        part.nulls = rows_;
        give_zeros(part, 0);
        give_zeros(part, 1);
    }

    void give_zeros(ColumnPart& part, std::size_t at) {
        part.buffers[at] = frame_.zeros()->data();
        part.owners[at] = frame_.zeros();
    }

    void origin(ColumnPart& part, std::uint32_t from_end) {
        const auto& sources = frame_.sources();
        if (from_end == kLabelFromEnd) return labels(part);
        const auto number = [&](const Piece& piece) {
            const SourceRows& source = sources[piece.source];
            return from_end == kRankFromEnd ? source.rank : source.start;
        };
        if (pieces_.size() == 1) {
            const std::int64_t only = number(pieces_.front());
            if (only == 0) return give_zeros(part, 1);
            auto out = make_values<std::int64_t>(rows_, false);
            std::fill_n(out->data(), rows_, only);
            return give(part, 1, std::move(out));
        }
        auto out = make_values<std::int64_t>(rows_, false);
        for (const Piece& piece : pieces_) {
            const std::int64_t mine = number(piece);
            for (std::uint32_t row = piece.begin; row < piece.end; ++row) {
                const std::uint32_t place = piece.place(row);
                if (place != kSkipped) (*out)[place] = mine;
            }
        }
        give(part, 1, std::move(out));
    }

    void labels(ColumnPart& part) {
        const auto& sources = frame_.sources();
        const auto is_main = [&](const Piece& piece) {
            return sources[piece.source].label.empty();
        };
        if (std::all_of(pieces_.begin(), pieces_.end(), is_main)) {
            give_zeros(part, 1);
            return give_zeros(part, 2);
        }
        auto offsets = make_values<std::int64_t>(rows_ + 1, true);
        auto data = std::make_shared<Buffer<char>>();
        data->reserve(1);
        if (pieces_.size() == 1) {
            const std::string& label = sources[pieces_.front().source].label;
            data->reserve(rows_ * label.size());
            for (std::size_t i = 0; i < rows_; ++i) {
                data->append(label.data(), label.size());
                (*offsets)[i + 1] = static_cast<std::int64_t>(data->size());
            }
        } else {
            std::vector<const std::string*> of(rows_);
            for (const Piece& piece : pieces_) {
                for (std::uint32_t row = piece.begin; row < piece.end; ++row) {
                    const std::uint32_t place = piece.place(row);
                    if (place != kSkipped) of[place] = &sources[piece.source].label;
                }
            }
            for (std::size_t i = 0; i < rows_; ++i) {
                data->append(of[i]->data(), of[i]->size());
                (*offsets)[i + 1] = static_cast<std::int64_t>(data->size());
            }
        }
        give(part, 1, std::move(offsets));
        give(part, 2, std::move(data));
    }

    const Frame& frame_;
    const std::vector<Piece>& pieces_;
    const std::size_t rows_;
    std::unique_ptr<Batch> batch_;
};

}  // namespace

std::unique_ptr<Batch> make_batch(const Frame& frame, const std::vector<Piece>& pieces,
                                  std::size_t rows) {
    return BatchBuilder(frame, pieces, rows).build();
}

}  // namespace fastlog::reader
