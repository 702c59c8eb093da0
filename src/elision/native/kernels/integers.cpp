// Floats as integers times one scale: which scale, and the integers.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "vec.hpp"

using namespace elision;

namespace {

typedef int32_t vi __attribute__((vector_size(WIDTH * 4)));

// Half as many values, which fill a register as doubles.
constexpr int HALF = WIDTH / 2;
typedef float hf_any __attribute__((vector_size(HALF * 4), aligned(4), may_alias));
typedef int32_t hi __attribute__((vector_size(HALF * 4)));
typedef int64_t hl __attribute__((vector_size(HALF * 8)));
typedef double hd __attribute__((vector_size(HALF * 8)));

constexpr int64_t BLOCK = 1024;  // values at once, of which one may be refused
constexpr int32_t NONE = std::numeric_limits<int32_t>::max();

// Exponents of the last bit of numbers that is set; NONE for zeros.
static inline vi last_bits(vi bits) {
  vi exponent = (bits >> 23) & 0xFF, subnormal = exponent == 0;
  vi whole = (bits & 0x7FFFFF) | (~subnormal & 0x800000);
  vf last = __builtin_convertvector(whole & -whole, vf);  // a power of two
  vi found = ((vi)last >> 23) - 127 + exponent - subnormal - 150;
  return whole == 0 ? vi{} + NONE : found;
}

// Integers nearest to n values over a scale, by its inverse: where a value is a multiple of
// the scale, to the last bit of float32, the quotient is nowhere near a tie. Returns whether
// all values are.
template <typename T>
bool divided(const float* x, int64_t n, double scale, T* out) {
  constexpr double SHIFT = 0x1.8p52;  // adding it leaves no fraction
  constexpr int32_t LEAST = std::numeric_limits<T>::min(), MOST = std::numeric_limits<T>::max();
  const double inverse = 1 / scale;
  for (int64_t begin = 0; begin < n; begin += BLOCK) {
    const int64_t count = std::min(BLOCK, n - begin);
    float values[BLOCK];
    int32_t integers[BLOCK];
    const float* from = x + begin;
    if (count < BLOCK) {
      std::fill(values, values + BLOCK, 0.0f);
      from = static_cast<const float*>(std::memcpy(values, from, count * sizeof(float)));
    }
    hl off{};
    for (int i = 0; i < BLOCK; i += HALF) {
      hd value = __builtin_convertvector(*reinterpret_cast<const hf_any*>(from + i), hd);
      hd whole = (value * inverse + SHIFT) - SHIFT;
      hd rest = whole * scale - value, bound = value * 0x1p-22;
      off |= (rest < 0 ? -rest : rest) > (bound < 0 ? -bound : bound);
      hi found = __builtin_convertvector(whole, hi);
      std::memcpy(integers + i, &found, sizeof(found));
    }
    int64_t bad = 0;
    for (int j = 0; j < HALF; ++j) bad |= off[j];
    int32_t least = 0, most = 0;
    for (int i = 0; i < BLOCK; ++i) {
      least = std::min(least, integers[i]);
      most = std::max(most, integers[i]);
    }
    if (bad || least < LEAST || most > MOST) return false;
    for (int i = 0; i < count; ++i) out[begin + i] = static_cast<T>(integers[i]);
  }
  return true;
}

}  // namespace

// The largest magnitude (as bits, infinities and NaN above all) of n values, and the
// smallest exponent of a last bit.
extern "C" void elision_integers_scan(const float* x, int64_t n, int32_t* largest,
                                      int32_t* last) {
  vi most{}, least = vi{} + NONE;
  auto step = [&](vi bits) {
    vi magnitude = bits & 0x7FFFFFFF, found = last_bits(bits);
    most = magnitude > most ? magnitude : most;
    least = found < least ? found : least;
  };
  int64_t i = 0;
  for (; i + WIDTH <= n; i += WIDTH) step((vi)load(x + i));
  float rest[WIDTH] = {};
  std::memcpy(rest, x + i, (n - i) * sizeof(float));
  step((vi)load(rest));
  *largest = 0, *last = NONE;
  for (int j = 0; j < WIDTH; ++j) {
    *largest = std::max<int32_t>(*largest, most[j]);
    *last = std::min<int32_t>(*last, least[j]);
  }
}

// Values as multiples of a scale, int16 or, if `bytes`, int8. Returns whether all are, to
// the last bit of float32, and fit.
extern "C" int elision_integers_of(const float* x, int64_t n, double scale, int bytes,
                                   void* out) {
  if (bytes) return divided(x, n, scale, static_cast<int8_t*>(out));
  return divided(x, n, scale, static_cast<int16_t*>(out));
}
