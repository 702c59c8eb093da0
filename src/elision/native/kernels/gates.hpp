// Sigmoid and tanh of a register, both by e^x - 1: no cancellation near zero.
#pragma once

#include "vec.hpp"

namespace elision {

typedef int32_t vi __attribute__((vector_size(WIDTH * 4)));

// e^x - 1 for |x| <= 87: with x = n·ln 2 + r and q = e^r - 1, it is 2^n·q + (2^n - 1). The
// polynomial is Taylor's of degree 7: its error at r = ln 2 / 2 is below 6e-9.
static inline vf exp_minus_1(vf x) {
  const vf shifter = splat(12582912.0f);  // 1.5 · 2^23 rounds to an integer
  vf n = (x * splat(1.44269504f) + shifter) - shifter;
  vf r = x - n * splat(0.693359375f);     // ln 2 in two parts, the first of few bits
  r = r + n * splat(2.12194440e-4f);
  vf p = splat(1.0f / 5040);
  p = p * r + splat(1.0f / 720);
  p = p * r + splat(1.0f / 120);
  p = p * r + splat(1.0f / 24);
  p = p * r + splat(1.0f / 6);
  p = p * r + splat(0.5f);
  vf q = p * (r * r) + r;
  vi bits = (__builtin_convertvector(n, vi) + 127) << 23;
  vf power;
  std::memcpy(&power, &bits, sizeof power);
  return power * q + (power - splat(1.0f));
}

// Comparisons with NaN are false, so that NaN stays.
static inline vf clamped(vf x, float bound) {
  vf high = splat(bound), low = splat(-bound);
  x = x > high ? high : x;
  return x < low ? low : x;
}

static inline vf sigmoid(vf x) {
  return splat(1.0f) / (splat(2.0f) + exp_minus_1(clamped(-x, 87.0f)));
}

// Beyond 9.02 tanh rounds to one.
static inline vf tanh(vf x) {
  vf m = exp_minus_1(clamped(x + x, 20.0f));
  return m / (m + splat(2.0f));
}

}  // namespace elision
