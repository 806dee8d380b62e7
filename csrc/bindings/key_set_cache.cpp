#include "bindings/key_set_cache.hpp"

#include <algorithm>
#include <new>
#include <string>
#include <utility>

#include "bindings/gil.hpp"
#include "bindings/py_encode.hpp"

namespace fastlog::bindings {

static_assert(sizeof(std::uintptr_t) == 8, "place_of() takes the top of 64 bits");

namespace {

constexpr std::size_t kKeyBytes = 64;  // a str without its text, and the tuple's pointer to it

// A line must not repeat a key. False with an error set that names the repeated one.
bool all_differ(std::vector<std::string_view> texts) {
    std::sort(texts.begin(), texts.end());
    const auto again = std::adjacent_find(texts.begin(), texts.end());
    if (again == texts.end()) return true;
    PyErr_Format(PyExc_ValueError, "two metrics of one record would be written as '%s'",
                 std::string(again->substr(0, 200)).c_str());
    return false;
}

// The text of a name may run any code; a device tensor is not read for it.
void refuse_name(PyObject* name) {
    PyObject* text = text_of(name);
    if (text == nullptr) return;
    PyErr_Format(PyExc_TypeError, "metric names must be str, got %U of type %s", text,
                 Py_TYPE(name)->tp_name);
    Py_DECREF(text);
}

}  // namespace

bool utf8_of(PyObject* text, std::string_view& out, std::vector<PyObject*>& storage) noexcept {
    Py_ssize_t size = 0;
    const char* utf8 = PyUnicode_AsUTF8AndSize(text, &size);
    if (utf8 == nullptr) {
        if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) return false;
        PyErr_Clear();
        PyObject* bytes = PyUnicode_AsEncodedString(text, "utf-8", "backslashreplace");
        if (bytes == nullptr) return false;
        try {
            storage.push_back(bytes);
        } catch (const std::bad_alloc&) {
            Py_DECREF(bytes);
            PyErr_NoMemory();
            return false;
        }
        utf8 = PyBytes_AS_STRING(bytes);
        size = PyBytes_GET_SIZE(bytes);
    }
    out = {utf8, static_cast<std::size_t>(size)};
    return true;
}

KeySetCache::~KeySetCache() { clear(); }

void KeySetCache::clear() noexcept {
    for (Table* table : {&by_names_, &by_keys_, &by_name_}) {
        for (Slot& slot : *table) replace(slot, {});
    }
}

// Dropping the last reference to a key may run any code.
void KeySetCache::replace(Slot& slot, const Entry& entry) noexcept {
    Entry old;
    {
        const SlotLock lock(slot);
        old = std::exchange(slot.entry, entry);
    }
    held_bytes_.fetch_sub(old.bytes, std::memory_order_relaxed);
    if (old.names == nullptr) return;
    near_.forget(old.names);
    python_call([&] { Py_DECREF(old.names); });
}

std::size_t KeySetCache::slot_of_keys(PyObject* const* keys, Py_ssize_t count) noexcept {
    std::uint64_t hash = static_cast<std::uint64_t>(count);
    for (Py_ssize_t i = 0; i < count; ++i) {
        hash = (hash ^ reinterpret_cast<std::uintptr_t>(keys[i])) * 0x9E3779B97F4A7C15ULL;
        hash ^= hash >> 29;
    }
    return static_cast<std::size_t>(hash % kSlots);
}

[[gnu::hot]] bool KeySetCache::find_keys(std::size_t slot, PyObject* const* keys, Py_ssize_t count,
                                         bool tuple, KeySet& out, bool& keep_tuple) noexcept {
    const SlotLock lock(by_keys_[slot]);
    Entry& entry = by_keys_[slot].entry;
    if (entry.names == nullptr || PyTuple_GET_SIZE(entry.names) != count) return false;
    for (Py_ssize_t i = 0; i < count; ++i) {
        if (PyTuple_GET_ITEM(entry.names, i) != keys[i]) return false;
    }
    out = entry.set;
    keep_tuple = tuple && entry.names_left > 0;
    if (keep_tuple) --entry.names_left;
    return true;
}

[[gnu::hot]] bool KeySetCache::resolve_keys(KeyTable& table, PyObject* names, PyObject* const* keys,
                                            Py_ssize_t count, KeySet& out, bool joined) noexcept {
    const std::size_t slot = slot_of_keys(keys, count);
    bool keep_tuple = false;
    if (find_keys(slot, keys, count, names != nullptr, out, keep_tuple)) {
        if (keep_tuple) put(by_names_, slot_of(names), names, out);
        return true;
    }
    if (!intern(table, keys, count, joined, out)) return false;
    if (out.id == KeyTable::kNone) return true;
    PyObject* own = PyTuple_New(count);
    if (own == nullptr) {
        PyErr_Clear();  // not cached, but not an error
        return true;
    }
    for (Py_ssize_t i = 0; i < count; ++i) {
        Py_INCREF(keys[i]);
        PyTuple_SET_ITEM(own, i, keys[i]);
    }
    put(by_keys_, slot, own, out);
    Py_DECREF(own);
    return true;
}

// Steals no reference: takes its own to `names`, a tuple or a name. What alone is too large is not kept.
void KeySetCache::put(Table& table, std::size_t slot, PyObject* names, const KeySet& set) noexcept {
    PyObject* const* const keys = PyTuple_Check(names) ? &PyTuple_GET_ITEM(names, 0) : &names;
    const Py_ssize_t count = PyTuple_Check(names) ? PyTuple_GET_SIZE(names) : 1;
    std::size_t bytes = kKeyBytes;
    for (Py_ssize_t i = 0; i < count; ++i) {
        bytes += kKeyBytes + static_cast<std::size_t>(PyUnicode_GET_LENGTH(keys[i])) *
                                 static_cast<std::size_t>(PyUnicode_KIND(keys[i]));
    }
    if (bytes > kMaxHeldBytes) return;
    const bool fits = held_bytes_.load(std::memory_order_relaxed) + bytes <= kMaxHeldBytes;
    if (!fits) clear();  // entries in use are added again at their next call
    held_bytes_.fetch_add(bytes, std::memory_order_relaxed);
    replace(table[slot], {Py_NewRef(names), set, static_cast<std::uint32_t>(bytes)});
}

bool KeySetCache::intern(KeyTable& table, PyObject* const* keys, Py_ssize_t count, bool joined,
                         KeySet& out) noexcept {
    std::vector<PyObject*> storage;
    bool ok = true;
    out = KeySet::none();
    try {
        std::vector<std::string_view> texts;
        texts.reserve(static_cast<std::size_t>(count));
        for (Py_ssize_t i = 0; i < count && ok; ++i) {
            std::string_view text;
            if (!PyUnicode_Check(keys[i])) {
                python_call([&] { refuse_name(keys[i]); });
                ok = false;
            } else if ((ok = utf8_of(keys[i], text, storage))) {
                if (text == "step") out.step = static_cast<std::int32_t>(i);
                if (text == "epoch") out.epoch = static_cast<std::int32_t>(i);
                texts.push_back(text);
            }
        }
        // The str objects in a mapping differ, but "\udc80" is written as the text of its escape sequence.
        if (ok && (joined || !storage.empty())) ok = all_differ(texts);
        if (ok) out.id = table.intern(texts);
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
        ok = false;
    }
    for (PyObject* bytes : storage) Py_DECREF(bytes);
    return ok;
}

bool KeySetCache::find_name(KeyTable& table, PyObject* name, std::uint32_t& out) noexcept {
    KeySet set;
    if (!resolve_keys(table, nullptr, &name, 1, set)) return false;
    out = set.id;
    if (set.id != KeyTable::kNone) put(by_name_, slot_of(name), name, set);
    return true;
}

}  // namespace fastlog::bindings
