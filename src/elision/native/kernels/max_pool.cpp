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

using namespace elision;

typedef int32_t vi __attribute__((vector_size(WIDTH * 4)));

// Visit every output pixel of a plane: its index, and the rows and columns of x that its
// window covers.
template <typename Visit>
void each_window(const Window& v, Visit visit) {
  for (int oy = 0; oy < v.out_h; ++oy) {
    int top = oy * v.stride_y - v.pad_y;
    int first_y = std::max(0, top), last_y = std::min(v.h, top + v.kernel_y);
    for (int ox = 0; ox < v.out_w; ++ox) {
      int left = ox * v.stride_x - v.pad_x;
      visit(oy * v.out_w + ox, first_y, last_y, std::max(0, left),
            std::min(v.w, left + v.kernel_x));
    }
  }
}

// Call work(offset, pixel) for every pixel of a window: where its lanes from `lane` on
// lie, and its index in the plane.
template <typename Work>
void each_pixel(const Window& v, int first_y, int last_y, int first_x, int last_x, int lane,
                Work work) {
  for (int y = first_y; y < last_y; ++y)
    for (int x = first_x; x < last_x; ++x)
      work(static_cast<size_t>(y * v.w + x) * LANES + lane, y * v.w + x);
}

}  // namespace

extern "C" void elision_max_pool_forward(const int* window, const float* x, float* y,
                                         int threads) {
  Window v;
  std::memcpy(&v, window, sizeof(Window));
  size_t in = static_cast<size_t>(v.h) * v.w * LANES;
  size_t out = static_cast<size_t>(v.out_h) * v.out_w * LANES;
  parallel(v.planes, threads, [&](int p) {
    const float* from = x + p * in;
    each_window(v, [&](int pixel, int y0, int y1, int x0, int x1) {
      for (int lane = 0; lane < LANES; lane += WIDTH) {
        vf best = splat(-INFINITY);
        each_pixel(v, y0, y1, x0, x1, lane, [&](size_t offset, int) {
          vf value = load(from + offset);
          best = (value > best) | (value != value) ? value : best;
        });
        store(y + p * out + static_cast<size_t>(pixel) * LANES + lane, best);
      }
    });
  });
}

extern "C" void elision_max_pool_backward(const int* window, const float* g,
                                          const float* x, float* dx, int threads) {
  Window v;
  std::memcpy(&v, window, sizeof(Window));
  size_t in = static_cast<size_t>(v.h) * v.w * LANES;
  size_t out = static_cast<size_t>(v.out_h) * v.out_w * LANES;
  parallel(v.planes, threads, [&](int p) {
    const float* from = x + p * in;
    float* to = dx + p * in;
    std::fill(to, to + in, 0.0f);
    each_window(v, [&](int pixel, int y0, int y1, int x0, int x1) {
      for (int lane = 0; lane < LANES; lane += WIDTH) {
        vf best = splat(-INFINITY);
        vi at = vi{} - 1;
        each_pixel(v, y0, y1, x0, x1, lane, [&](size_t offset, int index) {
          vf value = load(from + offset);
          vi wins = (value > best) | (value != value) | (at < 0);
          best = wins ? value : best;
          at = wins ? vi{} + index : at;
        });
        vf share = load(g + p * out + static_cast<size_t>(pixel) * LANES + lane);
        each_pixel(v, y0, y1, x0, x1, lane, [&](size_t offset, int index) {
          store(to + offset, load(to + offset) + (at == index ? share : vf{}));
        });
      }
    });
  });
}
