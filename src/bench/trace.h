#pragma once

#include <c10/core/Device.h>

#include <filesystem>

#include "base/json.h"

namespace oryx::bench {

// torch's profiler (Kineto) over this process, from start_trace to stop_trace in the same thread.
void start_trace(c10::Device device);

// Writes what happened as a Chrome trace (chrome://tracing, ui.perfetto.dev) and returns it summed up by name:
//   file, by ("self" time of operations on the CPU | time of "kernels" on a GPU), ms (in all of them),
//   rows [{name, calls, ms, share}], longest first
// The file should end in .json.
Json stop_trace(c10::Device device, const std::filesystem::path& file);

}  // namespace oryx::bench
