// Hands a frame to others by the Arrow C data interface, without a copy.
#pragma once

#include <memory>

#include "reader/arrow_abi.h"
#include "reader/frame.hpp"

namespace fastlog::reader {

/// Fills `out` with the frame's schema; throws std::bad_alloc.
void export_schema(const Frame& frame, ArrowSchema* out);

/// Fills `out` with a stream of the frame's batches, which keeps the frame. Each stream gives all of
/// it. Throws std::bad_alloc.
void export_stream(std::shared_ptr<const Frame> frame, ArrowArrayStream* out);

}  // namespace fastlog::reader
