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
#include "bindings/signature.hpp"
#include "bindings/submit.hpp"
#include "core/line_renderer.hpp"

namespace fastlog::bindings {
namespace {

PyObject* answer(int submitted, const HotLine& facts = hot_line) noexcept {
    if (submitted < 0) [[unlikely]]
        return nullptr;
    if (submitted == 0) [[unlikely]]
        return Py_NewRef(Py_False);
    return Py_NewRef(static_cast<PyObject*>(facts.true_object));
}

bool are_few_floats(PyObject* const* values, Py_ssize_t count,
                    const HotLine& facts = hot_line) noexcept {
    constexpr Py_ssize_t kFew = 64;
    if (count > kFew) return false;
    for (Py_ssize_t i = 0; i < count; ++i) {
        if (Py_TYPE(values[i]) != facts.float_type) return false;
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
    bool joined = false;  // some names were joined from the keys of nested dicts
    bool tolerant =
        false;  // long texts are truncated, unsupported values left out unless they raise
    bool own_epoch = false;   // the epoch is an argument of the call: it is not left out
    bool stays = false;       // log() goes on with this step
    bool must_fit = false;    // a record too large for the ring is an error, and is not counted
    std::uint16_t flags = 0;  // of MetricsPayload: `step` is a summary's epoch
    Page* page = nullptr;
    KeySet set = KeySet::none();
    std::size_t left_out = 0;  // values

    // Whether texts may be truncated; a summary is rather split.
    bool may_shorten() const noexcept { return tolerant && (!must_fit || count == 1); }
    // Whether the current error is that of a value to be left out.
    bool may_leave_out() const noexcept {
        return tolerant && handle.on_bad_value() != OnBadValue::raise &&
               PyErr_ExceptionMatches(PyExc_Exception) &&
               !PyErr_ExceptionMatches(PyExc_MemoryError);
    }
    // Leaves values out because of the current error, which is cleared.
    [[gnu::noinline, gnu::cold]] void leave_out(PyObject* name, std::size_t values) noexcept {
        left_out += values;
        if (handle.on_bad_value() == OnBadValue::warn) {
            handle.tell_left_out(name);
        } else {
            PyErr_Clear();
        }
    }

    // Finds the engine and the id: an engine's ids are only in its own key table. 1: both are valid until
    // other code runs; otherwise as unready().
    [[gnu::hot]] int find_engine() noexcept {
        do {
            page = handle.ready(true);
            if (page == nullptr) [[unlikely]]
                return handle.unready(CallKind::record, Stream::metrics);
            const bool ok = names != nullptr ? page->resolve(names, set) : resolve_keys();
            if (!ok) return -1;
        } while (page->inherited());
        return 1;
    }
    // The same after other code has run, which may have forked.
    int settle() noexcept { return page->inherited() ? find_engine_again() : 1; }
    Engine& engine() const noexcept { return *page->engine; }
    bool resolve_keys() noexcept {
        Engine& own = engine();
        return own.key_sets.resolve_keys(own.core.keys(), nullptr, keys, count, set, joined);
    }
    [[gnu::noinline, gnu::cold]] int find_engine_again() noexcept { return find_engine(); }

    // Done last, so that a rejected call takes no step number.
    std::int64_t settle_step() noexcept {
        if (flags != 0) return step;
        if (!has_step) return stays ? handle.next_step() : handle.take_step();
        handle.saw_step(stays && step != INT64_MIN ? step - 1 : step);
        return step;
    }
};

// The usual record: nothing can fail any more, so the values are copied straight from their objects into the
// ring. (With a buffer in between, the copy would stall on the narrow stores into it.)
[[gnu::always_inline]] inline int submit_floats(HotPage& page, std::uint64_t ticks,
                                                std::int64_t step, std::uint32_t id,
                                                PyObject* const* values,
                                                std::size_t count) noexcept {
    return submit_counted(
        page, CallKind::record, RecordKind::metrics, Stream::metrics, ticks,
        metrics_strings_offset(count), [&](std::byte* at) {
            const MetricsPayload head{step, id, static_cast<std::uint16_t>(count), 0};
            std::memcpy(at, &head, sizeof head);
            static_assert(static_cast<unsigned>(ValueTag::real) == 3);
            constexpr std::uint64_t kEightReals = 0x0303030303030303;
            std::byte* slot = at + metrics_values_offset(count);
            // Without values, they are in the record's padding.
            static_assert(sizeof(RecordHeader) + sizeof head + sizeof kEightReals <=
                          record_size(metrics_strings_offset(0)));
            std::memcpy(at + sizeof head, &kEightReals, sizeof kEightReals);
            if (count > sizeof kEightReals)
                [[unlikely]]  // a call of memset() would be one line more
                std::memset(at + sizeof head, 3, metrics_tags_size(count));
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

// Puts null in the place of a value that cannot be recorded. False when the error remains set.
[[gnu::noinline, gnu::cold]] bool encode_nothing(Call& call, PayloadBuilder& payload,
                                                 std::size_t i) noexcept {
    const bool is_epoch = static_cast<std::int32_t>(i) == call.set.epoch;
    if (!call.may_leave_out() || (is_epoch && call.own_epoch)) return false;
    payload.leave_out(i);
    call.leave_out(call.keys[i], 1);
    return true;
}

inline bool encode_all(Call& call, PayloadBuilder& payload, PyObject* const* values) noexcept {
    PyObject* const* keys = call.keys;
    const auto count = static_cast<std::size_t>(call.count);
    const std::int32_t epoch = call.flags == 0 ? call.set.epoch : -1;
    if (!payload.begin(count)) return false;
    payload.set_flags(call.flags);
    for (std::size_t i = 0; i < count; ++i) {
        if (encode_value(payload, i, keys[i], values[i])) continue;
        if (!encode_nothing(call, payload, i)) return false;
    }
    if (epoch < 0) return true;
    const auto at = static_cast<std::size_t>(epoch);
    return payload.is_left_out(at) || check_epoch(payload.tag(at), values[at]) ||
           encode_nothing(call, payload, at);
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
    const std::size_t most = call.page->ring.max_payload();
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
        const std::size_t most = call.page->ring.max_payload();
        if (ok && call.may_shorten() && text.size() > most) {
            ok = payload.shorten_texts(bytes_beside(texts, most));
            if (ok) text = render_metrics_fragment(payload.data(), texts);
        }
        if (ok && !refuses(call, text.size())) {
            result = submit_counted(*call.page, CallKind::record, RecordKind::fragment,
                                    Stream::metrics, call.ticks, text.data(), text.size());
            if (result == 1) {
                call.engine().core.count_missing_in_fragment(payload.device_arguments().size());
            }
        }
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
    }
    for (PyObject* bytes : storage) Py_DECREF(bytes);
    return result;
}

// Says that a record has more metrics than one can have; the ValueError is set.
bool refuse_many(std::size_t count) noexcept {
    PyErr_Format(PyExc_ValueError, "%zu metrics in one record; at most %zu are allowed", count,
                 kMaxMetrics);
    return false;
}

int submit_any(Call& call, PayloadBuilder& payload) noexcept;

// Values of any type.
[[gnu::hot]] int record_any(Call& call, PyObject* const* values) noexcept {
    if (call.count > static_cast<Py_ssize_t>(kMaxMetrics)) {
        refuse_many(static_cast<std::size_t>(call.count));
        return -1;
    }
    PayloadBuilder payload;
    if (!encode_all(call, payload, values)) return -1;
    const int accepted = submit_any(call, payload);
    if (call.handle.on_bad_value() == OnBadValue::warn) {
        for (const std::size_t i : payload.shortened()) call.handle.tell_cut(call.keys[i]);
    }
    return accepted;
}

// For which the engine and the id have been found.
[[gnu::hot]] int submit_values(Call& call, PyObject* const* values) noexcept {
    if (call.set.id == KeyTable::kNone || call.flags != 0 || call.left_out != 0 ||
        !are_few_floats(values, call.count)) {
        return record_any(call, values);
    }
    return submit_floats(*call.page, call.ticks, call.settle_step(), call.set.id, values,
                         static_cast<std::size_t>(call.count));
}

int submit_any(Call& call, PayloadBuilder& payload) noexcept {
    TicketChain chain;
    do {  // once, unless sending forks
        chain = {};
        const int settled = call.settle();
        if (settled != 1) return settled;
        if (call.set.id == KeyTable::kNone) break;
        const std::size_t most = call.page->ring.max_payload();
        if (payload.size() > most && call.may_shorten() && !payload.shorten_texts(most)) return -1;
        if (refuses(call, payload.size())) return -1;
        payload.set_key_set(call.set.id);
        if (!payload.device_arguments().empty() &&
            !send_device_values(call.engine(), payload, chain)) {
            return -1;
        }
    } while (call.page->inherited());
    if (call.left_out != 0) {
        call.engine().left_out.fetch_add(call.left_out, std::memory_order_relaxed);
    }
    payload.set_step(call.settle_step());
    if (call.set.id == KeyTable::kNone) return submit_with_keys(call, payload);
    const int accepted =
        submit_counted(*call.page, CallKind::record, RecordKind::metrics, Stream::metrics,
                       call.ticks, payload.data(), payload.size(), chain.flags());
    if (accepted != 1 && chain.first != kNoTicket) {
        abandon_device_values(call.engine(), payload, chain);
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

// record() of anything but a step and a few floats, by names that are not known yet, or where the engine needs
// attention.
[[gnu::noinline]] PyObject* record_unusual(RecorderHandle& handle, std::uint64_t ticks,
                                           PyObject* const* args, Py_ssize_t nargs, PyObject* names,
                                           std::int64_t step) noexcept {
    PyObject* const* keys = names != nullptr ? &PyTuple_GET_ITEM(names, 0) : nullptr;
    const Py_ssize_t count = names != nullptr ? PyTuple_GET_SIZE(names) : 0;
    Call call{handle, ticks, names, keys, count, true, step};
    const int found = call.find_engine();
    if (found != 1) return answer(found);
    if (nargs == 1 && call.set.step < 0) [[likely]]
        return answer(submit_values(call, args + 1));
    if (nargs == 0 && call.set.step >= 0) return record_step_keyword(call, args);
    if (nargs != 1) {
        PyErr_Format(PyExc_TypeError,
                     "record() takes the step as its only positional argument (got %zd) and the "
                     "metrics as keywords: record(step, loss=..., lr=...)",
                     nargs);
    } else {
        PyErr_SetString(PyExc_TypeError, "record() got multiple values for argument 'step'");
    }
    return nullptr;
}

// With cold caches it costs the pages and lines that it touches: see hot_page.hpp and benchmarks/lines.py.
[[gnu::hot, gnu::aligned(1024)]] PyObject* record(PyObject* self, PyObject* const* args,
                                                  Py_ssize_t nargs, PyObject* names) {
    RecorderHandle* handle = RecorderHandle::from(self);
    if (handle == nullptr) [[unlikely]]
        return nullptr;
    Page& page = handle->page();
    const HotLine& facts = page.facts;
    const std::uint64_t ticks = now_ticks(facts);
    std::int64_t step = 0;
    if (nargs == 1) [[likely]] {
        // Before the engine is determined: __index__ may run any code.
        if (!read_short_int(args[0], step, facts)) [[unlikely]] {
            if (!read_any_step(args[0], step)) return nullptr;
        } else if (KeySet set; names != nullptr && page.attention.bits() == 0 &&
                               page.names.find(names, set)) [[likely]] {
            const Py_ssize_t count = PyTuple_GET_SIZE(names);
            if (set.step < 0 && set.id != KeyTable::kNone && are_few_floats(args + 1, count, facts))
                [[likely]] {
                handle->saw_step(step);
                return answer(submit_floats(page, ticks, step, set.id, args + 1,
                                            static_cast<std::size_t>(count)),
                              facts);
            }
        }
    }
    return record_unusual(*handle, ticks, args, nargs, names, step);
}

// For a mapping with more items than a record can have, or two of one name: leaves out what has no place in
// its line, if it may. Returns as find_engine(), which returned `found`.
[[gnu::noinline, gnu::cold]] int find_after_loss(Call& call, Items& items, int found) noexcept {
    if (found < 0) {
        if (!PyErr_ExceptionMatches(PyExc_ValueError) || !call.may_leave_out()) return found;
        PyObject* type;
        PyObject* error;
        PyObject* trace;
        PyErr_Fetch(&type, &error, &trace);
        const Py_ssize_t dropped = items.drop_repeated();
        if (dropped < 0) {
            Py_XDECREF(type);
            Py_XDECREF(error);
            Py_XDECREF(trace);
            return -1;
        }
        PyErr_Restore(type, error, trace);
        if (dropped == 0) return found;
        call.leave_out(Py_None, static_cast<std::size_t>(dropped));
        call.count = items.count();
        found = call.find_engine();
    }
    if (found != 1 || items.unread() == 0) return found;
    refuse_many(static_cast<std::size_t>(call.count) + items.unread());
    if (!call.may_leave_out()) return -1;
    call.leave_out(Py_None, items.unread());
    return call.settle();
}

PyObject* epoch_name = nullptr;

[[gnu::hot]] PyObject* record_mapping(Call& call, PyObject* mapping, bool flatten,
                                      PyObject* epoch = nullptr) noexcept {
    Items items;
    if (!items.take(mapping, flatten, epoch_name, epoch)) return nullptr;
    call.keys = items.keys();
    call.count = items.count();
    call.joined = items.joined();
    int found = call.find_engine();
    if ((found < 0 && items.joined()) || items.unread() != 0) [[unlikely]]
        found = find_after_loss(call, items, found);
    return answer(found == 1 ? submit_values(call, items.values()) : found);
}

constinit const Signature<2> kRecordDict{
    "record_dict() takes the arguments (step, metrics)", {"step", "metrics"}, 2};
constinit const Signature<3> kSummaryFitting{
    "_summary_fitting() takes the arguments (epoch, values, tolerant=False)",
    {"epoch", "values", "tolerant"},
    2};
constinit const Signature<3> kLog{
    "log() takes the arguments (data, step=None, commit=None)", {"data", "step", "commit"}, 1};

// The error of a closed or never opened recorder takes precedence over errors in the arguments.
RecorderHandle* usable(PyObject* self) noexcept {
    RecorderHandle* handle = RecorderHandle::from(self);
    if (handle == nullptr || (handle->ready(true) == nullptr && PyErr_Occurred())) return nullptr;
    return handle;
}

PyObject* record_dict(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* names) {
    const std::uint64_t ticks = now_ticks();
    RecorderHandle* handle = usable(self);
    if (handle == nullptr) return nullptr;
    std::array<PyObject*, 2> given;
    Call call{*handle, ticks, nullptr, nullptr, 0, true};
    if (!kRecordDict.parse(args, nargs, names, given) || !read_step(given[0], call.step)) {
        return nullptr;
    }
    return record_mapping(call, given[1], false);
}

// _summary_fitting(epoch: int | float, values, tolerant=False)
PyObject* summary(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* names) {
    const std::uint64_t ticks = now_ticks();
    RecorderHandle* handle = usable(self);
    if (handle == nullptr) return nullptr;
    std::array<PyObject*, 3> given;
    if (!kSummaryFitting.parse(args, nargs, names, given)) return nullptr;
    PyObject* epoch = given[0];
    Call call{*handle, ticks, nullptr, nullptr, 0, true};
    call.must_fit = true;
    call.tolerant = given[2] == Py_True;
    call.flags = MetricsPayload::kSummary;
    if (PyFloat_Check(epoch)) {
        call.flags |= MetricsPayload::kRealEpoch;
        call.step = std::bit_cast<std::int64_t>(PyFloat_AS_DOUBLE(epoch));
    } else if (!read_step(epoch, call.step)) {
        return nullptr;
    }
    return record_mapping(call, given[1], call.tolerant);
}

// log() and log_step(), with the arguments that both have.
PyObject* log_values(Call& call, PyObject* data, PyObject* step, PyObject* epoch) noexcept {
    call.tolerant = true;
    call.has_step = step != nullptr && step != Py_None;
    if (call.has_step && !read_step(step, call.step)) return nullptr;
    return record_mapping(call, data, true, epoch);
}

PyObject* log(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* names) {
    const std::uint64_t ticks = now_ticks();
    RecorderHandle* handle = usable(self);
    if (handle == nullptr) return nullptr;
    std::array<PyObject*, 3> given;
    if (!kLog.parse(args, nargs, names, given)) return nullptr;
    const auto& [data, step, commit] = given;
    Call call{*handle, ticks, nullptr, nullptr, 0};
    call.stays = commit == Py_False;
    if (commit != nullptr && commit != Py_None && !PyBool_Check(commit)) {
        PyErr_Format(PyExc_TypeError, "commit must be a bool or None, got %s",
                     Py_TYPE(commit)->tp_name);
        return nullptr;
    }
    return log_values(call, data, step, nullptr);
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
    Page* page = handle->ready(true);
    if (page == nullptr) return answer(handle->unready(CallKind::event, stream));
    return answer(submit_counted(*page, CallKind::event, RecordKind::fragment, stream, ticks,
                                 PyBytes_AS_STRING(args[1]),
                                 static_cast<std::size_t>(PyBytes_GET_SIZE(args[1]))));
}

PyMethodDef hot_methods[] = {
    {"record", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(record)),
     METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"record_dict", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(record_dict)),
     METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"log", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(log)),
     METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"_summary_fitting", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(summary)),
     METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"_fragment", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(fragment)),
     METH_FASTCALL | METH_KEYWORDS, nullptr},
};

constexpr std::array<const char*, 5> kDocs = {
    R"(record($self, step, /, **values)
--

Record the metrics of one training step.

Args:
    step: The training step, an int (any object with __index__) within 64 bits.
    **values: Metrics by name: float, int (64 bits), bool, None, str, a numpy scalar, or an array or
        tensor of one element, also on a GPU. ``epoch`` becomes a separate field beside ``step``.
        An integer from 2**63 to 2**64 - 1 becomes a float; pass its str() to keep all digits.

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
    R"(log($self, data, step=None, commit=None)
--

Record a mapping of metrics, with the same arguments as ``wandb.log``.

Args:
    data: Mapping from names to values, see ``record``; nested dicts become ``outer.inner``.
    step: The training step. Default: the last recorded one plus 1, or 0.
    commit: False if the next call without a step belongs to the same step. The line is written in
        any case; a step may have several.

A value that ``record`` rejects (a list, an image) is left out: null in its line, named in ``missing`` and
counted in ``stats()["left_out"]``. ``on_bad_value`` of ``Recorder`` says whether one warning per name tells
of it (the default), or nothing does, or whether it is raised. The other values are not affected. A name that
is not a str becomes its text, of two equal names the last one counts, and texts that are too long for the
ring are truncated.

Returns:
    True when the record was accepted, False when it was dropped.

Raises:
    TypeError: ``data`` is not a mapping, ``step`` not an int or ``commit`` not a bool. With
        ``on_bad_value="raise"``, also as ``record``.
    ValueError: With ``on_bad_value="raise"``: two names become equal, as in
        ``{"a": {"b": 1}, "a.b": 2}``.
    OverflowError: A step beyond 64 bits.
    RuntimeError: A GPU value was passed while a stream is being captured into a graph.
    RecorderClosedError: The recorder has been closed.)",
    R"(_summary_fitting($self, epoch, values, tolerant=False)
--

Record the values of an epoch in a separate line, as record() or as log() does; a record too large for the
ring raises ValueError.)",
    R"(_fragment($self, stream, members, /)
--

Append a line made of rendered JSON members to a stream; used by ``event``.)",
};

}  // namespace

[[gnu::hot]] PyObject* record_step(PyObject* recorder, std::uint64_t ticks, PyObject* step,
                                   PyObject* epoch, PyObject* metrics) noexcept {
    RecorderHandle* handle = usable(recorder);
    if (handle == nullptr) return nullptr;
    Call call{*handle, ticks, nullptr, nullptr, 0};
    call.own_epoch = true;
    return log_values(call, metrics, step, epoch);
}

void add_record_methods(PyObject* type) {
    if (epoch_name == nullptr) epoch_name = PyUnicode_InternFromString("epoch");
    if (epoch_name == nullptr) throw pybind11::error_already_set();
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
