#include "reader/arrow_export.hpp"

#include <cerrno>
#include <new>
#include <string>
#include <utility>
#include <vector>

namespace fastlog::reader {
namespace {

const char* format_of(Type type) noexcept {
    switch (type) {
        case Type::kNull:
            return "n";
        case Type::kBool:
            return "b";
        case Type::kInt64:
            return "l";
        case Type::kDouble:
            return "g";
        case Type::kText:
            return "U";
        case Type::kTime:
            return "tsu:UTC";
    }
    return "n";
}

int buffer_count(Type type) noexcept {
    return type == Type::kNull ? 0 : type == Type::kText ? 3 : 2;
}

/// What a schema or an array owns by its `private_data`.
template <class T>
struct Owned {
    Owned() = default;
    Owned(const Owned&) = delete;
    Owned& operator=(const Owned&) = delete;
    ~Owned() {
        for (const auto& child : children) {
            if (child->release != nullptr) child->release(child.get());  // else it was moved out
        }
    }

    std::string name;
    ColumnPart part;
    std::vector<std::unique_ptr<T>> children;
    std::vector<T*> pointers;
};

template <class T>
void release(T* it) {
    auto* const owned = static_cast<Owned<T>*>(it->private_data);
    it->release = nullptr;
    delete owned;
}

template <class T>
void adopt(std::unique_ptr<Owned<T>> owned, T* out) {
    for (const auto& child : owned->children) owned->pointers.push_back(child.get());
    out->n_children = static_cast<std::int64_t>(owned->pointers.size());
    out->children = owned->pointers.data();
    out->release = &release<T>;
    out->private_data = owned.release();
}

void export_field(const FrameColumn& column, ArrowSchema* out) {
    auto owned = std::make_unique<Owned<ArrowSchema>>();
    owned->name = column.name;
    *out = {};
    out->format = format_of(column.type);
    out->name = owned->name.c_str();
    out->flags = ARROW_FLAG_NULLABLE;
    adopt(std::move(owned), out);
}

void export_part(ColumnPart&& part, Type type, ArrowArray* out) {
    auto owned = std::make_unique<Owned<ArrowArray>>();
    owned->part = std::move(part);
    *out = {};
    out->length = static_cast<std::int64_t>(owned->part.rows);
    out->null_count = static_cast<std::int64_t>(owned->part.nulls);
    out->n_buffers = buffer_count(type);
    out->buffers = owned->part.buffers.data();
    adopt(std::move(owned), out);
}

void export_batch(const Frame& frame, Batch&& batch, ArrowArray* out) {
    auto owned = std::make_unique<Owned<ArrowArray>>();
    for (std::size_t i = 0; i < batch.columns.size(); ++i) {
        owned->children.push_back(std::make_unique<ArrowArray>());
        export_part(std::move(batch.columns[i]), frame.columns()[i].type,
                    owned->children.back().get());
    }
    owned->pointers.reserve(owned->children.size());
    *out = {};
    out->length = static_cast<std::int64_t>(batch.rows);
    out->n_buffers = 1;  // no validity: there is no row that is null itself
    out->buffers = owned->part.buffers.data();
    adopt(std::move(owned), out);
}

struct StreamState {
    explicit StreamState(std::shared_ptr<const Frame> it) : frame(std::move(it)), batches(*frame) {}
    std::shared_ptr<const Frame> frame;
    Frame::Batches batches;
};

StreamState& state_of(ArrowArrayStream* stream) {
    return *static_cast<StreamState*>(stream->private_data);
}

int stream_schema(ArrowArrayStream* stream, ArrowSchema* out) {
    try {
        export_schema(*state_of(stream).frame, out);
        return 0;
    } catch (const std::bad_alloc&) {
        return ENOMEM;
    }
}

int stream_next(ArrowArrayStream* stream, ArrowArray* out) {
    try {
        *out = {};
        StreamState& state = state_of(stream);
        if (auto batch = state.batches.next()) export_batch(*state.frame, std::move(*batch), out);
        return 0;
    } catch (const std::bad_alloc&) {
        return ENOMEM;
    }
}

const char* stream_error(ArrowArrayStream*) { return "out of memory"; }

void stream_release(ArrowArrayStream* stream) {
    delete static_cast<StreamState*>(stream->private_data);
    stream->release = nullptr;
}

}  // namespace

void export_schema(const Frame& frame, ArrowSchema* out) {
    auto owned = std::make_unique<Owned<ArrowSchema>>();
    for (const FrameColumn& column : frame.columns()) {
        owned->children.push_back(std::make_unique<ArrowSchema>());
        export_field(column, owned->children.back().get());
    }
    owned->pointers.reserve(owned->children.size());
    *out = {};
    out->format = "+s";
    out->name = "";
    adopt(std::move(owned), out);
}

void export_stream(std::shared_ptr<const Frame> frame, ArrowArrayStream* out) {
    *out = {};
    out->private_data = new StreamState(std::move(frame));
    out->get_schema = &stream_schema;
    out->get_next = &stream_next;
    out->get_last_error = &stream_error;
    out->release = &stream_release;
}

}  // namespace fastlog::reader
