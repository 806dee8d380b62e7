// timer(): a block's wall-clock duration as one record, with nesting.
//
// A Timer holds only its name and step; running blocks are on a stack of their thread. So one Timer may be entered
// again while it runs (recursion), and by several threads at once. Tasks of a thread (asyncio, trio) interleave
// their blocks on it, and are told apart by their contexts.
#include <Python.h>
#include <structmember.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "bindings/bindings.hpp"
#include "bindings/block_stack.hpp"
#include "bindings/handle.hpp"
#include "bindings/py_encode.hpp"
#include "bindings/signature.hpp"
#include "bindings/submit.hpp"
#include "bindings/timed_block.hpp"
#include "bindings/timer.hpp"
#include "core/clock.hpp"
#include "core/line_renderer.hpp"

namespace fastlog::bindings {

namespace {

PyTypeObject* timer_type = nullptr;
PyTypeObject* block_type = nullptr;
PyObject* decorate = nullptr;

// The numbers of the blocks that tasks inherit which are started in a task, the innermost first. Those that have
// ended, and another thread's, are on no stack that is searched for them.
PyObject* inherited = nullptr;
std::atomic<std::uint64_t> last_number{0};

// Gives the thread, or the bare greenlet, that has no context yet one of its own. Borrowed; null without memory.
[[gnu::noinline]] PyObject* make_context() noexcept {
    PyObject* const nothing = PyTuple_New(0);
    PyObject* const token = nothing != nullptr ? PyContextVar_Set(inherited, nothing) : nullptr;
    Py_XDECREF(nothing);
    Py_XDECREF(token);
    PyErr_Clear();
    return PyThreadState_Get()->context;
}

// What tells the tasks and greenlets of a thread apart; null outside of them. Borrowed.
[[gnu::hot]] PyObject* current_task() noexcept {
    PyObject* context = PyThreadState_Get()->context;
    if (context == this_thread().base_context && context != nullptr) [[likely]]
        return nullptr;
    if (context == nullptr) {
        context = make_context();
        if (this_thread().base_context != nullptr)
            return context;  // the thread's own has one: this is a greenlet
        this_thread().base_context = context;
        return nullptr;
    }
    if (this_thread().base_context == nullptr && context != this_thread().entered_context) {
        if (PyContext_Enter(context) == 0) {  // nobody runs in it: it came with the first value
            PyContext_Exit(context);
            this_thread().base_context = context;
            return nullptr;
        }
        PyErr_Clear();
        this_thread().entered_context = context;
    }
    return context;
}

using Frames = std::vector<Frame>;

const Frame* innermost(const Frames& frames, PyObject* recorder, const PyObject* task) noexcept {
    for (auto frame = frames.rbegin(); frame != frames.rend(); ++frame) {
        if (frame->timer->recorder == recorder && frame->task == task) return &*frame;
    }
    return nullptr;
}

// What the task was started in. Owned; null for nothing.
PyObject* inherited_blocks() noexcept {
    PyObject* blocks = nullptr;
    if (PyContextVar_Get(inherited, nullptr, &blocks) != 0) PyErr_Clear();
    return blocks;
}

const Frame* numbered(const Frames& frames, PyObject* number) noexcept {
    const std::uint64_t wanted = PyLong_AsUnsignedLongLong(number);
    const auto frame = std::find_if(frames.begin(), frames.end(),
                                    [&](const Frame& one) { return one.number == wanted; });
    return frame != frames.end() ? &*frame : nullptr;
}

const Frame* innermost_of(const Frames& frames, PyObject* recorder, PyObject* blocks) noexcept {
    const Py_ssize_t size = blocks == nullptr ? 0 : PyTuple_GET_SIZE(blocks);
    for (Py_ssize_t i = 0; i < size; ++i) {
        const Frame* const frame = numbered(frames, PyTuple_GET_ITEM(blocks, i));
        if (frame != nullptr && frame->timer->recorder == recorder) return frame;
    }
    return nullptr;
}

// Finds the enclosing block: of the task, of what the task was started in, or around all tasks.
void note_parent(BlockStack& stack, Frame& frame) noexcept {
    PyObject* const recorder = frame.timer->recorder;
    PyObject* const blocks = frame.task != nullptr ? inherited_blocks() : nullptr;
    stack.look([&](const Frames& frames) {
        const Frame* found = innermost(frames, recorder, frame.task);
        if (found == nullptr && frame.task != nullptr) {
            found = innermost_of(frames, recorder, blocks);
            if (found == nullptr) found = innermost(frames, recorder, nullptr);
        }
        if (found == nullptr) return;
        frame.parent = Py_NewRef(found->timer->name);  // Python code may end that block first
        frame.depth = static_cast<std::uint16_t>(found->depth + 1);
        if (!frame.has_step) {
            frame.step = found->step;
            frame.has_step = found->has_step;
        }
    });
    Py_XDECREF(blocks);
}

// Tasks that are started in this block have it as their parent. Without memory they have none.
void pass_on(BlockStack& stack, Frame& frame) noexcept {
    frame.number = 1 + last_number.fetch_add(1, std::memory_order_relaxed);
    PyObject* const number = PyLong_FromUnsignedLongLong(frame.number);
    PyObject* const before = inherited_blocks();
    PyObject* const all = PyList_New(0);
    bool made = all != nullptr && number != nullptr && PyList_Append(all, number) == 0;
    const Py_ssize_t size = before == nullptr ? 0 : PyTuple_GET_SIZE(before);
    for (Py_ssize_t i = 0; i < size; ++i) {
        PyObject* const outer = PyTuple_GET_ITEM(before, i);
        const bool runs =
            stack.look([&](const Frames& frames) { return numbered(frames, outer) != nullptr; });
        made = made && (!runs || PyList_Append(all, outer) == 0);
    }
    PyObject* const blocks = made ? PyList_AsTuple(all) : nullptr;
    if (blocks != nullptr) frame.token = PyContextVar_Set(inherited, blocks);
    for (PyObject* owned : {number, before, all, blocks}) Py_XDECREF(owned);
    PyErr_Clear();
}

// Ends what a block was to the tasks started in it.
void leave_task(Frame& frame) noexcept {
    if (frame.token != nullptr && PyContextVar_Reset(inherited, frame.token) != 0) {
        PyErr_Clear();  // it ends in another context than it began in
    }
    Py_CLEAR(frame.token);
    Py_CLEAR(frame.task);
}

// Replaces a frame's timer with a copy. False with MemoryError set.
bool copy_timer(Frame& frame) noexcept {
    if (!frame.block.wanted) return true;
    auto* copy = reinterpret_cast<Timer*>(timer_type->tp_alloc(timer_type, 0));
    if (copy == nullptr) return false;
    copy->recorder = Py_NewRef(frame.timer->recorder);
    copy->name = Py_NewRef(frame.timer->name);
    copy->step = frame.timer->step;
    copy->has_step = frame.timer->has_step;
    frame.original = std::exchange(frame.timer, copy);
    return true;
}

// Ends a block without a record. Its timer is not owned yet if it did not come so far.
void drop_frame(Frame& frame, bool owns_timer) noexcept {
    drop_block(frame.block);
    leave_task(frame);
    Py_XDECREF(frame.parent);
    if (owns_timer) Py_DECREF(frame.timer);
}

[[gnu::hot]] PyObject* timer_enter(PyObject* self, PyObject*) {
    std::uint64_t begin = span_ticks();
    auto* timer = reinterpret_cast<Timer*>(self);
    RecorderHandle* handle = nullptr;
    Page* page = nullptr;
    if (timer->recorder != nullptr) [[likely]] {
        handle = RecorderHandle::from(timer->recorder);
        if (handle == nullptr) return nullptr;
        const bool attends = handle->needs_attention();
        page = handle->ready(false);
        if (attends) [[unlikely]]
            begin = span_ticks();  // opening a forked child's files is not part of the block
        if (page == nullptr && PyErr_Occurred()) [[unlikely]] {
            if (timer->owner == nullptr || !PyErr_ExceptionMatches(RecorderHandle::closed_error)) {
                return nullptr;
            }
            PyErr_Clear();  // a logger's block is timed in memory then
            handle = nullptr;
        }
    }
    Frame frame{timer, nullptr, begin, timer->step, 0, timer->has_step};
    BlockStack* const stack = BlockStack::own();
    if (stack == nullptr) return PyErr_NoMemory();
    frame.task = Py_XNewRef(current_task());
    if (!stack->empty() || frame.task != nullptr) note_parent(*stack, frame);
    if (frame.task != nullptr) [[unlikely]]
        pass_on(*stack, frame);
    if (timer->device != nullptr && handle != nullptr) {
        const bool begun =
            begin_on_device(*handle, timer->device, frame.block) && copy_timer(frame);
        page = begun ? handle->ready(false) : nullptr;
        if (page == nullptr && PyErr_Occurred()) {
            drop_frame(frame, frame.original != nullptr);
            return nullptr;
        }
        frame.begin = begin = span_ticks();  // time that the device needed is not part of the block
    }
    if (page != nullptr) [[likely]]
        frame.thread = page->slot().thread();
    if (frame.original == nullptr) {
        Py_INCREF(self);
    } else {
        timer->open.fetch_add(1, std::memory_order_relaxed);
    }
    if (page == nullptr) [[unlikely]]
        frame.begin_ns = monotonic_ns();
    if (!stack->push(frame)) {
        if (frame.original != nullptr) timer->open.fetch_sub(1, std::memory_order_relaxed);
        drop_frame(frame, true);
        return PyErr_NoMemory();
    }
    if (page == nullptr) [[unlikely]]
        return Py_NewRef(self);  // its end counts the drop
    ThreadSlot& slot = page->slot();
    if (slot.count_call(CallKind::timer_enter)) {
        slot.add_sample(CallKind::timer_enter, span_ticks() - begin);
    }
    return Py_NewRef(self);
}

std::string_view type_name(PyObject* type) noexcept {
    if (!PyType_Check(type)) return {};
    const char* name = reinterpret_cast<PyTypeObject*>(type)->tp_name;
    const char* dot = std::strrchr(name, '.');
    return dot != nullptr ? dot + 1 : name;
}

// At most `bytes` of UTF-8, cut between characters.
std::string_view cut(std::string_view text, std::size_t bytes) noexcept {
    if (text.size() <= bytes) return text;
    while (bytes != 0 && (static_cast<unsigned char>(text[bytes]) & 0xC0) == 0x80) --bytes;
    return text.substr(0, bytes);
}

// The key table has no room for a name: the record itself carries the members of its line.
int submit_with_names(HotPage& page, std::uint64_t ticks, const TimingPayload& timing,
                      PyObject* name, PyObject* parent, std::string_view error,
                      std::uint32_t thread) noexcept {
    std::vector<PyObject*> storage;
    int result = -1;
    try {
        std::string_view name_text;
        std::string_view parent_text;
        if (utf8_of(name, name_text, storage) &&
            (parent == nullptr || utf8_of(parent, parent_text, storage))) {
            const std::string text =
                render_timing_fragment(name_text, parent_text, timing, page.core->ns_per_tick(),
                                       thread != 0 ? thread : page.slot().thread(), error,
                                       missing_bits(MissingReason::no_key_space));
            result = submit_counted(page, CallKind::timer_exit, RecordKind::fragment,
                                    Stream::performance, ticks, text.data(), text.size());
            const bool on_device = (timing.flags & TimingPayload::kHasDevice) != 0;
            if (result == 1 && on_device) page.core->count_missing_in_fragment(1);
        }
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
    }
    for (PyObject* bytes : storage) Py_DECREF(bytes);
    return result;
}

// The ids of the names of the block and its parent, in the key table of the engine that gets the record. 1:
// valid until other code runs; otherwise as unready().
inline int settle_names(RecorderHandle& handle, const Frame& frame, TimingPayload& timing,
                        Page*& page) noexcept {
    do {
        page = handle.ready(true);
        if (page == nullptr) [[unlikely]]
            return handle.unready(CallKind::timer_exit, Stream::performance);
        if (!page->name_id(frame.timer->name, timing.name)) return -1;
        if (frame.parent != nullptr && !page->name_id(frame.parent, timing.parent)) return -1;
    } while (page->inherited());
    return 1;
}

// The block ended at `ticks` after `span` of them: a line's timestamp less its duration is when it began. `thread`:
// where that was, 0 for the calling thread. `is_sampled` is set if the call is to be timed.
int submit_timing(RecorderHandle& handle, Frame& frame, std::uint64_t span, std::uint64_t ticks,
                  PyObject* error_type, std::uint32_t thread, bool& is_sampled) noexcept {
    TimingPayload timing{};
    timing.step = frame.step;
    timing.duration_ticks = span;
    timing.depth = frame.depth;
    if (frame.has_step) timing.flags |= TimingPayload::kHasStep;
    DeviceBlock& block = frame.block;
    if (frame.parent != nullptr) timing.flags |= TimingPayload::kHasParent;
    Page* page = nullptr;
    const int settled = settle_names(handle, frame, timing, page);
    if (settled != 1) {
        abandon(block, MissingReason::lost);
        return settled;
    }
    if (block.wanted) {
        if (DevicePool::in_forked_child()) abandon(block, MissingReason::forked);
        timing.flags = static_cast<std::uint16_t>(
            timing.flags | TimingPayload::kHasDevice |
            (block.ticket == kNoTicket ? TimingPayload::kDeviceMissing : 0) |
            (static_cast<unsigned>(block.device.kind) << TimingPayload::kDeviceKindShift) |
            (static_cast<unsigned>(block.device.index) << TimingPayload::kDeviceIndexShift));
    }
    std::string_view error = type_name(error_type);  // Python code may change this name
    if (timing.name == KeyTable::kNone ||
        (frame.parent != nullptr && timing.parent == KeyTable::kNone)) [[unlikely]] {
        abandon(block, MissingReason::lost);
        return submit_with_names(*page, ticks, timing, frame.timer->name, frame.parent, error,
                                 thread);
    }
    std::byte payload[sizeof(TimingPayload) + 128 + sizeof block.missing];
    error = cut(error, 128);
    timing.error_length = static_cast<std::uint32_t>(error.size());
    std::memcpy(payload, &timing, sizeof timing);
    if (!error.empty()) std::memcpy(payload + sizeof timing, error.data(), error.size());
    std::size_t length = sizeof timing + error.size();
    if ((timing.flags & TimingPayload::kDeviceMissing) != 0) {
        std::memcpy(payload + length, &block.missing, sizeof block.missing);
        length += sizeof block.missing;
    }
    const int accepted = submit_counted(
        *page, CallKind::timer_exit, RecordKind::timing, Stream::performance, ticks, payload,
        length, TicketChain{block.ticket, block.ticket}.flags(), thread, &is_sampled);
    if (accepted != 1) abandon(block, MissingReason::lost);
    return accepted;
}

// The error that is set stays.
[[gnu::noinline]] void add_sample(RecorderHandle& handle, CallKind kind,
                                  std::uint64_t begin) noexcept {
    Page* const page = handle.ready_now();
    if (page != nullptr) page->slot().add_sample(kind, span_ticks() - begin);
}

// The frame of a block that is not the last one: generators, tasks or threads were interleaved. A task's block may
// be ended from outside, by its generator's close, and a generator's in another thread: `thread` is where that
// began. False with an error set.
[[gnu::noinline, gnu::cold]] bool find_frame(BlockStack* stack, const Timer* timer,
                                             const PyObject* task, Frame& frame,
                                             std::uint32_t& thread) noexcept {
    if (stack != nullptr &&
        (stack->take([&](const Frame& one) { return one.is_of(timer) && one.task == task; },
                     frame) ||
         stack->take([&](const Frame& one) { return one.is_of(timer); }, frame))) {
        return true;
    }
    if (!BlockStack::take_any(timer, frame)) {
        PyErr_SetString(PyExc_RuntimeError, "timer exited without having been entered");
        return false;
    }
    thread = frame.thread;
    return true;
}

[[gnu::hot]] PyObject* timer_exit(PyObject* self, PyObject* const* args, Py_ssize_t nargs) {
    const std::uint64_t end = span_ticks();
    const std::uint64_t ticks = ticks_at(end);
    auto* timer = reinterpret_cast<Timer*>(self);
    PyObject* const error_type = nargs > 0 ? args[0] : Py_None;
    const PyObject* const task = current_task();
    Frame frame;
    std::uint32_t thread = 0;
    BlockStack* const stack = BlockStack::own();
    const auto is_its = [&](const Frame& one) { return one.is_of(timer) && one.task == task; };
    if ((stack == nullptr || !stack->take_last(is_its, frame)) &&
        !find_frame(stack, timer, task, frame, thread)) [[unlikely]] {
        return nullptr;
    }
    // The counter may have been reset while the machine slept.
    const std::uint64_t span = end > frame.begin ? end - frame.begin : 0;
    const std::int64_t end_ns = frame.begin_ns != 0 ? monotonic_ns() : 0;
    const bool in_memory = timer->recorder == nullptr;
    RecorderHandle* handle = in_memory ? nullptr : RecorderHandle::from(timer->recorder);
    if (frame.block.wanted) {
        timer->open.fetch_sub(1, std::memory_order_relaxed);
        end_on_device(frame.block);
        if (handle == nullptr) abandon(frame.block, MissingReason::lost);
    }
    bool is_sampled = false;
    bool ok = in_memory ||
              (handle != nullptr &&
               submit_timing(*handle, frame, span, ticks, error_type, thread, is_sampled) >= 0);
    if (frame.task != nullptr) [[unlikely]] {
        PyObject *type = nullptr, *value = nullptr, *traceback = nullptr;
        PyErr_Fetch(&type, &value, &traceback);
        leave_task(frame);
        PyErr_Restore(type, value, traceback);
    }
    Py_XDECREF(frame.parent);
    Py_DECREF(frame.timer);
    if (!ok && PyErr_ExceptionMatches(RecorderHandle::closed_error)) {
        PyErr_Clear();  // closed while the block ran: its timing is lost, which is not the block's fault
        ok = true;
    }
    double seconds = 0.0;
    if (ok && timer->owner != nullptr) {
        seconds = frame.begin_ns != 0 ? static_cast<double>(end_ns - frame.begin_ns) / 1e9
                                      : static_cast<double>(span) * handle->ns_per_tick() / 1e9;
        timer->elapsed = seconds;  // another thread may change that of a decorator
        ok = note_duration(*timer, seconds);
    }
    if (is_sampled) [[unlikely]]
        add_sample(*handle, CallKind::timer_exit, end);
    if (ok && timer->owner != nullptr) ok = tell_block(*timer, seconds, error_type);
    if (!ok) return nullptr;
    Py_RETURN_FALSE;
}

PyObject* timer_call(PyObject* self, PyObject* args, PyObject* kwargs) {
    if (decorate == nullptr || PyTuple_GET_SIZE(args) != 1 || kwargs != nullptr) {
        PyErr_SetString(PyExc_TypeError,
                        "a timer is called with one function, the one to decorate");
        return nullptr;
    }
    return PyObject_CallFunctionObjArgs(decorate, self, PyTuple_GET_ITEM(args, 0), nullptr);
}

// No tp_clear: a cycle through a recorder is broken at the recorder, and a timer on a thread's stack keeps
// its recorder alive.
int timer_traverse(PyObject* self, visitproc visit, void* arg) {
    auto* timer = reinterpret_cast<Timer*>(self);
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(timer->recorder);
    Py_VISIT(timer->owner);
    return 0;
}

[[gnu::hot]] void timer_dealloc(PyObject* self) {
    PyObject_GC_UnTrack(self);
    auto* timer = reinterpret_cast<Timer*>(self);
    Frame frame;  // of a block that can no longer be exited, in whatever thread it began
    while (timer->open.load(std::memory_order_relaxed) != 0 && BlockStack::take_any(timer, frame)) {
        timer->open.fetch_sub(1, std::memory_order_relaxed);
        drop_frame(frame, true);
    }
    Py_XDECREF(timer->recorder);
    Py_XDECREF(timer->name);
    Py_XDECREF(timer->device);
    Py_XDECREF(timer->owner);
    Py_XDECREF(timer->level);
    PyTypeObject* type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

PyObject* timer_repr(PyObject* self) {
    const char* const name = std::strrchr(Py_TYPE(self)->tp_name, '.') + 1;
    return PyUnicode_FromFormat("<%s %R>", name, reinterpret_cast<Timer*>(self)->name);
}

// Null with an error set. `begin`: when the call did.
[[gnu::hot]] Timer* new_timer(PyTypeObject* type, PyObject* recorder, PyObject* name,
                              PyObject* step, PyObject* device, std::uint64_t begin) noexcept {
    std::int64_t number = 0;
    const bool has_step = step != nullptr && step != Py_None;
    if (has_step && !read_step(step, number)) return nullptr;
    auto* timer = reinterpret_cast<Timer*>(type->tp_alloc(type, 0));
    if (timer == nullptr) return nullptr;
    timer->recorder = Py_XNewRef(recorder);
    timer->name = Py_NewRef(name);
    timer->step = number;
    timer->has_step = has_step;
    const bool on_device = device != nullptr && device != Py_None && device != Py_False;
    timer->device = on_device ? Py_NewRef(device) : nullptr;
    if (recorder == nullptr) return timer;
    RecorderHandle* const handle = RecorderHandle::from(recorder);
    if (handle == nullptr) {
        PyErr_Clear();  // told when the block is entered
    } else if (Page* const page = handle->ready_now()) {
        ThreadSlot& slot = page->slot();
        if (slot.count_call(CallKind::timer_make)) [[unlikely]]
            slot.add_sample(CallKind::timer_make, span_ticks() - begin);
    }
    return timer;
}

constinit const Signature<3> kTimer{
    "timer() takes the block's name, a str, and step=<int> and device=<True, or a device> as "
    "keywords",
    {"name", "step", "device"},
    1,
    1};

// timer(name, *, step=None, device=None) -> Timer
[[gnu::hot]] PyObject* make_timer(PyObject* self, PyObject* const* args, Py_ssize_t nargs,
                                  PyObject* names) {
    const std::uint64_t begin = span_ticks();
    if (RecorderHandle::from(self) == nullptr) return nullptr;
    std::array<PyObject*, 3> given;
    if (!kTimer.parse(args, nargs, names, given)) return nullptr;
    const auto& [name, step, device] = given;
    if (!PyUnicode_Check(name)) {
        PyErr_SetString(PyExc_TypeError, kTimer.text);
        return nullptr;
    }
    return reinterpret_cast<PyObject*>(new_timer(timer_type, self, name, step, device, begin));
}

PyMethodDef timer_methods[] = {
    {"__enter__", timer_enter, METH_NOARGS, "Start timing the block."},
    {"__exit__", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(timer_exit)), METH_FASTCALL,
     "Record the block's duration and the type of an exception, which propagates."},
    {nullptr, nullptr, 0, nullptr},
};

PyMemberDef timer_members[] = {
    {"name", T_OBJECT_EX, offsetof(Timer, name), READONLY, "The block's name."},
    {nullptr, 0, 0, 0, nullptr},
};

PyMemberDef block_members[] = {
    {"name", T_OBJECT_EX, offsetof(Timer, name), READONLY, "The block's name."},
    {"elapsed", T_DOUBLE, offsetof(Timer, elapsed), READONLY,
     "Seconds that the block took; 0.0 until it has ended."},
    {nullptr, 0, 0, 0, nullptr},
};

// Null with an error set.
PyTypeObject* make_type(const char* name, const char* doc, PyMemberDef* members) noexcept {
    PyType_Slot slots[] = {
        {Py_tp_doc, const_cast<char*>(doc)},
        {Py_tp_dealloc, reinterpret_cast<void*>(timer_dealloc)},
        {Py_tp_traverse, reinterpret_cast<void*>(timer_traverse)},
        {Py_tp_repr, reinterpret_cast<void*>(timer_repr)},
        {Py_tp_call, reinterpret_cast<void*>(timer_call)},
        {Py_tp_methods, timer_methods},
        {Py_tp_members, members},
        {0, nullptr},
    };
    PyType_Spec spec{name, sizeof(Timer), 0,
                     Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                     slots};
    return reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&spec));
}

PyMethodDef timer_factory = {"timer",
                             reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(make_timer)),
                             METH_FASTCALL | METH_KEYWORDS,
                             R"(timer($self, name, *, step=None, device=None)
--

Time a block of code, as a context manager or a decorator.

Blocks nest per thread and asyncio task: each line has its depth and its parent, and a block without its own step
takes the step of the enclosing block. The object may be kept and entered repeatedly, also
recursively and by several threads.

Args:
    name: The block's name.
    step: The training step it belongs to.
    device: True also times the block on the current CUDA device, by a pair of events on its
        current stream and without waiting for it: the line gets ``device`` and
        ``device_duration_s``, null if a stream is being captured into a graph at its begin or end.
        A torch.device, its name or an index selects another device. If CUDA is not in use, only the
        wall-clock time is recorded.

Returns:
    The timer; ``with recorder.timer("forward"): ...`` or ``@recorder.timer("load")``.

Raises:
    TypeError: ``name`` is not a str, ``step`` not an int or ``device`` not a device (on entering).
    RecorderClosedError: On entering a block after the recorder was closed.)"};

}  // namespace

[[gnu::hot]] PyObject* make_block(PyObject* owner, PyObject* recorder, PyObject* name,
                                  PyObject* level, PyObject* step, PyObject* device,
                                  std::uint64_t begin) noexcept {
    Timer* const block = new_timer(block_type, recorder, name, step, device, begin);
    if (block == nullptr) return nullptr;
    block->owner = Py_NewRef(owner);
    block->level = Py_NewRef(level);
    return reinterpret_cast<PyObject*>(block);
}

void bind_timer(py::module_& module) {
    timer_type = make_type("foundry_fastlog._core.Timer",
                           "Times a block of code; created by Recorder.timer().", timer_members);
    block_type =
        make_type("foundry_fastlog._core.TimedBlock",
                  "One execution of a block of code, or, as a decorator, all of a function; "
                  "created by PerformanceLogger.time_block().",
                  block_members);
    if (timer_type == nullptr || block_type == nullptr) throw py::error_already_set();
    module.attr("TimedBlock") = py::handle(reinterpret_cast<PyObject*>(block_type));
    inherited = PyContextVar_New("foundry_fastlog.block", nullptr);
    if (inherited == nullptr) throw py::error_already_set();
    current_task();  // the thread's own context is known before greenlets come
    module.attr("Timer") = py::handle(reinterpret_cast<PyObject*>(timer_type));
    module.def(
        "set_decorate",
        [](py::object function) {
            Py_XDECREF(decorate);
            decorate = function.release().ptr();
        },
        py::arg("function"),
        "Sets the function(timer, callable) that implements @recorder.timer(name).");
}

void add_timer_method(PyObject* recorder_type) {
    PyObject* method =
        PyDescr_NewMethod(reinterpret_cast<PyTypeObject*>(recorder_type), &timer_factory);
    if (method == nullptr || PyObject_SetAttrString(recorder_type, "timer", method) != 0) {
        throw py::error_already_set();
    }
    Py_DECREF(method);
}

}  // namespace fastlog::bindings
