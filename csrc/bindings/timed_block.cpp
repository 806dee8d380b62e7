#include "bindings/timed_block.hpp"

#include <new>

#include "bindings/device_send.hpp"
#include "bindings/gil.hpp"
#include "bindings/open_blocks.hpp"
#include "device/device_reader.hpp"

namespace fastlog::bindings {
namespace {

constinit OpenBlocks open_blocks;

// Gets a device and its current stream from the framework. `wanted` stays false without a device.
bool ask_stream(PyObject* which, DeviceBlock& block, void*& stream) {
    return python_call([&] {
        PyObject* function = device_function("block_stream");
        PyObject* facts =
            function != nullptr ? PyObject_CallFunctionObjArgs(function, which, nullptr) : nullptr;
        if (facts == nullptr) return false;
        bool ok = true;
        if (facts != Py_None) {
            int device_type = 0;
            unsigned long long handle = 0;
            ok = PyArg_ParseTuple(facts, "iiK", &device_type, &block.device.index, &handle) != 0;
            block.device.kind = kind_of(device_type);
            stream = reinterpret_cast<void*>(handle);
            block.wanted = ok;
        }
        Py_DECREF(facts);
        return ok;
    });
}

// In a forked child, the ticket is counted in the parent's statistics.
void give_back(std::uint16_t ticket, Engine& counted_by) noexcept {
    if (!counted_by.inherited()) counted_by.core.uncount_device_values(1);
    DevicePool::instance().abandon({ticket, ticket});
}

void drop(const OpenBlocks::Block& block) noexcept {
    if (open_blocks.take(block.ticket, block.number)) {
        give_back(block.ticket, *static_cast<Engine*>(block.counted_by));
    }
}

}  // namespace

bool begin_on_device(RecorderHandle& handle, PyObject* which, DeviceBlock& block) {
    void* stream = nullptr;
    if (!ask_stream(which, block, stream)) return false;
    if (!block.wanted) return true;
    Page* page = handle.ready(false);  // queried again: Python code has run
    if (page == nullptr) {
        block.missing = missing_bits(MissingReason::lost);
        return !PyErr_Occurred();
    }
    Engine* const engine = page->engine;
    DevicePool& pool = DevicePool::instance();
    try {
        const GilReleased unlocked;  // the driver may wait: see send_groups()
        if (pool.has_driver(block.device.kind) && pool.capture_error(block.device, stream) != 0) {
            block.missing = missing_bits(MissingReason::capture);
            return true;
        }
        engine->core.use_device([&] { return std::make_unique<DeviceReader>(pool); });
        block.ticket = pool.begin_block(block.device, stream, block.missing);
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
        return false;
    }
    if (block.ticket == kNoTicket) return true;
    engine->core.count_device_values(1);
    block.counted_by = engine;
    block.number = open_blocks.add(block.ticket, &handle, engine);
    return true;
}

void end_on_device(DeviceBlock& block) noexcept {
    if (block.ticket == kNoTicket) return;
    if (!open_blocks.take(block.ticket, block.number)) {
        block.ticket = kNoTicket;
        block.missing = missing_bits(MissingReason::lost);
        return;
    }
    if (DevicePool::in_forked_child()) return abandon(block, MissingReason::forked);
    PyObject* index = PyLong_FromLong(block.device.index);
    DeviceBlock now;
    void* stream = nullptr;
    if (index != nullptr && ask_stream(index, now, stream) && now.wanted) {
        const GilReleased unlocked;  // see above
        DevicePool::instance().end_block(block.ticket, stream);
    } else {
        PyErr_Clear();
        abandon(block, MissingReason::backend_error);
    }
    Py_XDECREF(index);
}

void abandon(DeviceBlock& block, MissingReason reason) noexcept {
    if (block.ticket == kNoTicket) return;
    give_back(block.ticket, *block.counted_by);
    block.ticket = kNoTicket;
    block.missing = missing_bits(reason);
}

void drop_block(DeviceBlock& block) noexcept {
    if (block.ticket == kNoTicket) return;
    drop({nullptr, block.counted_by, block.number, block.ticket});
    block.ticket = kNoTicket;
}

void drop_blocks_of_recorder(const RecorderHandle& recorder) noexcept {
    open_blocks.each([&](const OpenBlocks::Block& block) {
        if (block.recorder == &recorder) drop(block);
    });
}

}  // namespace fastlog::bindings
