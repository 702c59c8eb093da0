// Floats to 16 bits and back, as gradients travel: bfloat16, or IEEE's half precision.
//
// One pass adds what is remembered, saturates, rounds, keeps what was rounded away and
// looks whether every value is finite; another widens a sum and divides it.

#include <algorithm>
#include <atomic>
#include <cmath>

#include "pool.hpp"
#include "rounding.hpp"

using namespace elision;

namespace {

constexpr int64_t CHUNK = 32 * 1024;  // values of a task
constexpr int32_t INFINITE = 0x7F800000, MAGNITUDE = 0x7FFFFFFF;

typedef uint16_t vs __attribute__((vector_size(WIDTH * 2)));
typedef uint16_t vs_any __attribute__((vector_size(WIDTH * 2), aligned(2), may_alias));

struct Brain {
  // Rounded to the nearest, ties to even; NaN stays. Not by the CPU's own instruction,
  // which makes zeros of subnormal numbers.
  static vs narrow(vf v) {
    vu word = reinterpret_cast<vu>(v);
    vu near = (word + 0x7FFF + (word >> 16 & 1)) >> 16;
    return __builtin_convertvector(v == v ? near : vu{} + 0x7FC0, vs);
  }
  static vf widen(vs v) {
    return reinterpret_cast<vf>(__builtin_convertvector(v, vu) << 16);
  }
};

struct Half {
  static vs narrow(vf v) {
#if defined(ELISION_AVX512)
    return (vs)_mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
    vi all = bits(v), magnitude = all & MAGNITUDE;
    vf a = floats(magnitude);
    // One half has the step of the subnormal halves in its last bit: the sum rounds to it.
    vi small = bits(a + 0.5f) - 0x3F000000;
    // The exponent is less by 127 - 15; a carry out of the fraction belongs to it.
    vi normal = (magnitude - 0x38000000 + 0x0FFF + (magnitude >> 13 & 1)) >> 13;
    vi near = magnitude < 0x38800000 ? small : normal;
    near = near < 0x7C00 ? near : splat_bits(0x7C00);
    near = magnitude > INFINITE ? splat_bits(0x7E00) : near;
    return __builtin_convertvector(near | (all >> 16 & 0x8000), vs);
#endif
  }
  static vf widen(vs v) {
#if defined(ELISION_AVX512)
    return _mm512_cvtph_ps((__m256i)v);
#else
    vi word = __builtin_convertvector(v, vi), magnitude = word & 0x7FFF;
    vf small = __builtin_convertvector(magnitude, vf) * 0x1p-24f;
    vi normal = (magnitude << 13) + 0x38000000;
    normal += magnitude >= 0x7C00 ? splat_bits(0x38000000) : vi{};
    vi found = magnitude < 0x0400 ? bits(small) : normal;
    return floats(found | (word & 0x8000) << 16);
#endif
  }
};

// The 16-bit values at p, zeros for those that are not there.
vs load_some(const uint16_t* p, int64_t count) {
  if (count >= WIDTH) return *reinterpret_cast<const vs_any*>(p);
  vs some = {};
  for (int64_t i = 0; i < count; ++i) some[i] = p[i];
  return some;
}
void store_some(uint16_t* p, vs v, int64_t count) {
  if (count >= WIDTH) {
    *reinterpret_cast<vs_any*>(p) = v;
    return;
  }
  for (int64_t i = 0; i < count; ++i) p[i] = v[i];
}

template <typename Work>
void over_chunks(int64_t n, int threads, Work work) {
  int chunks = static_cast<int>((n + CHUNK - 1) / CHUNK);
  parallel(chunks, threads, [&](int task) {
    int64_t begin = task * CHUNK;
    work(begin, std::min(begin + CHUNK, n));
  });
}

// What one call of `narrow` reads and writes; null: no memory, or nothing is kept.
struct Values {
  const float* x;
  const float* memory;
  uint16_t* sent;
  float* left;
  vf low, high;
};

// Up to WIDTH values from i on; the magnitudes, as bits, of x + memory.
template <typename Format, bool MEMORY, bool KEEP>
vi some(const Values& all, int64_t i, int64_t count) {
  vf v = elision::load_some(all.x + i, count);
  if (MEMORY) v += elision::load_some(all.memory + i, count);
  vf held = v > all.high ? all.high : v < all.low ? all.low : v;  // NaN is held
  vs message = Format::narrow(held);
  store_some(all.sent + i, message, count);
  if (KEEP) elision::store_some(all.left + i, v - Format::widen(message), count);
  return bits(v) & MAGNITUDE;
}

template <typename Format, bool MEMORY, bool KEEP>
bool narrow(const Values& all, int64_t n, int threads) {
  std::atomic<bool> finite{true};
  over_chunks(n, threads, [&](int64_t begin, int64_t end) {
    vi largest = {};
    int64_t i = begin;
    for (; i + WIDTH <= end; i += WIDTH)
      largest = larger(largest, some<Format, MEMORY, KEEP>(all, i, WIDTH));
    if (i < end) largest = larger(largest, some<Format, MEMORY, KEEP>(all, i, end - i));
    if (any(largest >= INFINITE)) finite.store(false, std::memory_order_relaxed);
  });
  return finite;
}

template <typename Format>
bool narrow(const Values& all, int64_t n, int threads) {
  if (all.memory) {
    if (all.left) return narrow<Format, true, true>(all, n, threads);
    return narrow<Format, true, false>(all, n, threads);
  }
  if (all.left) return narrow<Format, false, true>(all, n, threads);
  return narrow<Format, false, false>(all, n, threads);
}

template <typename Format, typename Share>
void widen(const uint16_t* sum, float* mean, int64_t n, int threads, Share share) {
  over_chunks(n, threads, [&](int64_t begin, int64_t end) {
    int64_t i = begin;
    for (; i + WIDTH <= end; i += WIDTH)
      store(mean + i, share(Format::widen(load_some(sum + i, WIDTH))));
    if (i == end) return;
    vf last = share(Format::widen(load_some(sum + i, end - i)));
    elision::store_some(mean + i, last, end - i);
  });
}

template <typename Format>
void widen(const uint16_t* sum, float* mean, int64_t n, float ranks, int threads) {
  const vf divisor = splat(ranks), factor = splat(1 / ranks);
  int exponent;
  if (std::frexp(ranks, &exponent) == 0.5f)  // a power of two: the same, and many times faster
    widen<Format>(sum, mean, n, threads, [&](vf v) { return v * factor; });
  else
    widen<Format>(sum, mean, n, threads, [&](vf v) { return v / divisor; });
}

}  // namespace

// sent = the nearest bfloat16 or, if `half`, binary16 to x + memory, whose magnitude is
// brought down to `most`; left = x + memory - sent. Null: no memory, or nothing is kept.
// Returns whether every x + memory is finite.
extern "C" int elision_narrow(const float* x, const float* memory, uint16_t* sent,
                              float* left, int64_t n, int half, float most, int threads) {
  Values all{x, memory, sent, left, splat(-most), splat(most)};
  return half ? narrow<Half>(all, n, threads) : narrow<Brain>(all, n, threads);
}

// mean = sum / ranks, of sums in 16 bits.
extern "C" void elision_widen(const uint16_t* sum, float* mean, int64_t n, int half,
                              float ranks, int threads) {
  auto run = half ? widen<Half> : widen<Brain>;
  run(sum, mean, n, ranks, threads);
}
