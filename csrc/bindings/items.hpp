// The items of a mapping passed to record_dict() or log().
#pragma once

#include <Python.h>

#include <algorithm>
#include <new>
#include <vector>

#include "bindings/gil.hpp"
#include "bindings/py_encode.hpp"
#include "core/record.hpp"

namespace fastlog::bindings {

/// A dict's item, owned; null without an error if there is none.
inline PyObject* dict_item(PyObject* dict, PyObject* key) noexcept {
#if PY_VERSION_HEX >= 0x030D0000
    PyObject* found = nullptr;
    PyDict_GetItemRef(dict, key, &found);
    return found;
#else
    return Py_XNewRef(PyDict_GetItemWithError(dict, key));
#endif
}

/// The items of a mapping, owned: reading values may run code that changes the mapping.
class Items {
  public:
    Items() = default;
    ~Items() {
        python_call([this] {
            for (Py_ssize_t i = 0; i < count_; ++i) {
                Py_DECREF(keys_[i]);
                Py_DECREF(values_[i]);
            }
        });
    }
    Items(const Items&) = delete;
    Items& operator=(const Items&) = delete;

    /// Reads all items; false with an error set. If `flatten`, nested dicts become "outer.inner", and names
    /// that are not text become it; no more items are read than a record can hold. `value`, if given, is an
    /// item `name`, in the place of the mapping's own.
    bool take(PyObject* mapping, bool flatten, PyObject* name = nullptr,
              PyObject* value = nullptr) noexcept {
        return python_call([&] { return take_mapping(mapping, flatten, name, value); });
    }

    PyObject* const* keys() const noexcept { return keys_; }
    PyObject* const* values() const noexcept { return values_; }
    Py_ssize_t count() const noexcept { return count_; }
    /// Whether some names were joined from the keys of nested dicts, or made text.
    bool joined() const noexcept { return joined_; }
    /// How many items were not read.
    std::size_t unread() const noexcept { return unread_; }
    /// Of items with the same name keeps the last one; returns how many were dropped, -1 with an error set.
    Py_ssize_t drop_repeated() noexcept {
        return python_call([&] { return drop_all_but_last(); });
    }

  private:
    static constexpr Py_ssize_t kInline = 32;
    static constexpr int kMaxNesting = 32;

    bool take_mapping(PyObject* mapping, bool flatten, PyObject* name, PyObject* value) {
        if (PyDict_Check(mapping)) {
            const int has = value == nullptr ? 0 : PyDict_Contains(mapping, name);
            if (has <= 0) {
                return has == 0 && take_dict(mapping, flatten, nullptr) &&
                       (value == nullptr || add(name, value));
            }
        } else if (!PyMapping_Check(mapping) || PyUnicode_Check(mapping) ||
                   !PyObject_HasAttrString(mapping, "keys")) {
            PyErr_Format(PyExc_TypeError, "metrics must be a mapping of names to values, got %s",
                         Py_TYPE(mapping)->tp_name);
            return false;
        }
        PyObject* dict = PyDict_New();
        const bool ok = dict != nullptr && PyDict_Update(dict, mapping) == 0 &&
                        (value == nullptr || PyDict_SetItem(dict, name, value) == 0) &&
                        take_dict(dict, flatten, nullptr);
        Py_XDECREF(dict);
        return ok;
    }

    bool grow() noexcept {
        try {
            const auto capacity = static_cast<std::size_t>(2 * capacity_);
            heap_keys_.resize(capacity);
            heap_values_.resize(capacity);
        } catch (const std::bad_alloc&) {
            PyErr_NoMemory();
            return false;
        }
        if (keys_ == inline_keys_) {
            std::copy(inline_keys_, inline_keys_ + count_, heap_keys_.data());
            std::copy(inline_values_, inline_values_ + count_, heap_values_.data());
        }
        keys_ = heap_keys_.data();
        values_ = heap_values_.data();
        capacity_ *= 2;
        return true;
    }

    // Takes ownership of both.
    [[gnu::always_inline]] bool push(PyObject* key, PyObject* value) noexcept {
        if (count_ == capacity_ && !grow()) {
            Py_DECREF(key);
            Py_DECREF(value);
            return false;
        }
        keys_[count_] = key;
        values_[count_] = value;
        ++count_;
        return true;
    }

    bool add(PyObject* key, PyObject* value) noexcept {
        if (count_ == static_cast<Py_ssize_t>(kMaxMetrics)) {
            ++unread_;
            return true;
        }
        return push(Py_NewRef(key), Py_NewRef(value));
    }

    // The name of an item, owned; null with an error set.
    PyObject* name_of(PyObject* key, bool flatten, PyObject* prefix) {
        if (PyUnicode_Check(key) || !flatten) {
            return prefix == nullptr ? Py_NewRef(key) : PyUnicode_FromFormat("%U.%U", prefix, key);
        }
        joined_ = true;
        PyObject* text = text_of(key);
        if (text == nullptr || prefix == nullptr) return text;
        PyObject* name = PyUnicode_FromFormat("%U.%U", prefix, text);
        Py_DECREF(text);
        return name;
    }

    // Whether a dict is inside itself, or too deep: then it is a value like any other.
    bool is_value(PyObject* dict) const noexcept {
        return nesting_ == kMaxNesting ||
               std::find(above_, above_ + nesting_, dict) != above_ + nesting_;
    }

    Py_ssize_t drop_all_but_last() {
        PyObject* last = PyDict_New();
        bool ok = last != nullptr;
        for (Py_ssize_t i = 0; i < count_ && ok; ++i) {
            PyObject* place = PyLong_FromSsize_t(i);
            ok = place != nullptr && PyDict_SetItem(last, keys_[i], place) == 0;
            Py_XDECREF(place);
        }
        Py_ssize_t kept = 0;
        const Py_ssize_t before = count_;
        for (Py_ssize_t i = 0; i < before && ok; ++i) {
            PyObject* place = PyDict_GetItemWithError(last, keys_[i]);
            const bool keep = place != nullptr && PyLong_AsSsize_t(place) == i;
            std::swap(keys_[kept], keys_[i]);
            std::swap(values_[kept], values_[i]);
            if (keep) ++kept;
        }
        Py_XDECREF(last);
        if (!ok) return -1;
        for (Py_ssize_t i = kept; i < before; ++i) {
            Py_DECREF(keys_[i]);
            Py_DECREF(values_[i]);
        }
        count_ = kept;
        return before - kept;
    }

    [[gnu::hot]] bool take_dict(PyObject* dict, bool flatten, PyObject* prefix) {
        bool ok = true;
#ifdef Py_GIL_DISABLED
        Py_BEGIN_CRITICAL_SECTION(dict);
#endif
        Py_ssize_t at = 0;
        PyObject* key;
        PyObject* value;
        while (ok && PyDict_Next(dict, &at, &key, &value)) {
            if (flatten && count_ == static_cast<Py_ssize_t>(kMaxMetrics)) {
                ++unread_;
                continue;
            }
            Py_INCREF(value);  // other code may run, or, without a GIL, others change its owner
            PyObject* name = name_of(key, flatten, prefix);
            if (name == nullptr) {
                ok = false;
                Py_DECREF(value);
            } else if (flatten && PyDict_Check(value) && !is_value(value)) {
                ok = take_nested(value, name);
                Py_DECREF(value);
                Py_DECREF(name);
            } else {
                ok = push(name, value);
            }
        }
#ifdef Py_GIL_DISABLED
        Py_END_CRITICAL_SECTION();
#endif
        return ok;
    }

    bool take_nested(PyObject* dict, PyObject* name) {
        above_[nesting_++] = dict;
        joined_ = true;
        const bool ok = take_dict(dict, true, name);
        --nesting_;
        return ok;
    }

    PyObject* inline_keys_[kInline];
    PyObject* inline_values_[kInline];
    std::vector<PyObject*> heap_keys_;
    std::vector<PyObject*> heap_values_;
    PyObject** keys_ = inline_keys_;
    PyObject** values_ = inline_values_;
    Py_ssize_t capacity_ = kInline;
    Py_ssize_t count_ = 0;
    PyObject* above_[kMaxNesting];  // borrowed: the dicts that are being read
    int nesting_ = 0;
    bool joined_ = false;
    std::size_t unread_ = 0;
};

}  // namespace fastlog::bindings
