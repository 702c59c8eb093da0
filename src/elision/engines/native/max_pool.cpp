// Max pooling in the blocked layout. Nothing is kept for the way back but x: the winner,
// the first of equals as in torch, is found again.

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "pool.hpp"
#include "vec.hpp"

namespace {

// As passed from Python: 11 integers in this order. The last window of a row may reach
// over the edge (ceil_mode).
struct Window {
  int planes, h, w, out_h, out_w;
  int kernel_y, kernel_x, stride_y, stride_x, pad_y, pad_x;
};

using elision::LANES;

// Visit every output pixel of a plane with its LANES maxima and their pixel indices.
template <typename Visit>
void pool_plane(const Window& v, const float* x, Visit visit) {
  for (int oy = 0; oy < v.out_h; ++oy) {
    for (int ox = 0; ox < v.out_w; ++ox) {
      float best[LANES];
      int32_t at[LANES];
      std::fill(best, best + LANES, -INFINITY);
      std::fill(at, at + LANES, -1);
      int top = oy * v.stride_y - v.pad_y, left = ox * v.stride_x - v.pad_x;
      for (int y = std::max(0, top); y < std::min(v.h, top + v.kernel_y); ++y) {
        for (int c = std::max(0, left); c < std::min(v.w, left + v.kernel_x); ++c) {
          const float* pixel = x + (static_cast<size_t>(y) * v.w + c) * LANES;
          int32_t index = y * v.w + c;
          for (int i = 0; i < LANES; ++i) {
            bool wins = (pixel[i] > best[i]) | (pixel[i] != pixel[i]) | (at[i] < 0);
            best[i] = wins ? pixel[i] : best[i];
            at[i] = wins ? index : at[i];
          }
        }
      }
      visit(oy * v.out_w + ox, best, at);
    }
  }
}

}  // namespace

extern "C" void elision_max_pool_forward(const int* window, const float* x, float* y,
                                         int threads) {
  Window v;
  std::memcpy(&v, window, sizeof(Window));
  size_t in = static_cast<size_t>(v.h) * v.w * LANES;
  size_t out = static_cast<size_t>(v.out_h) * v.out_w * LANES;
  elision::parallel(v.planes, threads, [&](int p) {
    pool_plane(v, x + p * in, [&](int pixel, const float* best, const int32_t*) {
      std::copy(best, best + LANES, y + p * out + static_cast<size_t>(pixel) * LANES);
    });
  });
}

extern "C" void elision_max_pool_backward(const int* window, const float* g,
                                          const float* x, float* dx, int threads) {
  Window v;
  std::memcpy(&v, window, sizeof(Window));
  size_t in = static_cast<size_t>(v.h) * v.w * LANES;
  size_t out = static_cast<size_t>(v.out_h) * v.out_w * LANES;
  elision::parallel(v.planes, threads, [&](int p) {
    float* to = dx + p * in;
    std::fill(to, to + in, 0.0f);
    pool_plane(v, x + p * in, [&](int pixel, const float*, const int32_t* at) {
      const float* from = g + p * out + static_cast<size_t>(pixel) * LANES;
      for (int i = 0; i < LANES; ++i)
        to[static_cast<size_t>(at[i]) * LANES + i] += from[i];
    });
  });
}
