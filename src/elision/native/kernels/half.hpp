// Half precision, for CPUs that multiply it: registers of 32 halves (AVX512-FP16).
//
// A short run of products is summed in halves and then promoted, that is added to a sum
// of floats. Without these instructions a register's halves can be computed with as
// floats and rounded: that is for checking the kernels, not for speed.
#pragma once

#include "vec.hpp"

#if defined(__AVX512FP16__) || (defined(ELISION_AVX512) && defined(ELISION_EMULATE_HALF))
#define ELISION_HALF 1
#endif

namespace elision {

// IEEE binary16, as its bits.
struct half {
  uint16_t bits;
};

constexpr int HALVES = 2 * WIDTH;  // in one register

#if defined(ELISION_HALF)

#if defined(__AVX512FP16__)
typedef __m512h vh;  // and not integers: gcc moves a register at every change of type
static inline __m512i bits(vh v) { return _mm512_castph_si512(v); }
static inline vh halves(__m512i v) { return _mm512_castsi512_ph(v); }
#else
typedef __m512i vh;
static inline __m512i bits(vh v) { return v; }
static inline vh halves(__m512i v) { return v; }
#endif

static inline vh load(const half* p) { return halves(_mm512_loadu_si512(p)); }

static inline __m256i narrow(vf v) {
  return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline vf widen_low(vh v) {
  return _mm512_cvtph_ps(_mm512_castsi512_si256(bits(v)));
}
static inline vf widen_high(vh v) {
  return _mm512_cvtph_ps(_mm512_extracti64x4_epi64(bits(v), 1));
}

// Add the products of a and 32 halves in memory to a sum of halves, rounded once (when
// emulated: to float and then to half).
static inline void add_product(vh& sum, vh a, const half* b) {
#if defined(__AVX512FP16__)
  sum = _mm512_fmadd_ph(a, load(b), sum);
#else
  vh c = load(b);
  vf low = widen_low(a) * widen_low(c) + widen_low(sum);
  vf high = widen_high(a) * widen_high(c) + widen_high(sum);
  sum = _mm512_inserti64x4(_mm512_castsi256_si512(narrow(low)), narrow(high), 1);
#endif
}

// A float's place may hold its half twice, so that one broadcast fills a register.
static inline float twice(float value) {
  __m512i pairs = _mm512_castsi256_si512(narrow(_mm512_set1_ps(value)));
  return _mm512_cvtss_f32(_mm512_castsi512_ps(pairs));
}
static inline vh splat_twice(const float* pair) {
  return halves(_mm512_castps_si512(_mm512_set1_ps(*pair)));
}

static inline void copy_lanes(half* to, const float* from) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), narrow(load(from)));
}
static inline void clear_lanes(half* to) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_setzero_si256());
}

#endif

}  // namespace elision
