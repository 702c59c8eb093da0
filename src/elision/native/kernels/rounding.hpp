// The values of a number format in place of floats, a register at a time.
//
// All is arithmetic of float32 and of its bits, and every step of it is exact but the
// one that rounds: the results are those of the same formulas in float64, bit by bit.
// NaN stays NaN. Written on magnitudes; the sign comes back at the end.
#pragma once

#include <utility>

#include "vec.hpp"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace elision {

typedef int32_t vi __attribute__((vector_size(WIDTH * 4)));
typedef uint32_t vu __attribute__((vector_size(WIDTH * 4)));

static inline vf floats(vi v) { return reinterpret_cast<vf>(v); }
static inline vi bits(vf v) { return reinterpret_cast<vi>(v); }
static inline vi splat_bits(int32_t v) { return v - vi{}; }
static inline float as_float(int32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
static inline vi larger(vi a, vi b) { return a > b ? a : b; }
// Lanes of a where the lane's bit STEP is 0, of b where it is 1; FLIP: of its neighbour
// across that bit.
template <int STEP, bool FLIP, int... LANE>
static inline vi halves(vi a, vi b, std::integer_sequence<int, LANE...>) {
  return __builtin_shufflevector(
      a, b, ((FLIP ? LANE ^ STEP : LANE) + (LANE & STEP ? WIDTH : 0))...);
}
// The largest of the lanes of `a` across the bit STEP where that bit is 0; of b where 1.
template <int STEP>
static inline vi larger_half(vi a, vi b) {
  std::make_integer_sequence<int, WIDTH> lanes;
  return larger(halves<STEP, false>(a, b, lanes), halves<STEP, true>(a, b, lanes));
}
// The largest lane of each of the WIDTH vectors v: in lane i that of v[i]. Overwrites v.
template <int STEP = 1>
static inline vi largest_lanes(vi* v) {
  for (int i = 0; i < WIDTH / STEP; i += 2) v[i / 2] = larger_half<STEP>(v[i], v[i + 1]);
  if constexpr (2 * STEP < WIDTH) return largest_lanes<2 * STEP>(v);
  return v[0];
}
// The largest lane, in all lanes.
template <int STEP = 1>
static inline vi largest_lane(vi v) {
  v = larger_half<STEP>(v, v);
  if constexpr (2 * STEP < WIDTH) return largest_lane<2 * STEP>(v);
  return v;
}
// Up to WIDTH floats, zeros for those that are not there.
static inline vf load_some(const float* p, int64_t count) {
  if (count >= WIDTH) return load(p);
  alignas(64) float some[WIDTH] = {};
  for (int64_t i = 0; i < count; ++i) some[i] = p[i];
  return load(some);
}
static inline void store_some(float* p, vf v, int64_t count) {
  if (count >= WIDTH) return store(p, v);
  for (int64_t i = 0; i < count; ++i) p[i] = v[i];
}
// Whether a comparison holds in some lane.
static inline bool any(vi truth) {
#if defined(ELISION_AVX512)
  return _mm512_movepi32_mask(reinterpret_cast<__m512i>(truth)) != 0;
#elif defined(__AVX2__)
  return _mm256_movemask_ps(reinterpret_cast<__m256>(truth)) != 0;
#else
  int32_t found = 0;
  for (int i = 0; i < WIDTH; ++i) found |= truth[i];
  return found != 0;
#endif
}
// 2^exponent, for exponents of normal floats.
static inline float power(int exponent) { return as_float((exponent + 127) << 23); }

enum Way { NEAREST, ZERO, STOCHASTIC };

// WIDE: floating point with the exponents of float32, whose subnormals are among its own.
// NARROW: floating point with fewer. FIXED: one step for all values.
enum Kind { WIDE, NARROW, FIXED };

// An element's format; filled in, in this order, by elision/formats/native.py.
struct Element {
  int32_t kind;
  int32_t fraction;   // bits of the fraction, from 1; FIXED: 0
  int32_t lowest;     // exponent of the smallest normal value; FIXED: of the step
  int32_t below;      // bits of the fraction below it: 0 without subnormals
  float largest;      // the largest finite magnitude
  float beyond;       // in place of a greater one that is finite
  float infinite;     // in place of infinity
  float least;        // FIXED: the smallest value
  int32_t negative;   // 0: values below zero become NaN (FIXED has `least` instead)
  int32_t minus_zero; // 0: there is one zero
};

// `lowbias32` of Wellons, "Prospecting for Hash Functions", 2018.
template <typename T>
static inline T hashed(T x) {
  x = (x ^ (x >> 16)) * 0x7FEB352Du;
  x = (x ^ (x >> 15)) * 0x846CA68Bu;
  return x ^ (x >> 16);
}

// Random bits of the elements from `index` on, each by its index and the seed. The high
// half of the index is the same for all elements of a register.
class Random {
 public:
  Random(uint32_t seed, int64_t index) : seed_(seed) { move(index); }
  void move(int64_t index) {
    high_ = hashed(static_cast<uint32_t>(index >> 32) ^ seed_);
    vu lane;
    for (int i = 0; i < WIDTH; ++i) lane[i] = i;
    low_ = static_cast<uint32_t>(index) + lane;
  }
  vu next() {
    vu found = hashed(low_ ^ high_);
    low_ += static_cast<uint32_t>(WIDTH);
    return found;
  }

 private:
  uint32_t seed_, high_;
  vu low_;
};

template <int KIND, int WAY>
class Rounder {
 public:
  static constexpr bool RANDOM = WAY == STOCHASTIC;

  explicit Rounder(const Element& e)
      : drop_(23 - e.fraction),
        below_zero_(e.negative ? 0 : 0x7FC00000),
        one_zero_(!e.minus_zero),
        low_flush_(e.below != e.fraction),
        largest_(splat(e.largest)),
        beyond_(splat(e.beyond)),
        infinite_(splat(e.infinite)),
        least_(splat(e.least)) {
    int step = e.lowest - e.below;  // exponent of the step of the lowest values
    lowest_ = splat_bits((e.lowest + 127) << 23);
    // From a value's power of two to 2^23 of its steps: that, added and taken away again,
    // rounds to the step. It is at least twice the value's power if a bit is dropped.
    magic_ = splat_bits(drop_ << 23);
    if (KIND != WIDE && KIND == e.kind) {  // of another kind it is made, but not used
      low_magic_ = splat(power(step + 23));
      up_ = splat(power(-step)), down_ = splat(power(step));
    }
    top_ = splat_bits(bits_of(e.largest) & 0x7F800000);
    keep_ = splat_bits(~((1 << drop_) - 1));
    half_ = splat_bits(drop_ ? (1 << (drop_ - 1)) - 1 : 0);
    odd_ = splat_bits(drop_ ? 1 : 0);
  }

  // `random` is read by stochastic rounding alone.
  vf operator()(vf x, vu random) const {
    vi all = bits(x), magnitude = all & 0x7FFFFFFF, sign = all ^ magnitude;
    vf a = floats(magnitude), r;
    if (KIND == FIXED) {
      // Far beyond the largest, a step is not to be seen; in whole numbers it must fit.
      if (WAY != NEAREST) a = a > largest_ + largest_ ? largest_ + largest_ : a;
      r = low(a, random);
      if (WAY != NEAREST) r = a != a ? a : r;
      r = floats(bits(r) | sign);
      r = largest_ < r ? largest_ : r;
      r = least_ > r ? least_ : r;
      return r + 0.0f;  // there is one zero
    }
    if (KIND == WIDE) {
      r = floats(normal(magnitude, random));
      r = a != a ? a : r;
    } else if (WAY == NEAREST) {
      // The step of a value, or the lowest step; beyond the largest nothing depends on it.
      vi exponent = magnitude & 0x7F800000;
      exponent = exponent > lowest_ ? exponent : lowest_;
      exponent = exponent < top_ ? exponent : top_;
      vf magic = floats(exponent + magic_);
      if (low_flush_) magic = magnitude < lowest_ ? low_magic_ : magic;
      r = (a + magic) - magic;
    } else {
      vi small = magnitude < lowest_;
      r = floats(normal(magnitude, random));
      if (any(small)) r = small ? low(small ? a : vf{}, random) : r;
      r = a != a ? a : r;
    }
    vf over = beyond_;
    if (WAY == ZERO) over = magnitude == 0x7F800000 ? infinite_ : beyond_;
    r = r > largest_ ? over : r;
    if (below_zero_ | one_zero_) return rare(x, r, sign);
    return floats(bits(r) | sign);
  }

 private:
  static int32_t bits_of(float value) {
    int32_t found;
    std::memcpy(&found, &value, sizeof found);
    return found;
  }

  // Where the step follows the exponent, it is a bit of the float. Adding to the bits
  // below it carries into it, and on into the exponent.
  vi normal(vi magnitude, vu random) const {
    if (WAY == NEAREST) magnitude += half_ + ((magnitude >> drop_) & odd_);
    // Up if the top bits of `random` are below the bits that are dropped.
    if (WAY == STOCHASTIC)
      magnitude += reinterpret_cast<vi>((random >> 8) >> (24 - drop_)) ^ ~keep_;
    return magnitude & keep_;
  }

  // Where the step is the lowest: whole numbers of it. All products are exact.
  vf low(vf a, vu random) const {
    if (WAY == NEAREST) return (a + low_magic_) - low_magic_;
    vf scaled = a * up_;
    vf whole = __builtin_convertvector(__builtin_convertvector(scaled, vi), vf);
    if (WAY == STOCHASTIC) {
      vf level = __builtin_convertvector(reinterpret_cast<vi>(random >> 8), vf);
      // -1 where true.
      whole -= __builtin_convertvector(level < (scaled - whole) * 0x1p24f, vf);
    }
    return whole * down_;
  }

  // Formats without a sign, or with one zero.
  vf rare(vf x, vf r, vi sign) const {
    if (one_zero_) sign = r == 0 ? vi{} : sign;
    if (!below_zero_) return floats(bits(r) | sign);
    vi quiet = splat_bits(below_zero_);
    return x < 0 ? floats(quiet) : r;
  }

  int drop_;
  int32_t below_zero_;
  bool one_zero_, low_flush_;
  vf largest_, beyond_, infinite_, least_;
  vf low_magic_{}, up_{}, down_{};
  vi lowest_, magic_, top_, keep_, half_, odd_;
};

// Calls work(Rounder) for the element's kind and the way of rounding.
template <int KIND, typename Work>
void with_way(const Element& e, int way, Work work) {
  if (way == NEAREST)
    work(Rounder<KIND, NEAREST>(e));
  else if (way == ZERO)
    work(Rounder<KIND, ZERO>(e));
  else
    work(Rounder<KIND, STOCHASTIC>(e));
}
template <typename Work>
void with_rounder(const Element& e, int way, Work work) {
  if (e.kind == WIDE)
    with_way<WIDE>(e, way, work);
  else if (e.kind == NARROW)
    with_way<NARROW>(e, way, work);
  else
    with_way<FIXED>(e, way, work);
}

}  // namespace elision
