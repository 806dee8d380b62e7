#include "reader/column.hpp"

namespace fastlog::reader {

void Column::list_rows() {
    rows_.reserve(std::max<std::size_t>(16, values_.size() + 1));
    for (std::uint32_t i = 0; i < values_.size(); ++i) rows_.push_back(first_row_ + i);
}

void Column::put_slowly(std::uint32_t row, Value value) {
    kinds_ = static_cast<Kinds>(kinds_ | bit_of(value.kind));
    if (values_.empty()) {
        first_row_ = row;
        kind_ = value.kind;
    } else {
        if (rows_.empty() && row != next_row_) {
            list_rows();
        }
        if (tags_.empty() && value.kind != kind_) {
            tags_.resize(values_.size());
            std::fill_n(tags_.data(), tags_.size(), kind_);
        }
        if (!rows_.empty()) rows_.push_back(row);
        if (!tags_.empty()) tags_.push_back(value.kind);
    }
    values_.push_back(value.bits);
    next_row_ = row + 1;
}

}  // namespace fastlog::reader
