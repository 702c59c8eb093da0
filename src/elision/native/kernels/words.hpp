// Registers of 32-bit words that hold two integers of 16 bits, or four of 8, and their sums
// of products.
#pragma once

#include "vec.hpp"

#if defined(__AVX2__) && !defined(ELISION_AVX512)
#include <immintrin.h>
#elif defined(__SSE2__) && !defined(ELISION_AVX512)
#include <emmintrin.h>
#endif

namespace elision {

typedef int32_t vi __attribute__((vector_size(WIDTH * 4)));
typedef int32_t vi_any __attribute__((vector_size(WIDTH * 4), aligned(4), may_alias));
typedef uint32_t vw __attribute__((vector_size(WIDTH * 4)));
typedef double vd __attribute__((vector_size(WIDTH * 8)));

static inline vi load_words(const int32_t* p) { return *reinterpret_cast<const vi_any*>(p); }
static inline void store_words(int32_t* p, vi v) { *reinterpret_cast<vi_any*>(p) = v; }

// In every word, a sum and the products of the terms that share the word.
static inline vi added(vi sum, vi a, vi b, int16_t) {
#if defined(ELISION_AVX512) && defined(__AVX512VNNI__)
  return (vi)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
#elif defined(ELISION_AVX512)
  return (vi)((vw)sum + (vw)_mm512_madd_epi16((__m512i)a, (__m512i)b));
#elif defined(__AVX2__)
  return (vi)((vw)sum + (vw)_mm256_madd_epi16((__m256i)a, (__m256i)b));
#elif defined(__SSE2__)
  return (vi)((vw)sum + (vw)_mm_madd_epi16((__m128i)a, (__m128i)b));
#else
  vi low = ((vi)((vw)a << 16) >> 16) * ((vi)((vw)b << 16) >> 16);
  return (vi)((vw)sum + (vw)low + (vw)((a >> 16) * (b >> 16)));
#endif
}

#if defined(ELISION_AVX512) && defined(__AVX512VNNI__)
#define ELISION_BYTES 1
// The instruction wants one factor without a sign: b's bytes are 128 more than they are.
static inline vi added(vi sum, vi a, vi b, int8_t) {
  return (vi)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)b, (__m512i)a);
}
#endif

}  // namespace elision
