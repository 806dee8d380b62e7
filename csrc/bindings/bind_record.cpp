// The hot calls: record(), record_dict(), log() and the fragment call used by event(), as raw METH_FASTCALL
// methods. pybind11's own dispatch would cost several times as much as the whole call.
#include <Python.h>

#include <array>
#include <bit>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "bindings/bindings.hpp"
#include "bindings/device_send.hpp"
#include "bindings/gil.hpp"
#include "bindings/handle.hpp"
#include "bindings/items.hpp"
#include "bindings/py_encode.hpp"
#include "bindings/submit.hpp"
#include "core/line_renderer.hpp"

namespace fastlog::bindings {
namespace {

PyObject* answer(int submitted) noexcept {
    if (submitted < 0) return nullptr;
    return Py_NewRef(submitted != 0 ? Py_True : Py_False);
}

bool are_few_floats(PyObject* const* values, Py_ssize_t count) noexcept {
    constexpr Py_ssize_t kFew = 64;
    if (count > kFew) return false;
    for (Py_ssize_t i = 0; i < count; ++i) {
        if (!PyFloat_CheckExact(values[i])) return false;
    }
    return true;
}

// One record in progress: its arguments, the engine it goes to, and the id of its names in that engine.
struct Call {
    RecorderHandle& handle;
    std::uint64_t ticks;
    PyObject* names;  // the call site's tuple, or null
    PyObject* const* keys;
    Py_ssize_t count;
    bool has_step = false;  // otherwise it gets the next one
    std::int64_t step = 0;
    bool joined = false;      // some names were joined from the keys of nested dicts
    bool tolerant = false;    // an unsupported value becomes its text; long texts are truncated
    bool must_fit = false;    // a record too large for the ring is an error, and is not counted
    std::uint16_t flags = 0;  // of MetricsPayload: `step` is a summary's epoch
    Engine* engine = nullptr;
    KeySet set{};

    // Finds the engine and the id: an engine's ids are only in its own key table. 1: both are valid until
    // other code runs; otherwise as unready().
    int find_engine() noexcept {
        do {
            engine = handle.ready(true);
            if (engine == nullptr) [[unlikely]]
                return handle.unready(CallKind::record, Stream::metrics);
            KeySetCache& cache = engine->key_sets;
            KeyTable& table = engine->core.keys();
            const bool ok = names != nullptr
                                ? cache.resolve(table, names, set)
                                : cache.resolve_keys(table, nullptr, keys, count, set, joined);
            if (!ok) return -1;
        } while (engine->inherited());
        return 1;
    }
    // The same after other code has run, which may have forked.
    int settle() noexcept { return engine->inherited() ? find_engine_again() : 1; }
    [[gnu::noinline, gnu::cold]] int find_engine_again() noexcept { return find_engine(); }

    // Done last, so that a rejected call takes no step number.
    std::int64_t settle_step() noexcept {
        if (flags != 0) return step;
        if (!has_step) return handle.take_step();
        handle.saw_step(step);
        return step;
    }
};

// The usual record: nothing can fail any more, so the values are copied straight from their objects into the
// ring. (With a buffer in between, the copy would stall on the narrow stores into it.)
int submit_floats(Recorder& core, std::uint64_t ticks, std::int64_t step, std::uint32_t id,
                  PyObject* const* values, std::size_t count) noexcept {
    return submit_counted(
        core, CallKind::record, RecordKind::metrics, Stream::metrics, ticks,
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

// Replaces a value that cannot be recorded with its text, for log(). False when the error remains set.
[[gnu::noinline]] bool encode_as_text(Call& call, PayloadBuilder& payload, std::size_t i,
                                      PyObject* value) noexcept {
    if (!PyErr_ExceptionMatches(PyExc_Exception) || PyErr_ExceptionMatches(PyExc_MemoryError)) {
        return false;
    }
    PyErr_Clear();
    PyObject* text = python_call([&] { return text_of(value); });
    if (text == nullptr) return false;
    const bool ok = encode_value(payload, i, call.keys[i], text);
    Py_DECREF(text);
    if (ok) call.handle.tell_odd(call.keys[i]);
    return ok;
}

inline bool encode_all(Call& call, PayloadBuilder& payload, PyObject* const* values) noexcept {
    PyObject* const* keys = call.keys;
    const auto count = static_cast<std::size_t>(call.count);
    const std::int32_t epoch = call.flags == 0 ? call.set.epoch : -1;
    if (!payload.begin(count)) return false;
    payload.set_flags(call.flags);
    for (std::size_t i = 0; i < count; ++i) {
        if (encode_value(payload, i, keys[i], values[i])) continue;
        if (!call.tolerant || !encode_as_text(call, payload, i, values[i])) return false;
    }
    return epoch < 0 || check_epoch(payload.tag(static_cast<std::size_t>(epoch)), values[epoch]);
}

// The size of a payload whose line is guaranteed to have at most `most` bytes: a character takes up to six
// bytes, a key is written up to twice, a number takes less than 64.
std::size_t bytes_beside(const std::vector<std::string_view>& keys, std::size_t most) noexcept {
    std::size_t rest = 64 * keys.size() + 64;
    for (const std::string_view key : keys) rest += 12 * key.size();
    return metrics_strings_offset(keys.size()) + (most > rest ? (most - rest) / 6 : 0);
}

// Returns whether a record of that size is too large for the ring and this is an error, which is then set.
bool refuses(const Call& call, std::size_t bytes) noexcept {
    const std::size_t most = call.engine->core.max_payload();
    if (!call.must_fit || bytes <= most) return false;
    PyErr_Format(PyExc_ValueError, "a record of %zu bytes is too large; the ring takes at most %zu",
                 bytes, most);
    return true;
}

// The text of the keys did not fit into the key table: the record itself carries the members of its line.
[[gnu::noinline]] int submit_with_keys(Call& call, PayloadBuilder& payload) noexcept {
    for (const DeviceArgument& argument : payload.device_arguments()) {
        payload.set(argument.index, ValueTag::missing, missing_bits(MissingReason::no_key_space));
    }
    std::vector<PyObject*> storage;
    int result = -1;
    try {
        std::vector<std::string_view> texts(static_cast<std::size_t>(call.count));
        bool ok = true;
        for (std::size_t i = 0; i < texts.size() && ok; ++i) {
            ok = utf8_of(call.keys[i], texts[i], storage);
        }
        std::string text;
        if (ok) text = render_metrics_fragment(payload.data(), texts);
        const std::size_t most = call.engine->core.max_payload();
        if (ok && call.tolerant && text.size() > most) {
            ok = payload.shorten_texts(bytes_beside(texts, most));
            if (ok) text = render_metrics_fragment(payload.data(), texts);
        }
        if (ok && !refuses(call, text.size())) {
            result = submit_counted(call.engine->core, CallKind::record, RecordKind::fragment,
                                    Stream::metrics, call.ticks, text.data(), text.size());
            if (result == 1) {
                call.engine->core.count_missing_in_fragment(payload.device_arguments().size());
            }
        }
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
    }
    for (PyObject* bytes : storage) Py_DECREF(bytes);
    return result;
}

// Values of any type.
int record_any(Call& call, PyObject* const* values) noexcept {
    if (call.count > static_cast<Py_ssize_t>(kMaxMetrics)) {
        PyErr_Format(PyExc_ValueError, "%zd metrics in one record; at most %zu are allowed",
                     call.count, kMaxMetrics);
        return -1;
    }
    PayloadBuilder payload;
    if (!encode_all(call, payload, values)) return -1;
    TicketChain chain;
    do {  // once, unless sending forks
        chain = {};
        const int settled = call.settle();
        if (settled != 1) return settled;
        if (call.set.id == KeyTable::kNone) break;
        if (call.tolerant && !payload.shorten_texts(call.engine->core.max_payload())) return -1;
        if (refuses(call, payload.size())) return -1;
        payload.set_key_set(call.set.id);
        if (!payload.device_arguments().empty() &&
            !send_device_values(*call.engine, payload, chain)) {
            return -1;
        }
    } while (call.engine->inherited());
    payload.set_step(call.settle_step());
    if (call.set.id == KeyTable::kNone) return submit_with_keys(call, payload);
    const int accepted =
        submit_counted(call.engine->core, CallKind::record, RecordKind::metrics, Stream::metrics,
                       call.ticks, payload.data(), payload.size(), chain.flags());
    if (accepted != 1 && chain.first != kNoTicket) {
        abandon_device_values(*call.engine, payload, chain);
    }
    return accepted;
}

// record(step=5, loss=...): the step is one of the keywords.
PyObject* record_step_keyword(const Call& given, PyObject* const* values) noexcept {
    try {
        std::vector<PyObject*> keys;
        std::vector<PyObject*> rest;
        for (Py_ssize_t i = 0; i < given.count; ++i) {
            if (i == given.set.step) continue;
            keys.push_back(given.keys[i]);
            rest.push_back(values[i]);
        }
        Call call{given.handle, given.ticks, nullptr, keys.data(), given.count - 1, true};
        if (!read_step(values[given.set.step], call.step)) return nullptr;
        const int found = call.find_engine();
        return answer(found == 1 ? record_any(call, rest.data()) : found);
    } catch (const std::bad_alloc&) {
        return PyErr_NoMemory();
    }
}

// record() with its step among the keywords, without values, without an engine, or with wrong arguments.
[[gnu::noinline]] PyObject* record_rest(Call& call, PyObject* const* args,
                                        Py_ssize_t nargs) noexcept {
    const int found = call.find_engine();
    if (found != 1) return answer(found);
    if (nargs != 1) {
        if (nargs == 0 && call.set.step >= 0) return record_step_keyword(call, args);
        PyErr_Format(PyExc_TypeError,
                     "record() takes the step as its only positional argument (got %zd) and the "
                     "metrics as keywords: record(step, loss=..., lr=...)",
                     nargs);
        return nullptr;
    }
    if (call.set.step >= 0) {
        PyErr_SetString(PyExc_TypeError, "record() got multiple values for argument 'step'");
        return nullptr;
    }
    return answer(record_any(call, args + 1));
}

PyObject* record(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* names) {
    const std::uint64_t ticks = now_ticks();
    RecorderHandle* handle = RecorderHandle::from(self);
    if (handle == nullptr) return nullptr;
    std::int64_t step = 0;
    // Before the engine is determined: __index__ may run any code.
    if (nargs == 1 && !read_step(args[0], step)) [[unlikely]]
        return nullptr;
    PyObject* const* keys = names != nullptr ? &PyTuple_GET_ITEM(names, 0) : nullptr;
    const Py_ssize_t count = names != nullptr ? PyTuple_GET_SIZE(names) : 0;
    Engine* engine = nargs == 1 && names != nullptr ? handle->ready(true) : nullptr;
    KeySet set;
    if (engine != nullptr) [[likely]] {
        if (!engine->key_sets.resolve(engine->core.keys(), names, set)) return nullptr;
        if (set.step < 0) [[likely]] {
            if (set.id != KeyTable::kNone && !engine->inherited() &&
                are_few_floats(args + 1, count)) [[likely]] {
                handle->saw_step(step);
                return answer(submit_floats(engine->core, ticks, step, set.id, args + 1,
                                            static_cast<std::size_t>(count)));
            }
            Call call{*handle, ticks, names, keys, count,  true, step,
                      false,   false, false, 0,    engine, set};
            return answer(record_any(call, args + 1));
        }
    }
    Call call{*handle, ticks, names, keys, count, true, step};
    return record_rest(call, args, nargs);
}

PyObject* record_mapping(Call& call, PyObject* mapping, bool flatten) noexcept {
    Items items;
    if (!items.take(mapping, flatten)) return nullptr;
    call.keys = items.keys();
    call.count = items.count();
    call.joined = items.joined();
    const int found = call.find_engine();
    if (found != 1) return answer(found);
    if (call.set.id == KeyTable::kNone || call.flags != 0 ||
        !are_few_floats(items.values(), call.count)) {
        return answer(record_any(call, items.values()));
    }
    return answer(submit_floats(call.engine->core, call.ticks, call.settle_step(), call.set.id,
                                items.values(), static_cast<std::size_t>(call.count)));
}

// Parses two arguments, by position or by name; `second` may be absent if `required` is 1.
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
                 second_name, required == 1 ? "; the second is optional" : "");
    return false;
}

// The error of a closed or never opened recorder takes precedence over errors in the arguments.
RecorderHandle* usable(PyObject* self) noexcept {
    RecorderHandle* handle = RecorderHandle::from(self);
    if (handle == nullptr || (handle->ready(true) == nullptr && PyErr_Occurred())) return nullptr;
    return handle;
}

template <bool kMustFit>
PyObject* record_dict(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* names) {
    const std::uint64_t ticks = now_ticks();
    RecorderHandle* handle = usable(self);
    if (handle == nullptr) return nullptr;
    PyObject* step_object;
    PyObject* mapping;
    Call call{*handle, ticks, nullptr, nullptr, 0, true};
    call.must_fit = kMustFit;
    if (!parse_two("record_dict", "step", "metrics", 2, args, nargs, names, step_object, mapping) ||
        !read_step(step_object, call.step)) {
        return nullptr;
    }
    return record_mapping(call, mapping, false);
}

// _summary_fitting(epoch: int | float, values)
PyObject* summary(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* names) {
    const std::uint64_t ticks = now_ticks();
    RecorderHandle* handle = usable(self);
    if (handle == nullptr) return nullptr;
    PyObject* epoch;
    PyObject* mapping;
    if (!parse_two("_summary_fitting", "epoch", "values", 2, args, nargs, names, epoch, mapping)) {
        return nullptr;
    }
    Call call{*handle, ticks, nullptr, nullptr, 0, true};
    call.must_fit = true;
    call.flags = MetricsPayload::kSummary;
    if (PyFloat_Check(epoch)) {
        call.flags |= MetricsPayload::kRealEpoch;
        call.step = std::bit_cast<std::int64_t>(PyFloat_AS_DOUBLE(epoch));
    } else if (!read_step(epoch, call.step)) {
        return nullptr;
    }
    return record_mapping(call, mapping, false);
}

PyObject* log(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* names) {
    const std::uint64_t ticks = now_ticks();
    RecorderHandle* handle = usable(self);
    if (handle == nullptr) return nullptr;
    PyObject* mapping;
    PyObject* step_object;
    if (!parse_two("log", "metrics", "step", 1, args, nargs, names, mapping, step_object)) {
        return nullptr;
    }
    Call call{*handle, ticks, nullptr, nullptr, 0};
    call.tolerant = true;
    call.has_step = step_object != nullptr && step_object != Py_None;
    if (call.has_step && !read_step(step_object, call.step)) return nullptr;
    return record_mapping(call, mapping, true);
}

// _fragment(stream: int, members: bytes) -> bool
PyObject* fragment(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject*) {
    const std::uint64_t ticks = now_ticks();
    RecorderHandle* handle = RecorderHandle::from(self);
    if (handle == nullptr) return nullptr;
    const long number = nargs == 2 ? PyLong_AsLong(args[0]) : -1;
    if (nargs != 2 || number < 0 || number >= static_cast<long>(kStreamCount) ||
        !PyBytes_Check(args[1])) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError, "_fragment() takes a stream number and bytes");
        }
        return nullptr;
    }
    const auto stream = static_cast<Stream>(number);
    Engine* engine = handle->ready(true);
    if (engine == nullptr) return answer(handle->unready(CallKind::event, stream));
    return answer(submit_counted(engine->core, CallKind::event, RecordKind::fragment, stream, ticks,
                                 PyBytes_AS_STRING(args[1]),
                                 static_cast<std::size_t>(PyBytes_GET_SIZE(args[1]))));
}

PyMethodDef hot_methods[] = {
    {"record", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(record)),
     METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"record_dict", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(record_dict<false>)),
     METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"log", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(log)),
     METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"_record_fitting", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(record_dict<true>)),
     METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"_summary_fitting", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(summary)),
     METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"_fragment", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(fragment)),
     METH_FASTCALL | METH_KEYWORDS, nullptr},
};

constexpr std::array<const char*, 6> kDocs = {
    R"(record($self, step, /, **values)
--

Record the metrics of one training step.

Args:
    step: The training step, an int (any object with __index__) within 64 bits.
    **values: Metrics by name: float, int (64 bits), bool, None, str, a numpy scalar, or an array or
        tensor without dimensions on the CPU. ``epoch`` becomes a separate field beside ``step``.

Returns:
    True when the record was accepted, False when it was dropped (see ``back_pressure``).

Raises:
    TypeError: A value has an unsupported type; the message names key and type. Nothing is written.
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
    TypeError: ``metrics`` is not a mapping, or a name or value cannot be recorded.
    OverflowError: An int beyond 64 bits.
    RecorderClosedError: The recorder has been closed.)",
    R"(log($self, metrics, step=None)
--

Record a mapping of metrics, with the same arguments as ``wandb.log``.

Args:
    metrics: Mapping from names to values, see ``record``; nested dicts become ``outer.inner``.
    step: The training step. Default: the last recorded one plus 1, or 0.

A value that ``record`` rejects (a list, an array) is written as text, truncated if it is long, with one
warning per name; the other values are not affected. Texts that are too long for the ring are truncated.

Returns:
    True when the record was accepted, False when it was dropped.

Raises:
    TypeError: ``metrics`` is not a mapping, a name is not a str, or ``epoch`` is not a number.
    ValueError: Two names become equal, as in ``{"a": {"b": 1}, "a.b": 2}``.
    OverflowError: A step beyond 64 bits.
    RecorderClosedError: The recorder has been closed.)",
    R"(_record_fitting($self, step, metrics)
--

record_dict(), but a record too large for the ring raises ValueError and is not counted.)",
    R"(_summary_fitting($self, epoch, values)
--

Record the values of an epoch in a separate line; a record too large for the ring raises ValueError.)",
    R"(_fragment($self, stream, members, /)
--

Append a line made of rendered JSON members to a stream; used by ``event``.)",
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
