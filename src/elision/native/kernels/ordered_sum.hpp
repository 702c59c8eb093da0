// out[m, n] = sum over t of a[m, t] b[t, n], by sizes and strides, so that a convolution
// needs no unfolded image (elision/products/terms.py).
#pragma once

#include <cstdint>
#include <vector>

namespace elision {

// An index of up to three axes, the last fastest, over two tensors.
struct Index {
  int64_t sizes[3], strides[2][3];
};

// Filled in, in this order, by elision/engines/accumulating/kernel.py.
struct Sum {
  int64_t groups;
  Index m, t, n;  // strides in (a, out), (a, b), (b, out)
  int64_t a, b, out;  // where group 0 begins
  int64_t a_group, b_group, out_group;
};

// Offsets that an index walks in one of its tensors.
inline std::vector<int64_t> walk(const Index& of, int tensor) {
  const int64_t *n = of.sizes, *by = of.strides[tensor];
  std::vector<int64_t> offsets;
  offsets.reserve(n[0] * n[1] * n[2]);
  for (int64_t i = 0; i < n[0]; ++i)
    for (int64_t j = 0; j < n[1]; ++j)
      for (int64_t k = 0; k < n[2]; ++k) offsets.push_back(i * by[0] + j * by[1] + k * by[2]);
  return offsets;
}

}  // namespace elision
