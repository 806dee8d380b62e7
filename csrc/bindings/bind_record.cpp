// The hot calls: record(), record_dict(), log() and the fragment behind event(), as raw METH_FASTCALL
// methods. pybind11's own dispatch would cost several times the whole call.
#include <Python.h>

#include <array>
#include <string_view>
#include <vector>

#include "bindings/bindings.hpp"
#include "bindings/device_send.hpp"
#include "bindings/gil.hpp"
#include "bindings/handle.hpp"
#include "bindings/py_encode.hpp"
#include "bindings/submit.hpp"
#include "core/line_renderer.hpp"

namespace fastlog::bindings {
namespace {

PyObject* answer(int submitted) noexcept {
    if (submitted < 0) return nullptr;
    return Py_NewRef(submitted != 0 ? Py_True : Py_False);
}

// The keys' text did not fit the key table: the record carries its line's members itself.
int submit_with_keys(RecorderHandle& handle, std::uint64_t ticks, const PayloadBuilder& payload,
                     PyObject* const* keys, Py_ssize_t count) noexcept {
    std::vector<PyObject*> storage;
    int result = -1;
    try {
        std::vector<std::string_view> texts(static_cast<std::size_t>(count));
        bool ok = true;
        for (Py_ssize_t i = 0; i < count && ok; ++i) {
            ok = utf8_of(keys[i], texts[static_cast<std::size_t>(i)], storage);
        }
        if (ok) {
            const std::string text = render_metrics_fragment(payload.data(), texts);
            result = submit_counted(handle, CallKind::record, RecordKind::fragment, Stream::metrics,
                                    ticks, text.data(), text.size());
        }
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
    }
    for (PyObject* bytes : storage) Py_DECREF(bytes);
    return result;
}

bool all_floats(PyObject* const* values, std::size_t count) noexcept {
    for (std::size_t i = 0; i < count; ++i) {
        if (!PyFloat_CheckExact(values[i])) return false;
    }
    return true;
}

// The usual record: nothing can fail any more, so the values go straight from their objects into
// the ring. (Through a buffer, the copy would wait for the narrow stores into it.)
int submit_floats(RecorderHandle& handle, std::uint64_t ticks, std::int64_t step, std::uint32_t id,
                  PyObject* const* values, std::size_t count) noexcept {
    return submit_counted(
        handle, CallKind::record, RecordKind::metrics, Stream::metrics, ticks,
        metrics_strings_offset(count), [&](std::byte* at) {
            const MetricsPayload head{step, id, static_cast<std::uint16_t>(count), 0};
            std::memcpy(at, &head, sizeof head);
            static_assert(static_cast<unsigned>(ValueTag::real) == 3);
            constexpr std::uint64_t kEightReals = 0x0303030303030303;
            for (std::byte* tags = at + sizeof head; tags < at + metrics_values_offset(count);
                 tags += sizeof kEightReals) {
                std::memcpy(tags, &kEightReals, sizeof kEightReals);
            }
            std::byte* slot = at + metrics_values_offset(count);
            for (std::size_t i = 0; i < count; ++i, slot += sizeof(double)) {
                const double real = PyFloat_AS_DOUBLE(values[i]);
                std::memcpy(slot, &real, sizeof real);
            }
        });
}

bool check_epoch(ValueTag tag, PyObject* value) noexcept {
    if (tag == ValueTag::integer || tag == ValueTag::real || tag == ValueTag::null) return true;
    PyErr_Format(PyExc_TypeError, "epoch must be an int, a float or None, got %s",
                 Py_TYPE(value)->tp_name);
    return false;
}

// Values of any type.
int record_any(RecorderHandle& handle, std::uint64_t ticks, std::int64_t step, const KeySet& set,
               PyObject* const* keys, PyObject* const* values, Py_ssize_t count) noexcept {
    if (count > static_cast<Py_ssize_t>(kMaxMetrics)) {
        PyErr_Format(PyExc_ValueError, "%zd metrics in one record; at most %zu are possible", count,
                     kMaxMetrics);
        return -1;
    }
    PayloadBuilder payload;
    if (!payload.begin(step, static_cast<std::size_t>(count))) return -1;
    for (Py_ssize_t i = 0; i < count; ++i) {
        if (!encode_value(payload, static_cast<std::size_t>(i), keys[i], values[i])) return -1;
    }
    if (set.epoch >= 0 &&
        !check_epoch(payload.tag(static_cast<std::size_t>(set.epoch)), values[set.epoch])) {
        return -1;
    }
    handle.saw_step(step);
    if (set.id == KeyTable::kNone) {
        for (const DeviceArgument& argument : payload.device_arguments()) {
            payload.set(argument.index, ValueTag::missing,
                        missing_bits(MissingReason::no_key_space));
        }
        return submit_with_keys(handle, ticks, payload, keys, count);
    }
    payload.set_key_set(set.id);
    TicketChain chain;
    if (!payload.device_arguments().empty() && !send_device_values(handle, payload, chain)) {
        return -1;
    }
    const int accepted =
        submit_counted(handle, CallKind::record, RecordKind::metrics, Stream::metrics, ticks,
                       payload.data(), payload.size(), chain.flags());
    if (accepted != 1 && chain.first != kNoTicket) abandon_device_values(handle, payload, chain);
    return accepted;
}

// Everything behind the parsing: `keys` and `values` hold `count` objects each.
inline int record_values(RecorderHandle& handle, std::uint64_t ticks, std::int64_t step,
                         const KeySet& set, PyObject* const* keys, PyObject* const* values,
                         Py_ssize_t count) noexcept {
    constexpr Py_ssize_t kUsual = 64;
    const auto n = static_cast<std::size_t>(count);
    if (count <= kUsual && set.id != KeyTable::kNone && all_floats(values, n)) [[likely]] {
        handle.saw_step(step);
        return submit_floats(handle, ticks, step, set.id, values, n);
    }
    return record_any(handle, ticks, step, set, keys, values, count);
}

// record(step=5, loss=...): the step is among the keywords.
PyObject* record_step_keyword(RecorderHandle& handle, std::uint64_t ticks, PyObject* const* values,
                              PyObject* names, std::int32_t step_at) noexcept {
    std::int64_t step = 0;
    if (!read_step(values[step_at], step)) return nullptr;
    const Py_ssize_t count = PyTuple_GET_SIZE(names);
    try {
        std::vector<PyObject*> keys;
        std::vector<PyObject*> rest;
        for (Py_ssize_t i = 0; i < count; ++i) {
            if (i == step_at) continue;
            keys.push_back(PyTuple_GET_ITEM(names, i));
            rest.push_back(values[i]);
        }
        KeySet set;
        if (!handle.key_sets().resolve_keys(handle.core().keys(), nullptr, keys.data(), count - 1,
                                            set)) {
            return nullptr;
        }
        return answer(record_values(handle, ticks, step, set, keys.data(), rest.data(), count - 1));
    } catch (const std::bad_alloc&) {
        return PyErr_NoMemory();
    }
}

PyObject* record(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* names) {
    const std::uint64_t ticks = now_ticks();
    RecorderHandle* handle = RecorderHandle::from(self);
    if (handle == nullptr) return nullptr;
    if (handle->core().gate().bits() != 0 && !handle->attend(true)) [[unlikely]]
        return nullptr;

    KeySet set;
    Py_ssize_t count = 0;
    PyObject* const* keys = nullptr;
    if (names != nullptr) [[likely]] {
        if (!handle->key_sets().resolve(handle->core().keys(), names, set)) return nullptr;
        count = PyTuple_GET_SIZE(names);
        keys = &PyTuple_GET_ITEM(names, 0);
    } else if (!handle->key_sets().resolve_keys(handle->core().keys(), nullptr, nullptr, 0, set)) {
        return nullptr;
    }
    if (nargs != 1) [[unlikely]] {
        if (nargs == 0 && set.step >= 0) {
            return record_step_keyword(*handle, ticks, args, names, set.step);
        }
        PyErr_Format(PyExc_TypeError,
                     "record() takes the step as its only positional argument (got %zd) and the "
                     "metrics as keywords: record(step, loss=..., lr=...)",
                     nargs);
        return nullptr;
    }
    if (set.step >= 0) [[unlikely]] {
        PyErr_SetString(PyExc_TypeError, "record() got multiple values for argument 'step'");
        return nullptr;
    }
    std::int64_t step = 0;
    if (!read_step(args[0], step)) [[unlikely]]
        return nullptr;
    return answer(record_values(*handle, ticks, step, set, keys, args + 1, count));
}

// The items of a mapping, owned: values may run code that changes the mapping.
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

    /// Takes all items; false with an error set. Nested dicts become "outer.inner" if `flatten`.
    bool take(PyObject* mapping, bool flatten) noexcept {
        return python_call([&] { return take_mapping(mapping, flatten); });
    }

    PyObject* const* keys() const noexcept { return keys_; }
    PyObject* const* values() const noexcept { return values_; }
    Py_ssize_t count() const noexcept { return count_; }
    /// Whether some names were put together from the keys of nested dicts.
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
            heap_keys_.assign(keys_, keys_ + count_);
            heap_values_.assign(values_, values_ + count_);
            heap_keys_.resize(static_cast<std::size_t>(2 * capacity_));
            heap_values_.resize(static_cast<std::size_t>(2 * capacity_));
        } catch (const std::bad_alloc&) {
            PyErr_NoMemory();
            return false;
        }
        keys_ = heap_keys_.data();
        values_ = heap_values_.data();
        capacity_ *= 2;
        return true;
    }

    // Owns both from here on.
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
                ok = take_nested(value, name);
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

PyObject* record_mapping(RecorderHandle& handle, std::uint64_t ticks, std::int64_t step,
                         PyObject* mapping, bool flatten) noexcept {
    Items items;
    if (!items.take(mapping, flatten)) return nullptr;
    KeySet set;
    if (!handle.key_sets().resolve_keys(handle.core().keys(), nullptr, items.keys(), items.count(),
                                        set, items.joined())) {
        return nullptr;
    }
    return answer(
        record_values(handle, ticks, step, set, items.keys(), items.values(), items.count()));
}

// Two arguments by position or by name; `second` may be absent when `required` is 1.
bool parse_two(const char* function, const char* first_name, const char* second_name,
               Py_ssize_t required, PyObject* const* args, Py_ssize_t nargs, PyObject* names,
               PyObject*& first, PyObject*& second) noexcept {
    first = nargs > 0 ? args[0] : nullptr;
    second = nargs > 1 ? args[1] : nullptr;
    const Py_ssize_t keywords = names != nullptr ? PyTuple_GET_SIZE(names) : 0;
    bool known = nargs <= 2;
    for (Py_ssize_t i = 0; i < keywords && known; ++i) {
        PyObject* name = PyTuple_GET_ITEM(names, i);
        PyObject*& place = PyUnicode_CompareWithASCIIString(name, first_name) == 0 ? first : second;
        known = place == nullptr &&
                (&place == &first || PyUnicode_CompareWithASCIIString(name, second_name) == 0);
        if (known) place = args[nargs + i];
    }
    if (known && first != nullptr && (second != nullptr || required == 1)) return true;
    PyErr_Format(PyExc_TypeError, "%s() takes the arguments (%s, %s)%s", function, first_name,
                 second_name, required == 1 ? "; the second may be left out" : "");
    return false;
}

PyObject* record_dict(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* names) {
    const std::uint64_t ticks = now_ticks();
    RecorderHandle* handle = RecorderHandle::from(self);
    if (handle == nullptr) return nullptr;
    if (handle->core().gate().bits() != 0 && !handle->attend(true)) [[unlikely]]
        return nullptr;
    PyObject* step_object;
    PyObject* mapping;
    std::int64_t step = 0;
    if (!parse_two("record_dict", "step", "metrics", 2, args, nargs, names, step_object, mapping) ||
        !read_step(step_object, step)) {
        return nullptr;
    }
    return record_mapping(*handle, ticks, step, mapping, false);
}

PyObject* log(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* names) {
    const std::uint64_t ticks = now_ticks();
    RecorderHandle* handle = RecorderHandle::from(self);
    if (handle == nullptr) return nullptr;
    if (handle->core().gate().bits() != 0 && !handle->attend(true)) [[unlikely]]
        return nullptr;
    PyObject* mapping;
    PyObject* step_object;
    if (!parse_two("log", "metrics", "step", 1, args, nargs, names, mapping, step_object)) {
        return nullptr;
    }
    std::int64_t step = 0;
    if (step_object == nullptr || step_object == Py_None) {
        step = handle->next_step();
    } else if (!read_step(step_object, step)) {
        return nullptr;
    }
    return record_mapping(*handle, ticks, step, mapping, true);
}

// _fragment(stream: int, members: bytes) -> bool
PyObject* fragment(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject*) {
    const std::uint64_t ticks = now_ticks();
    RecorderHandle* handle = RecorderHandle::from(self);
    if (handle == nullptr) return nullptr;
    if (handle->core().gate().bits() != 0 && !handle->attend(true)) [[unlikely]]
        return nullptr;
    const long stream = nargs == 2 ? PyLong_AsLong(args[0]) : -1;
    if (nargs != 2 || stream < 0 || stream >= static_cast<long>(kStreamCount) ||
        !PyBytes_Check(args[1])) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError, "_fragment() takes a stream number and bytes");
        }
        return nullptr;
    }
    return answer(submit_counted(*handle, CallKind::event, RecordKind::fragment,
                                 static_cast<Stream>(stream), ticks, PyBytes_AS_STRING(args[1]),
                                 static_cast<std::size_t>(PyBytes_GET_SIZE(args[1]))));
}

PyMethodDef hot_methods[] = {
    {"record", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(record)),
     METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"record_dict", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(record_dict)),
     METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"log", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(log)),
     METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"_fragment", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(fragment)),
     METH_FASTCALL | METH_KEYWORDS, nullptr},
};

constexpr std::array<const char*, 4> kDocs = {
    R"(record($self, step, /, **values)
--

Record the metrics of one training step.

Args:
    step: The training step, an int (any object with __index__) within 64 bits.
    **values: Metrics by name: float, int (64 bits), bool, None, str, a numpy scalar, or an array or
        tensor of no dimension on the CPU. ``epoch`` becomes a field of its own beside ``step``.

Returns:
    True when the record was accepted, False when it was dropped (see ``back_pressure``).

Raises:
    TypeError: A value of a type that cannot be recorded; names key and type. Nothing is written.
    OverflowError: An int beyond 64 bits.
    RecorderClosedError: The recorder has been closed.)",
    R"(record_dict($self, step, metrics)
--

Record a mapping of metrics; the same as ``record(step, **metrics)`` for keys of any text.

Args:
    step: The training step.
    metrics: Mapping from names (str) to values, see ``record``.

Returns:
    True when the record was accepted, False when it was dropped.

Raises:
    TypeError: ``metrics`` is no mapping, or a name or value cannot be recorded.
    OverflowError: An int beyond 64 bits.
    RecorderClosedError: The recorder has been closed.)",
    R"(log($self, metrics, step=None)
--

Record a mapping of metrics in the shape that ``wandb.log`` takes.

Args:
    metrics: Mapping from names to values, see ``record``; nested dicts become ``outer.inner``.
    step: The training step; by default the last recorded one plus 1, or 0.

Returns:
    True when the record was accepted, False when it was dropped.

Raises:
    TypeError: ``metrics`` is no mapping, or a name or value cannot be recorded.
    ValueError: Two names become the same, as in ``{"a": {"b": 1}, "a.b": 2}``.
    OverflowError: An int beyond 64 bits.
    RecorderClosedError: The recorder has been closed.)",
    R"(_fragment($self, stream, members, /)
--

Append a line made of rendered JSON members to a stream (the engine of ``event``).)",
};

}  // namespace

void add_record_methods(PyObject* type) {
    for (std::size_t i = 0; i < kDocs.size(); ++i) {
        hot_methods[i].ml_doc = kDocs[i];
        PyObject* method =
            PyDescr_NewMethod(reinterpret_cast<PyTypeObject*>(type), &hot_methods[i]);
        if (method == nullptr ||
            PyObject_SetAttrString(type, hot_methods[i].ml_name, method) != 0) {
            throw pybind11::error_already_set();
        }
        Py_DECREF(method);
    }
}

}  // namespace fastlog::bindings
