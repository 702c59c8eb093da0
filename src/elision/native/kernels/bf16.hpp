// bfloat16: the upper half of a float, to and from registers of floats.
#pragma once

#include "vec.hpp"

namespace elision {

// As its bits.
struct bf16 {
  uint16_t bits;
};

typedef uint32_t vu __attribute__((vector_size(WIDTH * 4)));
typedef uint16_t vs __attribute__((vector_size(WIDTH * 2)));
typedef uint16_t vs_any __attribute__((vector_size(WIDTH * 2), aligned(2), may_alias));

// WIDTH values, each as the lower half of a word.
static inline vu words(const bf16* p) {
  return __builtin_convertvector(*reinterpret_cast<const vs_any*>(p), vu);
}

static inline vf widen(const bf16* p) {
  vu bits = words(p) << 16;
  vf value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Rounded to the nearest, ties to even; NaN stays. With the CPU's own instruction, values
// below the smallest normal float become zero, as in its products.
static inline void narrow(bf16* p, vf v) {
#if defined(__AVX512BF16__) && defined(ELISION_AVX512)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), (__m256i)_mm512_cvtneps_pbh(v));
#else
  vu bits;
  std::memcpy(&bits, &v, sizeof bits);
  vu rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  vu nan = reinterpret_cast<vu>(v != v);
  rounded = (rounded & ~nan) | (nan & 0x7fc0);
  *reinterpret_cast<vs_any*>(p) = __builtin_convertvector(rounded, vs);
#endif
}

static inline float widen(bf16 value) {
  uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof wide);
  return wide;
}

}  // namespace elision
