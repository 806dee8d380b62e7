// Maps the names of one call to the id of their key set, in a few nanoseconds.
//
// CPython passes a call site's keyword names as the same tuple at every call, so the tuple's address
// identifies the key set. `record(step, **metrics)` and record_dict() pass the same key objects in new
// containers: a second table is indexed by the addresses of the keys. A third one is for single names, by their
// address. All hold references, so an address cannot be reused for something else, and keep what a call needs
// in the slot itself: with cold caches each line counts. If none knows the names, the KeyTable is searched by
// content. A names tuple made for one call looks like any other, so every key set may add only a few tuples
// to the first table. Keys that are new objects at every call (f-strings) would fill the second table with
// entries that are never used again, so the total size of all is bounded in bytes.
//
// Ownership: with the GIL, the thread that holds it. On free-threaded builds each slot has a lock, held for the
// few nanoseconds that it takes to compare and copy, so what is replaced is freed at once.
#pragma once

#include <Python.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <string_view>
#include <vector>

#include "core/key_table.hpp"

namespace fastlog::bindings {

/// What a call needs to know about its keys; copied out of the cache. Without defaults: a call would read them
/// from memory, to write what was found over them.
struct KeySet {
    std::uint32_t id;    // KeyTable::kNone: write the keys into the record
    std::int32_t epoch;  // index of "epoch", or -1
    std::int32_t step;   // index of "step", or -1: never part of the set itself

    static constexpr KeySet none() noexcept { return {KeyTable::kNone, -1, -1}; }
};

/// The place of an address in a table of 2**`kBits`: the top bits of a multiplicative hash.
template <int kBits>
std::size_t place_of(const void* address) noexcept {
    const auto bits = reinterpret_cast<std::uintptr_t>(address);
    return static_cast<std::size_t>((bits * 0x9E3779B97F4A7C15ULL) >> (64 - kBits));
}

/// The ids of names tuples and of single names by their address, where every call looks: copies of what the
/// cache holds, and keeps alive. Without a GIL it stays empty.
class NearNames {
  public:
    bool find(const PyObject* names, KeySet& out) const noexcept {
        const Known& known = known_[place_of<kBits>(names)];
        if (known.names != names) [[unlikely]]
            return false;
        out = known.set;
        return true;
    }
    void note([[maybe_unused]] const PyObject* names, [[maybe_unused]] const KeySet& set) noexcept {
#ifndef Py_GIL_DISABLED
        known_[place_of<kBits>(names)] = {names, set};
#endif
    }
    void forget(const PyObject* names) noexcept {
        Known& known = known_[place_of<kBits>(names)];
        if (known.names == names) known.names = nullptr;
    }

  private:
    static constexpr int kBits = 6;
    struct Known {
        const PyObject* names = nullptr;
        KeySet set = KeySet::none();
    };

    Known known_[std::size_t{1} << kBits];
};

class KeySetCache {
  public:
    explicit KeySetCache(NearNames& near) noexcept : near_(near) {}
    ~KeySetCache();
    KeySetCache(const KeySetCache&) = delete;
    KeySetCache& operator=(const KeySetCache&) = delete;

    /// The key set of a call site's names tuple. False with a Python error set.
    bool resolve(KeyTable& table, PyObject* names, KeySet& out) noexcept {
        if (look_up(by_names_, names, out)) [[likely]]
            return true;
        return resolve_keys(table, names, &PyTuple_GET_ITEM(names, 0), PyTuple_GET_SIZE(names),
                            out);
    }

    /// The same for keys in an array; `names` is the tuple they come from, or null. `joined`: some keys were
    /// joined from nested dicts, so two of them may have become equal.
    bool resolve_keys(KeyTable& table, PyObject* names, PyObject* const* keys, Py_ssize_t count,
                      KeySet& out, bool joined = false) noexcept;

    /// The id of a single name (a timer's), cached by its address.
    bool name_id(KeyTable& table, PyObject* name, std::uint32_t& out) noexcept {
        KeySet set;
        if (look_up(by_name_, name, set)) [[likely]] {
            out = set.id;
            return true;
        }
        return find_name(table, name, out);
    }

    /// Forgets everything.
    void clear() noexcept;

  private:
    static constexpr int kSlotBits = 9;
    static constexpr std::size_t kSlots = std::size_t{1} << kSlotBits;
    static constexpr std::size_t kMaxHeldBytes = std::size_t{8} << 20;
    static constexpr int kNamesPerSet = 8;

    struct Entry {
        PyObject* names = nullptr;  // owned: a tuple of keys, or a name
        KeySet set = KeySet::none();
        std::uint32_t bytes = 0;  // approximate size of the keys
        std::int32_t names_left = kNamesPerSet;
    };
    struct Slot {
        Entry entry;
#ifdef Py_GIL_DISABLED
        PyMutex mutex{};
#endif
    };
    /// With a GIL, does nothing.
    class SlotLock {
      public:
#ifdef Py_GIL_DISABLED
        explicit SlotLock(Slot& slot) noexcept : mutex_(slot.mutex) { PyMutex_Lock(&mutex_); }
        ~SlotLock() { PyMutex_Unlock(&mutex_); }

      private:
        PyMutex& mutex_;
#else
        explicit SlotLock(Slot&) noexcept {}
        ~SlotLock() {}
#endif
        SlotLock(const SlotLock&) = delete;
        SlotLock& operator=(const SlotLock&) = delete;
    };
    using Table = std::array<Slot, kSlots>;

    static std::size_t slot_of(const void* address) noexcept {
        return place_of<kSlotBits>(address);
    }
    bool look_up(Table& table, PyObject* names, KeySet& out) noexcept {
        Slot& slot = table[slot_of(names)];
        const SlotLock lock(slot);
        if (slot.entry.names != names) return false;
        out = slot.entry.set;
        near_.note(names, out);
        return true;
    }
    static std::size_t slot_of_keys(PyObject* const* keys, Py_ssize_t count) noexcept;
    /// Whether these keys are known. `keep_tuple`: the `tuple` that they came in is not, and should be added.
    bool find_keys(std::size_t slot, PyObject* const* keys, Py_ssize_t count, bool tuple,
                   KeySet& out, bool& keep_tuple) noexcept;
    bool intern(KeyTable& table, PyObject* const* keys, Py_ssize_t count, bool joined,
                KeySet& out) noexcept;
    bool find_name(KeyTable& table, PyObject* name, std::uint32_t& out) noexcept;
    /// Puts an entry into a slot and drops the one that was there.
    void replace(Slot& slot, const Entry& entry) noexcept;
    void put(Table& table, std::size_t slot, PyObject* names, const KeySet& set) noexcept;

    NearNames& near_;
    Table by_names_{};
    Table by_keys_{};
    Table by_name_{};
    std::atomic<std::size_t> held_bytes_{0};
};

/// The UTF-8 text of a str; lone surrogates become the text "\udcXX" (Python's backslashreplace).
/// `storage` keeps the bytes alive when they are not the str's own. False with an error set.
bool utf8_of(PyObject* text, std::string_view& out, std::vector<PyObject*>& storage) noexcept;

}  // namespace fastlog::bindings
