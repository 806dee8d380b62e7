// The items of a mapping passed to record_dict() or log().
#pragma once

#include <Python.h>

#include <algorithm>
#include <new>
#include <vector>

#include "bindings/gil.hpp"

namespace fastlog::bindings {

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

    /// Reads all items; false with an error set. Nested dicts become "outer.inner" if `flatten`.
    bool take(PyObject* mapping, bool flatten) noexcept {
        return python_call([&] { return take_mapping(mapping, flatten); });
    }

    PyObject* const* keys() const noexcept { return keys_; }
    PyObject* const* values() const noexcept { return values_; }
    Py_ssize_t count() const noexcept { return count_; }
    /// Whether some names were joined from the keys of nested dicts.
    bool joined() const noexcept { return joined_; }

  private:
    static constexpr Py_ssize_t kInline = 32;
    static constexpr int kMaxNesting = 32;

    bool take_mapping(PyObject* mapping, bool flatten) {
        if (PyDict_Check(mapping)) return take_dict(mapping, flatten, nullptr);
        if (!PyMapping_Check(mapping) || PyUnicode_Check(mapping) ||
            !PyObject_HasAttrString(mapping, "keys")) {
            PyErr_Format(PyExc_TypeError, "metrics must be a mapping of names to values, got %s",
                         Py_TYPE(mapping)->tp_name);
            return false;
        }
        PyObject* dict = PyDict_New();
        const bool ok = dict != nullptr && PyDict_Update(dict, mapping) == 0 &&
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
    bool push(PyObject* key, PyObject* value) noexcept {
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

    bool take_dict(PyObject* dict, bool flatten, PyObject* prefix) {
        bool ok = true;
#ifdef Py_GIL_DISABLED
        Py_BEGIN_CRITICAL_SECTION(dict);
#endif
        Py_ssize_t at = 0;
        PyObject* key;
        PyObject* value;
        while (ok && PyDict_Next(dict, &at, &key, &value)) {
            PyObject* name;
            if (prefix == nullptr) {
                name = Py_NewRef(key);
            } else if (PyUnicode_Check(key)) {
                name = PyUnicode_FromFormat("%U.%U", prefix, key);
            } else {
                PyErr_Format(PyExc_TypeError, "metric names must be str, got %R", key);
                name = nullptr;
            }
            if (name == nullptr) {
                ok = false;
            } else if (flatten && PyDict_Check(value)) {
                Py_INCREF(value);  // without a GIL, its lock lets others change its owner
                ok = take_nested(value, name);
                Py_DECREF(value);
                Py_DECREF(name);
            } else {
                ok = push(name, Py_NewRef(value));
            }
        }
#ifdef Py_GIL_DISABLED
        Py_END_CRITICAL_SECTION();
#endif
        return ok;
    }

    bool take_nested(PyObject* dict, PyObject* name) {
        if (!PyUnicode_Check(name)) {
            PyErr_Format(PyExc_TypeError, "metric names must be str, got %R", name);
            return false;
        }
        if (++nesting_ > kMaxNesting) {
            PyErr_SetString(PyExc_ValueError, "metrics are nested more than 32 dicts deep");
            return false;
        }
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
    int nesting_ = 0;
    bool joined_ = false;
};

}  // namespace fastlog::bindings
