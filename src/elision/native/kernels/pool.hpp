// `parallel(tasks, threads, work)` calls work(task) for every task, on several threads.
//
// Where torch computes on GNU's OpenMP, its threads are used: they are awake after a
// product of torch's, and a second set would take turns with them on the same cores. No
// setting of that runtime is read or changed. Elsewhere, and in a forked child, where
// that runtime would hang, the threads are our own. Which thread runs a task never
// changes a result: every task writes to memory of its own.
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
