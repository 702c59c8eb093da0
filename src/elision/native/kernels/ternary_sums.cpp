// Products of 8-bit activations with ternary weights by additions alone.
//
// The activations of 32 pixels lie side by side in 16 bits. Columns come in pairs (a, b),
// and what two ternary weights can make of a pair is a table of eight vectors: a, -a, b,
// -b, a + b, -a - b, a - b, b - a, made once for all rows and terms. A weight row is the
// list of its vectors in each table, pairs of zeros left out: about 0.4 additions a weight
// of Gaussian weights, and one float multiplication a term and 64 columns for its scale.
//
// A sum of 64 columns is at most 64 * 128 and fits 16 bits; larger blocks are cut.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <vector>

#include "pool.hpp"

namespace elision {
namespace {

constexpr int PIXELS = 32;
constexpr int HALF = PIXELS / 2;
constexpr int COLUMNS = 64;              // of a table
constexpr int ENTRIES = 4 * COLUMNS + 1;  // eight a pair; the first is zero

typedef int16_t shorts __attribute__((vector_size(2 * HALF), aligned(2), may_alias));
typedef int32_t ints __attribute__((vector_size(4 * HALF)));
typedef float floats __attribute__((vector_size(4 * HALF)));
typedef float floats_any __attribute__((vector_size(4 * HALF), aligned(4), may_alias));

// How Python passes a product: the integers of `elision_ternary_sums` in order.
struct Plan {
  int batch, height, width, first_channel, inner;  // padded planes, channels of the group
  int kernel_height, kernel_width, stride_height, stride_width;
  int dilation_height, dilation_width, out_height, out_width;
  int rows, first_row, all_rows, tables, columns;
};

// Places of eight neighbouring output pixels in a plane; `together` if they are neighbours.
struct Eight {
  int64_t place[8];
  bool together;
};

}  // namespace
}  // namespace elision

using namespace elision;

// Images (N, C, H, W) to 16-bit planes (C, N, H + padding, W + padding), the padding filled
// with `zero`: round(x / step) + zero, clipped to [-128, 127]. Returns 1 if all are finite.
extern "C" int elision_ternary_planes(const float* x, int16_t* q, const int* v, float step,
                                      int zero, int threads) {
  int batch = v[0], channels = v[1], height = v[2], width = v[3];
  int top = v[4], left = v[5], full_height = v[6], full_width = v[7];
  std::atomic<int> finite{1};
  float inverse = 1.0f / step;
  // Adding 1.5 * 2^23 and taking it away rounds to the nearest whole number, ties to even.
  const float whole = 12582912.0f;
  parallel(channels, threads, [&](int c) {
    float worst = 0;
    for (int image = 0; image < batch; ++image) {
      int16_t* plane =
          q + (static_cast<int64_t>(c) * batch + image) * full_height * full_width;
      std::fill(plane, plane + static_cast<int64_t>(full_height) * full_width,
                static_cast<int16_t>(zero));
      for (int y = 0; y < height; ++y) {
        const float* from =
            x + ((static_cast<int64_t>(image) * channels + c) * height + y) * width;
        int16_t* to = plane + static_cast<int64_t>(y + top) * full_width + left;
        for (int i = 0; i < width; ++i) {
          worst += from[i] * 0.0f;  // stays 0, or becomes NaN
          float scaled = std::min(std::max(from[i] * inverse, -1024.0f), 1024.0f);
          float value = (scaled + whole) - whole + static_cast<float>(zero);
          to[i] = static_cast<int16_t>(std::min(std::max(value, -128.0f), 127.0f));
        }
      }
    }
    if (!(worst == 0)) finite.store(0);
  });
  return finite.load();
}

// y (N, all_rows, out_height, out_width). For table t and row k, places[t * rows + k] is the
// first of counts[t * rows + k] enabled units; unit u adds the entries starts[u] to
// starts[u + 1], a multiple of four, times scales[u]. begins[t]: first column of table t.
extern "C" int elision_ternary_sums(const int* v, const int16_t* x, const int16_t* entries,
                                    const int32_t* starts, const float* scales,
                                    const int32_t* places, const uint8_t* counts,
                                    const int32_t* begins, const float* bias, float step,
                                    float* y, int threads) {
  Plan s;
  std::memcpy(&s, v, sizeof s);
  int64_t area = static_cast<int64_t>(s.out_height) * s.out_width;
  int64_t pixels = area * s.batch;
  int64_t plane = static_cast<int64_t>(s.batch) * s.height * s.width;
  int tasks = static_cast<int>((pixels + PIXELS - 1) / PIXELS);
  std::vector<int64_t> taps;  // place of each column's first pixel
  for (int r = 0; r < s.kernel_height; ++r)
    for (int q = 0; q < s.kernel_width; ++q)
      for (int c = 0; c < s.inner; ++c)
        taps.push_back((s.first_channel + c) * plane +
                       static_cast<int64_t>(r) * s.dilation_height * s.width +
                       q * s.dilation_width);
  std::atomic<int> failed{0};
  parallel(tasks, threads, [&](int task) {
    try {
      int64_t begin = static_cast<int64_t>(task) * PIXELS;
      int live = static_cast<int>(std::min<int64_t>(PIXELS, pixels - begin));
      Eight eights[PIXELS / 8];
      for (int p = 0; p < PIXELS; ++p) {
        int64_t pixel = begin + std::min(p, live - 1);
        int64_t image = pixel / area, rest = pixel % area;
        int64_t row = rest / s.out_width * s.stride_height;
        int64_t column = rest % s.out_width * s.stride_width;
        eights[p / 8].place[p % 8] = (image * s.height + row) * s.width + column;
      }
      for (Eight& e : eights) {
        e.together = true;
        for (int i = 1; i < 8; ++i) e.together &= e.place[i] == e.place[0] + i;
      }
      std::vector<float> totals(static_cast<size_t>(s.rows) * PIXELS, 0.0f);
      std::vector<int16_t> table(static_cast<size_t>(ENTRIES) * PIXELS, 0);
      int16_t pair[2][PIXELS];
      for (int t = 0; t < s.tables; ++t) {
        for (int column = begins[t]; column < begins[t + 1]; column += 2) {
          for (int half = 0; half < 2; ++half) {
            if (column + half >= begins[t + 1]) {
              std::memset(pair[half], 0, sizeof pair[half]);
              continue;
            }
            const int16_t* from = x + taps[column + half];
            for (int g = 0; g < PIXELS / 8; ++g) {
              const Eight& e = eights[g];
              int16_t* to = pair[half] + 8 * g;
              if (e.together)
                std::memcpy(to, from + e.place[0], 16);
              else
                for (int i = 0; i < 8; ++i) to[i] = from[e.place[i]];
            }
          }
          int16_t* made = table.data() + (1 + 4 * (column - begins[t])) * PIXELS;
          for (int h = 0; h < PIXELS; h += HALF) {
            shorts a = *reinterpret_cast<const shorts*>(pair[0] + h);
            shorts b = *reinterpret_cast<const shorts*>(pair[1] + h);
            shorts all[8] = {a, -a, b, -b, a + b, -a - b, a - b, b - a};
            for (int i = 0; i < 8; ++i)
              *reinterpret_cast<shorts*>(made + i * PIXELS + h) = all[i];
          }
        }
        const int32_t* first = places + static_cast<int64_t>(t) * s.rows;
        const uint8_t* enabled = counts + static_cast<int64_t>(t) * s.rows;
        for (int k = 0; k < s.rows; ++k) {
          float* total = totals.data() + static_cast<size_t>(k) * PIXELS;
          for (int32_t u = first[k]; u < first[k] + enabled[k]; ++u) {
            shorts low = {}, high = {};
            const int16_t* end = entries + starts[u + 1];
            for (const int16_t* e = entries + starts[u]; e < end; e += 4) {
#pragma GCC unroll 4
              for (int i = 0; i < 4; ++i) {
                const int16_t* from = table.data() + static_cast<int64_t>(e[i]) * PIXELS;
                low += *reinterpret_cast<const shorts*>(from);
                high += *reinterpret_cast<const shorts*>(from + HALF);
              }
            }
            floats_any* to = reinterpret_cast<floats_any*>(total);
            to[0] += scales[u] * __builtin_convertvector(low, floats);
            to[1] += scales[u] * __builtin_convertvector(high, floats);
          }
        }
      }
      for (int k = 0; k < s.rows; ++k) {
        const float* total = totals.data() + static_cast<size_t>(k) * PIXELS;
        for (int p = 0; p < live; ++p) {
          int64_t pixel = begin + p;
          y[(pixel / area * s.all_rows + s.first_row + k) * area + pixel % area] =
              step * total[p] + bias[k];
        }
      }
    } catch (...) {
      failed.store(1);
    }
  });
  return failed.load() ? -1 : 0;
}
