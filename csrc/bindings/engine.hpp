// What one process records through, and the page that its calls touch.
#pragma once

#include <Python.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "bindings/key_set_cache.hpp"
#include "core/hot_page.hpp"
#include "core/recorder.hpp"

namespace fastlog::bindings {

struct Engine;

/// What the calls of one engine touch.
struct Page : HotPage {
    Engine* engine = nullptr;
    NearNames names;
    // The first engine's page has its handle, too, and is there as long as that is.
    static constexpr std::size_t kHandleBytes = 512;
    alignas(kCacheLine) std::byte handle[kHandleBytes];
    std::shared_ptr<Page> self;

    /// The page that a handle lies on.
    static Page& around(void* handle) noexcept {
        const auto bits = reinterpret_cast<std::uintptr_t>(handle);
        return *reinterpret_cast<Page*>(bits & ~(std::uintptr_t{kPage} - 1));
    }

    /// See KeySetCache.
    bool resolve(PyObject* tuple, KeySet& out) noexcept;
    bool name_id(PyObject* name, std::uint32_t& out) noexcept;
};
static_assert(sizeof(Page) == kPage);

/// What one process records through: a recorder, and the cache of ids from its key table. They form one
/// object so that an id is never used with another recorder's table.
struct Engine {
    Engine(RecorderOptions options, std::shared_ptr<Page> own)
        : page(std::move(own)), key_sets(page->names), core(std::move(options), page) {
        page->engine = this;
    }
    /// True in a child of the process that opened it: only the attention bits and the options may be used.
    bool inherited() const noexcept { return page->inherited(); }

    const std::shared_ptr<Page> page;
    KeySetCache key_sets;
    std::atomic<std::uint64_t> left_out{0};  // values that log() has left out
    Recorder core;                           // last: its thread starts here
};

inline bool Page::resolve(PyObject* tuple, KeySet& out) noexcept {
    return names.find(tuple, out) || engine->key_sets.resolve(engine->core.keys(), tuple, out);
}
inline bool Page::name_id(PyObject* name, std::uint32_t& out) noexcept {
    KeySet set;
    if (!names.find(name, set)) [[unlikely]]
        return engine->key_sets.name_id(engine->core.keys(), name, out);
    out = set.id;
    return true;
}

}  // namespace fastlog::bindings
