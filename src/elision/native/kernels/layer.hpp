// One recurrent layer in one direction as Python passes it, and the order of its steps.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace elision {

// As passed from Python. Pointers may be null where the comment says so. States, cells and
// biases are floats; the other values are floats or shorter.
template <typename Value>
struct LayerOf {
  int64_t steps, inputs, units, reverse, threads;
  int64_t wants_first;   // whether the first states' gradients are asked for
  const int64_t* sizes;  // sequences of each step
  const Value *x, *w_ih, *w_hh;
  const float *b_ih, *b_hh;  // null without bias
  const float *h0, *c0;      // [sequences][units]; c0 null without cells
  Value* gates;              // [block][tokens][64]
  float* cells;              // [block][tokens + sequences][16]
  Value* y;
  float *hn, *cn;
  // Backward alone.
  const Value* dy;
  float *dh, *dc;  // of the last states on the way in, of the first on the way out
  Value *dx, *dw_ih, *dw_hh;  // dx: null where not wanted
  float *db_ih, *db_hh;       // null where not wanted
};

using Layer = LayerOf<float>;

// Where a step's rows and those of the step before (in the order of computing) lie.
struct Step {
  int token, rows;          // first token, number of rows
  int before, continued;    // first token of the step before; rows that it has, too
};

// In the order of computing. Row n of every step is sequence n.
template <typename Value>
std::vector<Step> steps_of(const LayerOf<Value>& v) {
  std::vector<int> first(v.steps + 1, 0);
  for (int t = 0; t < v.steps; ++t) first[t + 1] = first[t] + static_cast<int>(v.sizes[t]);
  std::vector<Step> order;
  int last = static_cast<int>(v.steps) - 1;
  for (int s = 0; s <= last; ++s) {
    int t = v.reverse ? last - s : s, before = v.reverse ? t + 1 : t - 1;
    int rows = static_cast<int>(v.sizes[t]);
    int continued = s == 0 ? 0 : std::min(rows, static_cast<int>(v.sizes[before]));
    order.push_back({first[t], rows, s == 0 ? 0 : first[before], continued});
  }
  return order;
}

}  // namespace elision
