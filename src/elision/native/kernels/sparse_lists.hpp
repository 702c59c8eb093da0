// Products of the lists of a weight's non-zeros with rows of lanes.
#pragma once

#include <algorithm>
#include <cstdint>

#include "vec.hpp"

namespace elision {

// The weights that are not zero, [gates · units][columns], by rows and by columns. Places are
// ascending within a list.
struct Lists {
  int64_t rows, columns;
  const int32_t *row_start, *row_place;        // [rows + 1], column of each
  const int32_t *column_start, *column_place;  // [columns + 1], row of each
  const float *row_values, *column_values;
};

// sums[v] = start + the sum over a list of value · row; several partial sums of each hide the
// latency of an addition where a row is short.
template <int REGS>
inline void sum_list(const int32_t* place, const float* value, int count, const float* rows,
                     const float* start, float* out) {
  constexpr int LANES_ = REGS * WIDTH, PARTS = REGS >= 8 ? 1 : REGS >= 4 ? 2 : 4;
  vf sum[PARTS][REGS];
#pragma GCC unroll 4
  for (int p = 0; p < PARTS; ++p)
#pragma GCC unroll 16
    for (int j = 0; j < REGS; ++j) sum[p][j] = p == 0 && start ? load(start + j * WIDTH) : vf{};
  int n = 0;
  for (; n + PARTS <= count; n += PARTS) {
#pragma GCC unroll 4
    for (int p = 0; p < PARTS; ++p) {
      vf w = splat(value[n + p]);
      const float* row = rows + static_cast<ptrdiff_t>(place[n + p]) * LANES_;
#pragma GCC unroll 16
      for (int j = 0; j < REGS; ++j) sum[p][j] += w * load(row + j * WIDTH);
    }
  }
  for (; n < count; ++n) {
    vf w = splat(value[n]);
    const float* row = rows + static_cast<ptrdiff_t>(place[n]) * LANES_;
#pragma GCC unroll 16
    for (int j = 0; j < REGS; ++j) sum[0][j] += w * load(row + j * WIDTH);
  }
#pragma GCC unroll 16
  for (int j = 0; j < REGS; ++j) {
    vf total = sum[0][j];
#pragma GCC unroll 4
    for (int p = 1; p < PARTS; ++p) total += sum[p][j];
    store(out + j * WIDTH, total);
  }
}

// Products of one row with the rows of a list, summed over `blocks` blocks of lanes and added
// to `sums`. Sixteen at a time: their registers are transposed and added.
template <int REGS>
inline void dot_list(const int32_t* place, int count, const float* row, ptrdiff_t row_step,
                     const float* others, ptrdiff_t other_step, int blocks, float* sums) {
  constexpr int LANES_ = REGS * WIDTH, TOGETHER = 4;
  for (int n = 0; n < count; n += 16) {
    alignas(64) float parts[16 * 16] = {};
    int live = std::min(16, count - n);
    for (int m = 0; m < live; m += TOGETHER) {
      const float* other[TOGETHER];
      for (int e = 0; e < TOGETHER; ++e)  // past the end: the last again, not added
        other[e] =
            others + static_cast<ptrdiff_t>(place[n + std::min(m + e, live - 1)]) * LANES_;
      vf sum[TOGETHER] = {};
      const float* own = row;
      ptrdiff_t at = 0;
      for (int b = 0; b < blocks; ++b, own += row_step, at += other_step) {
#pragma GCC unroll 16
        for (int j = 0; j < REGS; ++j) {
          vf value = load(own + j * WIDTH);
#pragma GCC unroll 4
          for (int e = 0; e < TOGETHER; ++e)
            sum[e] += value * load(other[e] + at + j * WIDTH);
        }
      }
#pragma GCC unroll 4
      for (int e = 0; e < TOGETHER; ++e) store(parts + (m + e) * 16, sum[e]);
    }
    alignas(64) float turned[16 * 16];
    transpose16(parts, 16, turned, 16);
    float total[16] = {};
    for (int i = 0; i < WIDTH; ++i)
      for (int j = 0; j < 16; ++j) total[j] += turned[16 * i + j];
    for (int j = 0; j < live; ++j) sums[n + j] += total[j];
  }
}

}  // namespace elision
