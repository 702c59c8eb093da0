// Products of 8-bit activations with ternary weights, packed in two bits each.
//
// y[pixel][row] = step * sum over blocks b, terms r of scale[r][row][b] * S, where S is the
// sum of the activations where the term's code is +1 minus that where it is -1, exact in
// integers. x86 has no masked byte sum that widens, so S comes as sum (t + 1) x - sum x:
// codes t + 1 in {0, 1, 2} are the unsigned operand of maddubs, which adds pairs into 16
// bits, and the second sum is shared by all rows and terms. Two bits a weight travel from
// memory to the register, and one float multiplication is left a block, term and output.
//
// Sixteen bits hold a block of 256: 2 * 2 * 128 = 512 a step and 64 steps make at most
// 32768 below zero and 32512 above.
//
// Weights: for each 16 rows, block and term, 64 bytes for each 16 columns: [row][4 bytes],
// where bits 2i and 2i + 1 of byte j hold the code of column 4i + j.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "pool.hpp"

namespace elision {
namespace {

constexpr int ROWS = 16;   // outputs computed at once
constexpr int PIXELS = 4;  // and pixels: 2 x 4 sums, codes and a broadcast fill AVX2
constexpr int STEP = 16;   // columns of one packed word

// How Python passes a product: the integers of `elision_ternary_forward` in order.
struct Shape {
  int batch, height, width, channels;   // of the padded 8-bit images, channels innermost
  int first_channel, inner;             // channels that this group reads
  int kernel_height, kernel_width, stride_height, stride_width;
  int dilation_height, dilation_width, out_height, out_width;
  int rows, first_row, all_rows;        // outputs of this group, of the layer
  int blocks, block, columns;           // columns = kernel_height * kernel_width * inner

  int padded() const { return (block + STEP - 1) / STEP * STEP; }
  int row_groups() const { return (rows + ROWS - 1) / ROWS; }
  int64_t pixels() const {
    return static_cast<int64_t>(batch) * out_height * out_width;
  }
};

// The window of one output pixel, each block at a multiple of 16 columns, and its sums.
void lower(const Shape& s, const int8_t* x, int64_t pixel, int8_t* flat, int8_t* patch,
           int32_t* sums) {
  int column = static_cast<int>(pixel % s.out_width);
  int64_t rest = pixel / s.out_width;
  int row = static_cast<int>(rest % s.out_height);
  int64_t image = rest / s.out_height;
  int padded = s.padded();
  bool together = s.block == padded || s.blocks == 1;
  int8_t* to = together ? patch : flat;
  for (int r = 0; r < s.kernel_height; ++r) {
    int y = row * s.stride_height + r * s.dilation_height;
    for (int q = 0; q < s.kernel_width; ++q) {
      int z = column * s.stride_width + q * s.dilation_width;
      const int8_t* from =
          x + ((image * s.height + y) * s.width + z) * s.channels + s.first_channel;
      std::memcpy(to, from, s.inner);
      to += s.inner;
    }
  }
  if (together) std::memset(to, 0, patch + s.blocks * padded - to);
  for (int b = 0; b < s.blocks; ++b) {
    int8_t* own = patch + b * padded;
    if (!together) {
      int length = std::min(s.block, s.columns - b * s.block);
      std::memcpy(own, flat + b * s.block, length);
      std::memset(own + length, 0, padded - length);
    }
    int32_t sum = 0;
    for (int i = 0; i < padded; ++i) sum += own[i];
    sums[b] = sum;
  }
}

#if defined(__AVX512BW__)
constexpr int PARTS = 1;
typedef __m512i Codes;
typedef __m512 Totals;
inline Codes load_codes(const uint8_t* p) { return _mm512_loadu_si512(p); }
inline Codes field(Codes v, int i) {
  return _mm512_and_si512(_mm512_srl_epi16(v, _mm_cvtsi32_si128(2 * i)),
                          _mm512_set1_epi8(3));
}
inline Codes added(Codes sum, Codes codes, int four) {
  return _mm512_add_epi16(sum, _mm512_maddubs_epi16(codes, _mm512_set1_epi32(four)));
}
inline Totals scaled(Codes sum, int32_t all, const float* scale, Totals total) {
  __m512i wide = _mm512_madd_epi16(sum, _mm512_set1_epi16(1));
  __m512 value = _mm512_cvtepi32_ps(_mm512_sub_epi32(wide, _mm512_set1_epi32(all)));
  return _mm512_fmadd_ps(_mm512_loadu_ps(scale), value, total);
}
inline Codes no_codes() { return _mm512_setzero_si512(); }
inline Totals no_totals() { return _mm512_setzero_ps(); }
inline void store_totals(float* p, Totals v) { _mm512_storeu_ps(p, v); }
#elif defined(__AVX2__)
constexpr int PARTS = 2;
typedef __m256i Codes;
typedef __m256 Totals;
inline Codes load_codes(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
inline Codes field(Codes v, int i) {
  return _mm256_and_si256(_mm256_srl_epi16(v, _mm_cvtsi32_si128(2 * i)),
                          _mm256_set1_epi8(3));
}
inline Codes added(Codes sum, Codes codes, int four) {
  return _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes, _mm256_set1_epi32(four)));
}
inline Totals scaled(Codes sum, int32_t all, const float* scale, Totals total) {
  __m256i wide = _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
  __m256 value = _mm256_cvtepi32_ps(_mm256_sub_epi32(wide, _mm256_set1_epi32(all)));
  return _mm256_fmadd_ps(_mm256_loadu_ps(scale), value, total);
}
inline Codes no_codes() { return _mm256_setzero_si256(); }
inline Totals no_totals() { return _mm256_setzero_ps(); }
inline void store_totals(float* p, Totals v) { _mm256_storeu_ps(p, v); }
#endif

// Sixteen rows of `count` pixels, over all blocks and the enabled terms of each.
#if defined(__AVX2__)
template <int COUNT>
void tile(const Shape& s, const int8_t* const* patches, const int32_t* const* sums,
          const uint8_t* codes, const float* scales, const int32_t* places,
          const uint8_t* counts, float (*out)[ROWS]) {
  int words = s.padded() / STEP;
  Totals total[COUNT][PARTS];
  for (int p = 0; p < COUNT; ++p)
    for (int h = 0; h < PARTS; ++h) total[p][h] = no_totals();
  for (int b = 0; b < s.blocks; ++b) {
    for (int t = 0; t < counts[b]; ++t) {
      int64_t unit = places[b] + t;
      const uint8_t* packed = codes + unit * words * 4 * ROWS;
      Codes sum[COUNT][PARTS];
      for (int p = 0; p < COUNT; ++p)
        for (int h = 0; h < PARTS; ++h) sum[p][h] = no_codes();
      for (int w = 0; w < words; ++w) {
        Codes word[PARTS];
        for (int h = 0; h < PARTS; ++h)
          word[h] = load_codes(packed + (w * PARTS + h) * (4 * ROWS / PARTS));
        int column = b * s.padded() + w * STEP;
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
          Codes part[PARTS];
          for (int h = 0; h < PARTS; ++h) part[h] = field(word[h], i);
#pragma GCC unroll 4
          for (int p = 0; p < COUNT; ++p) {
            int four;
            std::memcpy(&four, patches[p] + column + 4 * i, 4);
            for (int h = 0; h < PARTS; ++h) sum[p][h] = added(sum[p][h], part[h], four);
          }
        }
      }
      const float* scale = scales + unit * ROWS;
      for (int p = 0; p < COUNT; ++p)
        for (int h = 0; h < PARTS; ++h)
          total[p][h] =
              scaled(sum[p][h], sums[p][b], scale + h * (ROWS / PARTS), total[p][h]);
    }
  }
  for (int p = 0; p < COUNT; ++p)
    for (int h = 0; h < PARTS; ++h)
      store_totals(out[p] + h * (ROWS / PARTS), total[p][h]);
}
#else
template <int COUNT>
void tile(const Shape& s, const int8_t* const* patches, const int32_t* const* sums,
          const uint8_t* codes, const float* scales, const int32_t* places,
          const uint8_t* counts, float (*out)[ROWS]) {
  int words = s.padded() / STEP;
  for (int p = 0; p < COUNT; ++p) std::fill(out[p], out[p] + ROWS, 0.0f);
  for (int b = 0; b < s.blocks; ++b) {
    for (int t = 0; t < counts[b]; ++t) {
      int64_t unit = places[b] + t;
      const uint8_t* packed = codes + unit * words * 4 * ROWS;
      const float* scale = scales + unit * ROWS;
      for (int p = 0; p < COUNT; ++p) {
        const int8_t* patch = patches[p] + b * s.padded();
        for (int row = 0; row < ROWS; ++row) {
          int32_t sum = 0;
          for (int w = 0; w < words; ++w) {
            const uint8_t* word = packed + (w * ROWS + row) * 4;
            for (int i = 0; i < 4; ++i)
              for (int j = 0; j < 4; ++j)
                sum += (word[j] >> (2 * i) & 3) * patch[w * STEP + 4 * i + j];
          }
          out[p][row] += scale[row] * static_cast<float>(sum - sums[p][b]);
        }
      }
    }
  }
}
#endif

}  // namespace
}  // namespace elision

using namespace elision;

// Images (N, C, H, W) to 8 bits, (N, H + padding, W + padding, C), padding filled with
// `zero`: round(x / step) + zero, clipped to [-128, 127]. Returns 1 if all x are finite.
extern "C" int elision_ternary_quantise(const float* x, int8_t* q, const int* v,
                                        float step, int zero, int threads) {
  int batch = v[0], channels = v[1], height = v[2], width = v[3];
  int top = v[4], left = v[5], full_height = v[6], full_width = v[7];
  std::atomic<int> finite{1};
  float inverse = 1.0f / step;
  // Adding 1.5 * 2^23 and taking it away rounds to the nearest whole number, ties to even.
  const float whole = 12582912.0f;
  parallel(batch * full_height, threads, [&](int task) {
    int image = task / full_height, y = task % full_height - top;
    int8_t* line = q + static_cast<int64_t>(task) * full_width * channels;
    std::memset(line, zero, static_cast<size_t>(full_width) * channels);
    if (y < 0 || y >= height) return;
    float worst = 0;
    for (int c = 0; c < channels; ++c) {
      const float* from =
          x + ((static_cast<int64_t>(image) * channels + c) * height + y) * width;
      int8_t* to = line + static_cast<int64_t>(left) * channels + c;
      for (int i = 0; i < width; ++i) {
        worst += from[i] * 0.0f;  // stays 0, or becomes NaN
        float scaled = std::min(std::max(from[i] * inverse, -1024.0f), 1024.0f);
        float value = (scaled + whole) - whole + static_cast<float>(zero);
        value = std::min(std::max(value, -128.0f), 127.0f);
        to[static_cast<int64_t>(i) * channels] = static_cast<int8_t>(value);
      }
    }
    if (!(worst == 0)) finite.store(0);
  });
  return finite.load();
}

// y (N, all_rows, out_height, out_width) from quantised images and packed weights.
// places, counts: (row groups, blocks), the first term of a block and how many are enabled.
extern "C" int elision_ternary_forward(const int* v, const int8_t* x,
                                       const uint8_t* codes, const float* scales,
                                       const int32_t* places, const uint8_t* counts,
                                       const float* bias, float step, float* y,
                                       int threads) {
  Shape s;
  std::memcpy(&s, v, sizeof s);
  int width = s.blocks * s.padded();
  int64_t pixels = s.pixels();
  int64_t area = static_cast<int64_t>(s.out_height) * s.out_width;
  // Windows of a chunk stay in the second cache while every row of weights passes.
  int chunk = std::max(PIXELS, std::min(64, 131072 / std::max(width, 1)) / PIXELS * PIXELS);
  int tasks = static_cast<int>((pixels + chunk - 1) / chunk);
  std::atomic<int> failed{0};
  parallel(tasks, threads, [&](int task) {
    try {
      int64_t begin = static_cast<int64_t>(task) * chunk;
      int live = static_cast<int>(std::min<int64_t>(chunk, pixels - begin));
      std::vector<int8_t> patches(static_cast<size_t>(live) * width), flat(s.columns);
      std::vector<int32_t> sums(static_cast<size_t>(live) * s.blocks);
      for (int p = 0; p < live; ++p)
        lower(s, x, begin + p, flat.data(), patches.data() + static_cast<size_t>(p) * width,
              sums.data() + static_cast<size_t>(p) * s.blocks);
      for (int group = 0; group < s.row_groups(); ++group) {
        const int32_t* where = places + static_cast<int64_t>(group) * s.blocks;
        const uint8_t* enabled = counts + static_cast<int64_t>(group) * s.blocks;
        int rows = std::min(ROWS, s.rows - group * ROWS);
        for (int first = 0; first < live; first += PIXELS) {
          const int8_t* windows[PIXELS];
          const int32_t* totals[PIXELS];
          int here = std::min(PIXELS, live - first);
          for (int p = 0; p < PIXELS; ++p) {
            int own = first + std::min(p, here - 1);
            windows[p] = patches.data() + static_cast<size_t>(own) * width;
            totals[p] = sums.data() + static_cast<size_t>(own) * s.blocks;
          }
          float out[PIXELS][ROWS];
          if (here == 1)
            tile<1>(s, windows, totals, codes, scales, where, enabled, out);
          else
            tile<PIXELS>(s, windows, totals, codes, scales, where, enabled, out);
          for (int p = 0; p < here; ++p) {
            int64_t pixel = begin + first + p;
            int64_t row = pixel / area * s.all_rows + s.first_row + group * ROWS;
            float* to = y + row * area + pixel % area;
            for (int k = 0; k < rows; ++k)
              to[k * area] = step * out[p][k] + bias[group * ROWS + k];
          }
        }
      }
    } catch (...) {
      failed.store(1);
    }
  });
  return failed.load() ? -1 : 0;
}
