// One vector register of floats, and the two things plain C++ cannot say well:
// transposing a 16 x 16 square, and packing the survivors of a mask.
//
// Everything else is written with the compiler's own vector type, so that one source
// serves AVX-512 (16 floats a register), AVX2 (8) and anything else (4: SSE2, NEON).
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) && defined(__AVX512DQ__)
#define ELISION_AVX512 1
#include <immintrin.h>
#endif

namespace elision {

// Images (or tokens) that lie side by side in memory: the fast layout's unit.
constexpr int LANES = 16;

#if defined(ELISION_AVX512)
constexpr int WIDTH = 16;      // floats in one register
constexpr int REGISTERS = 18;  // accumulators a kernel may hold without spilling
#elif defined(__AVX2__)
constexpr int WIDTH = 8;
constexpr int REGISTERS = 12;
#else
constexpr int WIDTH = 4;
constexpr int REGISTERS = 12;
#endif

typedef float vf __attribute__((vector_size(WIDTH * 4)));
typedef float vf_any __attribute__((vector_size(WIDTH * 4), aligned(4), may_alias));

static inline vf load(const float* p) { return *reinterpret_cast<const vf_any*>(p); }
static inline void store(float* p, vf v) { *reinterpret_cast<vf_any*>(p) = v; }
// Minus zero changes no float, so it compiles to a broadcast; plus zero changes -0.
static inline vf splat(float s) { return s - vf{}; }

// Copy or clear one pixel of one channel: LANES floats.
static inline void copy_lanes(float* to, const float* from) {
  for (int i = 0; i < LANES; i += WIDTH) store(to + i, load(from + i));
}
static inline void clear_lanes(float* to) {
  for (int i = 0; i < LANES; i += WIDTH) store(to + i, vf{});
}

// Kept are the values whose magnitude is above the threshold, and NaN: dropping a NaN
// would hide it from the result.
static inline bool survives(float value, float threshold) {
  return !(std::fabs(value) <= threshold);
}

#if defined(ELISION_AVX512)

// to[j * to_stride + i] = from[i * from_stride + j] for i, j < 16.
static inline void transpose16(const float* from, ptrdiff_t from_stride, float* to,
                               ptrdiff_t to_stride) {
  __m512 a[16], b[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_ps(from + i * from_stride);
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    b[2 * i] = _mm512_unpacklo_ps(a[2 * i], a[2 * i + 1]);
    b[2 * i + 1] = _mm512_unpackhi_ps(a[2 * i], a[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      __m512d low = _mm512_castps_pd(b[4 * i + h]);
      __m512d high = _mm512_castps_pd(b[4 * i + 2 + h]);
      a[4 * i + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
      a[4 * i + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
    }
  }
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      __m512 low = a[8 * half + i], high = a[8 * half + 4 + i];
      b[8 * half + i] = _mm512_shuffle_f32x4(low, high, 0x88);
      b[8 * half + 4 + i] = _mm512_shuffle_f32x4(low, high, 0xdd);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    a[i] = _mm512_shuffle_f32x4(b[i], b[8 + i], 0x88);
    a[8 + i] = _mm512_shuffle_f32x4(b[i], b[8 + i], 0xdd);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) _mm512_storeu_ps(to + i * to_stride, a[i]);
}

// Append the survivors of 16 values, and of the 16 integers beside them, at `n`.
// Writes whole vectors: 16 spare elements must follow each output.
static inline int append16(const float* values, const int32_t* tags, int32_t shift,
                           float threshold, int live, float* out, int32_t* out_tags) {
  __m512 v = _mm512_loadu_ps(values);
  __mmask16 keep = _mm512_mask_cmp_ps_mask(
      static_cast<__mmask16>((1u << live) - 1), _mm512_abs_ps(v),
      _mm512_set1_ps(threshold), _CMP_NLE_UQ);
  __m512i t = _mm512_add_epi32(_mm512_loadu_si512(tags), _mm512_set1_epi32(shift));
  _mm512_storeu_ps(out, _mm512_maskz_compress_ps(keep, v));
  _mm512_storeu_si512(out_tags, _mm512_maskz_compress_epi32(keep, t));
  return __builtin_popcount(keep);
}

#else

typedef float quad __attribute__((vector_size(16)));
typedef float quad_any __attribute__((vector_size(16), aligned(4), may_alias));

static inline void transpose16(const float* from, ptrdiff_t from_stride, float* to,
                               ptrdiff_t to_stride) {
  for (int i = 0; i < 16; i += 4) {
    for (int j = 0; j < 16; j += 4) {
      quad a[4];
      for (int r = 0; r < 4; ++r)
        a[r] = *reinterpret_cast<const quad_any*>(from + (i + r) * from_stride + j);
      quad lo0 = __builtin_shufflevector(a[0], a[1], 0, 4, 1, 5);
      quad hi0 = __builtin_shufflevector(a[0], a[1], 2, 6, 3, 7);
      quad lo1 = __builtin_shufflevector(a[2], a[3], 0, 4, 1, 5);
      quad hi1 = __builtin_shufflevector(a[2], a[3], 2, 6, 3, 7);
      quad t[4] = {__builtin_shufflevector(lo0, lo1, 0, 1, 4, 5),
                   __builtin_shufflevector(lo0, lo1, 2, 3, 6, 7),
                   __builtin_shufflevector(hi0, hi1, 0, 1, 4, 5),
                   __builtin_shufflevector(hi0, hi1, 2, 3, 6, 7)};
      for (int r = 0; r < 4; ++r)
        *reinterpret_cast<quad_any*>(to + (j + r) * to_stride + i) = t[r];
    }
  }
}

static inline int append16(const float* values, const int32_t* tags, int32_t shift,
                           float threshold, int live, float* out, int32_t* out_tags) {
  int n = 0;
  for (int i = 0; i < live; ++i) {  // branch-free: a loser is overwritten
    out[n] = values[i];
    out_tags[n] = tags[i] + shift;
    n += survives(values[i], threshold);
  }
  return n;
}

#endif

}  // namespace elision
