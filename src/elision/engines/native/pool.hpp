// Threads of our own: `parallel(tasks, threads, work)` calls work(task) for every task.
//
// Not OpenMP: its runtime belongs to torch, has global settings, and hangs in a child
// that was forked after its first use. Which thread runs a task never changes a result:
// every task writes to memory of its own.
#pragma once

#include <cstddef>
#include <functional>

namespace elision {

void parallel(int tasks, int threads, const std::function<void(int)>& work);

// 64-byte aligned memory of the calling thread, kept for the next call. `slot` tells
// buffers apart that are alive together.
float* scratch(int slot, size_t floats);
constexpr int SCRATCH_SLOTS = 6;

}  // namespace elision
