#include "bindings/device_send.hpp"

#include <pybind11/stl.h>

#include <atomic>
#include <bit>
#include <string>
#include <vector>

#include "bindings/gil.hpp"
#include "device/device_reader.hpp"

namespace fastlog::bindings {
namespace {

PyObject* deliver = nullptr;  // the module's function, kept alive

// The arguments on one device, the device's current stream, and the state of their copies.
struct Group {
    DeviceId device;
    std::int32_t device_type;
    void* stream;
    bool by_driver = false;  // otherwise the framework copies
    std::vector<DeviceArgument*> arguments{};
    std::vector<DeviceScalar> scalars{};
    std::vector<SettledValue> values{};
};

// False with an error set when a framework cannot report its stream.
bool group_by_device(PayloadBuilder& payload, std::vector<Group>& groups) {
    for (DeviceArgument& argument : payload.device_arguments()) {
        const Element& element = argument.element;
        Group* group = nullptr;
        for (Group& known : groups) {
            if (known.device_type == element.device_type &&
                known.device.index == element.device_id) {
                group = &known;
            }
        }
        if (group == nullptr) {
            void* stream = nullptr;
            if (!current_stream(element, stream)) return false;
            groups.push_back(
                {{kind_of(element.device_type), element.device_id}, element.device_type, stream});
            group = &groups.back();
        }
        group->arguments.push_back(&argument);
        group->scalars.push_back({element.address, element.dtype, element.keep});
        group->values.emplace_back();
    }
    return true;
}

// Returns whether the stream of any group is being captured. Without the GIL, as in send_groups().
bool is_captured(DevicePool& pool, std::vector<Group>& groups) {
    for (Group& group : groups) {
        group.by_driver = pool.has_driver(group.device.kind);
        if (group.by_driver && pool.capture_error(group.device, group.stream) != 0) return true;
    }
    return false;
}

// Without the GIL: each driver call may wait for the device, which may wait for a thread that needs the GIL.
// False when a stream is being captured; then nothing has been sent.
bool send_groups(Engine& engine, DevicePool& pool, std::vector<Group>& groups, TicketChain& chain) {
    if (is_captured(pool, groups)) return false;
    engine.core.use_device([&] { return std::make_unique<DeviceReader>(pool); });
    for (Group& group : groups) {
        const std::size_t count = group.scalars.size();
        group.by_driver =
            group.by_driver && pool.send(group.device, group.stream, group.scalars.data(), count,
                                         group.values.data(), chain);
        if (!group.by_driver) pool.expect(count, group.values.data(), chain);
    }
    return true;
}

// Records where a group's values will arrive. From now on, tickets keep the memory that the driver copies
// from.
void note(PayloadBuilder& payload, Group& group) {
    for (std::size_t i = 0; i < group.values.size(); ++i) {
        DeviceArgument& argument = *group.arguments[i];
        payload.set(argument.index, group.values[i].tag, group.values[i].bits);
        if (group.by_driver && group.values[i].tag == ValueTag::pending) {
            argument.element.keep = nullptr;
        }
    }
}

// If the driver's way is unknown or must not be used, the framework copies, and reports when it is done.
void send_by_framework(DevicePool& pool, const Group& group) {
    if (group.values.front().tag != ValueTag::pending) return;  // nor is any other
    PyObject* list = PyList_New(0);
    bool ok = list != nullptr;
    std::vector<std::uint32_t> slots;
    for (std::size_t i = 0; i < group.values.size() && ok; ++i) {
        if (group.values[i].tag != ValueTag::pending) continue;
        const DeviceArgument& argument = *group.arguments[i];
        PyObject* tensor =
            argument.element.holder != nullptr ? argument.element.holder : argument.value;
        slots.push_back(PendingValue::from(group.values[i].bits).slot);
        PyObject* pair = Py_BuildValue("(OI)", tensor, slots.back());
        ok = pair != nullptr && PyList_Append(list, pair) == 0;
        Py_XDECREF(pair);
    }
    PyObject* function = ok ? device_function("start_transfer") : nullptr;
    PyObject* started = function != nullptr
                            ? PyObject_CallFunctionObjArgs(function, list, deliver, nullptr)
                            : nullptr;
    Py_XDECREF(list);
    if (started == nullptr) {
        // Logging must not end training: the values are missing, and the first error is shown.
        static std::atomic<bool> shown{false};
        if (!shown.exchange(true, std::memory_order_relaxed)) PyErr_WriteUnraisable(function);
        PyErr_Clear();
        for (const std::uint32_t slot : slots) pool.delivered(slot);
    }
    Py_XDECREF(started);
}

// For the current thread, while in scope: see RelaxedCapture.
class RelaxedThread {
  public:
    explicit RelaxedThread(DeviceKind kind) : kind_(kind) {
        const GilReleased unlocked;
        before_ = DevicePool::instance().exchange_capture_mode(kind_, DriverApi::kRelaxed);
    }
    ~RelaxedThread() {
        if (before_ < 0) return;
        const GilReleased unlocked;
        DevicePool::instance().exchange_capture_mode(kind_, before_);
    }
    RelaxedThread(const RelaxedThread&) = delete;
    RelaxedThread& operator=(const RelaxedThread&) = delete;

  private:
    DeviceKind kind_;
    int before_;
};

bool has_large(const PayloadBuilder& payload) noexcept {
    for (const DeviceArgument& argument : payload.device_arguments()) {
        if (argument.element.large) return true;
    }
    return false;
}

// Replaces values inside large allocations with copies. Values that the framework copies to the host are left
// to the framework. False with an error set for anything that is not an Exception.
bool copy_large_values(std::vector<Group>& groups) {
    for (Group& group : groups) {
        if (!group.by_driver) continue;
        for (std::size_t i = 0; i < group.arguments.size(); ++i) {
            DeviceArgument& argument = *group.arguments[i];
            Element& element = argument.element;
            if (!element.large || DevicePool::in_forked_child()) continue;
            const RelaxedThread relaxed(group.device.kind);  // allocates memory
            if (!copy_large(Py_None, argument.value, element)) return false;
            group.scalars[i] = {element.address, element.dtype, element.keep};
        }
    }
    return true;
}

bool refuse_captured() noexcept {
    set_capture_error("a value on a device");
    return false;
}

std::size_t pending_values(const PayloadBuilder& payload) noexcept {
    std::size_t pending = 0;
    for (const DeviceArgument& argument : payload.device_arguments()) {
        pending += payload.tag(argument.index) == ValueTag::pending;
    }
    return pending;
}

}  // namespace

void abandon_device_values(Engine& engine, const PayloadBuilder& payload,
                           const TicketChain& chain) noexcept {
    engine.core.uncount_device_values(pending_values(payload));
    if (DevicePool* pool = DevicePool::existing()) pool->abandon(chain);
}

DeviceKind kind_of(std::int32_t device_type) noexcept {
    switch (device_type) {
        case dlpack::kCuda:
        case dlpack::kCudaManaged:
            return DeviceKind::cuda;
        case dlpack::kRocm:
            return DeviceKind::rocm;
        case dlpack::kOneApi:
            return DeviceKind::xpu;
        case dlpack::kMetal:
            return DeviceKind::mps;
        default:
            return DeviceKind::other;
    }
}

void set_capture_error(const char* what) noexcept {
    PyErr_Format(PyExc_RuntimeError,
                 "%s cannot be recorded while a stream is being captured into a graph: each replay "
                 "would copy into the same place. Record after the capture, and after each replay",
                 what);
}

bool send_device_values(Engine& engine, PayloadBuilder& payload, TicketChain& chain) {
    return python_call([&] {
        try {
            DevicePool& pool = DevicePool::instance();
            drop_kept();
            std::vector<Group> groups;
            if (!group_by_device(payload, groups)) return false;
            if (engine.inherited()) return true;
            if (has_large(payload)) {
                bool captured;
                {
                    const GilReleased unlocked;
                    captured = is_captured(pool, groups);
                }
                if (captured) return refuse_captured();
                if (!copy_large_values(groups)) return false;
                if (engine.inherited()) return true;
            }
            bool sent;
            {
                const GilReleased unlocked;
                sent = send_groups(engine, pool, groups, chain);
            }
            if (!sent) return refuse_captured();
            for (Group& group : groups) note(payload, group);
            for (const Group& group : groups) {
                if (!group.by_driver) send_by_framework(pool, group);
            }
            if (engine.inherited()) return true;
            engine.core.count_device_values(pending_values(payload));
            if (pool.crowded()) engine.core.wake();
            return true;
        } catch (const std::bad_alloc&) {
            if (DevicePool* pool = DevicePool::existing()) pool->abandon(chain);
            chain = {};
            PyErr_NoMemory();
            return false;
        }
    });
}

void drop_kept() noexcept {
    python_call([] {
        DevicePool* pool = DevicePool::existing();
        void* references[kSlotsPerTicket];
        while (pool != nullptr && pool->has_kept()) {
            const std::size_t count = pool->take_kept(references);
            if (count == 0) return;
            for (std::size_t i = 0; i < count; ++i)
                Py_DECREF(static_cast<PyObject*>(references[i]));
        }
    });
}

void bind_device(py::module_& module) {
    DevicePool::watch_forks();
    if (!intern_names()) throw py::error_already_set();
    module.def(
        "deliver",
        [](const std::vector<std::uint32_t>& slots, const std::vector<py::object>& values) {
            if (slots.size() != values.size()) throw py::value_error("as many values as slots");
            DevicePool& pool = DevicePool::instance();
            for (std::size_t i = 0; i < slots.size(); ++i) {
                if (slots[i] >= DevicePool::kTickets * kSlotsPerTicket) {
                    throw py::value_error("no such slot");
                }
                PyObject* value = values[i].ptr();
                if (value == Py_None) continue;  // stays missing
                PayloadBuilder one;
                if (!one.begin(1) || !encode_value(one, 0, Py_None, value)) {
                    PyErr_Clear();
                    continue;
                }
                pool.deliver(slots[i], one.settled());
            }
            for (const std::uint32_t slot : slots) pool.delivered(slot);
        },
        py::arg("slots"), py::arg("values"),
        "Delivers values that a framework copied from a device; None for one that failed.");
    module.def(
        "metric_value",
        [](py::handle name, py::handle value) -> py::object {
            PayloadBuilder one;
            if (!one.begin(1) || !encode_value(one, 0, name.ptr(), value.ptr())) {
                throw py::error_already_set();
            }
            if (!one.device_arguments().empty()) {
                refuse(name.ptr(), value.ptr(), " here, as reading it would wait for its device");
                throw py::error_already_set();
            }
            const SettledValue found = one.settled();
            switch (found.tag) {
                case ValueTag::boolean:
                    return py::bool_(found.bits != 0);
                case ValueTag::integer:
                    return py::int_(static_cast<std::int64_t>(found.bits));
                case ValueTag::real:
                    return py::float_(std::bit_cast<double>(found.bits));
                case ValueTag::string:
                    return py::str(std::string(one.settled_text()));
                default:
                    return py::none();
            }
        },
        py::arg("name"), py::arg("value"),
        "Returns what record() writes for a value on the host; raises as record() does.");
    module.def(
        "prepare_device",
        [](int device_type, int index) {
            const GilReleased unlocked;
            DevicePool& pool = DevicePool::instance();
            const DeviceId device{kind_of(device_type), index};
            if (pool.has_driver(device.kind)) pool.prepare_ahead(device);
        },
        py::arg("device_type"), py::arg("index"),
        "Allocates what the first values of a device (of a DLPack type) need. The device must "
        "already be in use.");
    module.def(
        "ask_relaxed",
        [](int device_type, const py::function& function) {
            const RelaxedThread relaxed(kind_of(device_type));
            return function();
        },
        py::arg("device_type"), py::arg("function"),
        "Calls a function that queries a device, without invalidating another thread's graph "
        "capture.");
    module.def(
        "refuse_captured",
        [](const std::vector<py::object>& scalars) {
            PayloadBuilder payload;
            if (!payload.begin(scalars.size())) throw py::error_already_set();
            for (std::size_t i = 0; i < scalars.size(); ++i) {
                if (encode_value(payload, i, Py_None, scalars[i].ptr())) continue;
                if (!PyErr_ExceptionMatches(PyExc_Exception)) throw py::error_already_set();
                PyErr_Clear();  // not of a supported type, so not on a known device
            }
            std::vector<Group> groups;
            if (!group_by_device(payload, groups)) throw py::error_already_set();
            bool captured;
            {
                const GilReleased unlocked;
                captured = is_captured(DevicePool::instance(), groups);
            }
            if (captured && !refuse_captured()) throw py::error_already_set();
        },
        py::arg("scalars"),
        "Raises RuntimeError if the current stream of any of the tensors is being captured.");
    deliver = py::object(module.attr("deliver")).release().ptr();
}

}  // namespace fastlog::bindings
