// What this machine can do at most: multiply-adds in registers, words from and to memory,
// and one load that waits for another.
#include "pool.hpp"
#include "vec.hpp"

using namespace elision;

namespace {

// Independent sums: more than latency times throughput of a multiply-add on any core
// (4 cycles x 2), and few enough for 16 registers.
constexpr int SUMS = 12;

float chains(int64_t steps, float factor) {
  vf sum[SUMS], by = splat(factor), add = splat(1.0f - factor);
#pragma GCC unroll 12
  for (int i = 0; i < SUMS; ++i) sum[i] = splat(2.0f + static_cast<float>(i));
  for (int64_t s = 0; s < steps; ++s) {
#pragma GCC unroll 12
    for (int i = 0; i < SUMS; ++i) sum[i] = sum[i] * by + add;
  }
  // Unrolled as well: one loop that is not would keep the sums in memory.
#pragma GCC unroll 12
  for (int i = 1; i < SUMS; ++i) sum[0] += sum[i];
  float values[WIDTH];
  store(values, sum[0]);
  return values[0];
}

}  // namespace

extern "C" {

// Multiply-adds of `steps` steps on each of `threads` threads; two operations each. The
// factor, in (0, 1), is given so that nothing can be computed in advance.
int64_t elision_multiply_adds(int64_t steps, float factor, int threads, float* out) {
  parallel(threads, threads, [&](int task) { out[task] = chains(steps, factor); });
  return steps * SUMS * WIDTH * threads;
}

// a = b + factor · c, the triad of STREAM.
void elision_triad(float* a, const float* b, const float* c, float factor, int64_t count,
                   int threads) {
  parallel(threads, threads, [&](int task) {
    int64_t begin = count * task / threads, end = count * (task + 1) / threads;
    for (int64_t i = begin; i < end; ++i) a[i] = b[i] + factor * c[i];
  });
}

// Follows next[next[...]]; every load waits for the one before.
int64_t elision_chase(const int64_t* next, int64_t steps) {
  int64_t at = 0;
  for (int64_t s = 0; s < steps; ++s) at = next[at];
  return at;
}

}  // extern "C"
