// Products of integers of 16 bits, summed in chains of 32 bits: two terms an instruction.
//
// An operand is integers times one scale (elision/engines/accumulating/integers.py). A
// chain of them is summed exactly, becomes float32 times both scales, and is added to the
// chains before it. Tensors are read where they lie, by sizes and strides; two terms that
// follow one another share a word. A task computes a block of outputs alone, so that
// results do not depend on the number of threads.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <vector>

#include "ordered_sum.hpp"
#include "pool.hpp"
#include "vec.hpp"

#if defined(__AVX2__) && !defined(ELISION_AVX512)
#include <immintrin.h>
#elif defined(__SSE2__) && !defined(ELISION_AVX512)
#include <emmintrin.h>
#endif

using namespace elision;

namespace {

typedef int32_t vi __attribute__((vector_size(WIDTH * 4)));
typedef int32_t vi_any __attribute__((vector_size(WIDTH * 4), aligned(4), may_alias));
typedef double vd __attribute__((vector_size(WIDTH * 8)));

static inline vi load_words(const int32_t* p) { return *reinterpret_cast<const vi_any*>(p); }
static inline void store_words(int32_t* p, vi v) { *reinterpret_cast<vi_any*>(p) = v; }

// In every word, the sum of the products of its low and of its high halves.
static inline vi multiplied(vi a, vi b) {
#if defined(ELISION_AVX512)
  return (vi)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (vi)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
  return (vi)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
  typedef uint32_t vu __attribute__((vector_size(WIDTH * 4)));
  vi low = ((vi)((vu)a << 16) >> 16) * ((vi)((vu)b << 16) >> 16);
  return low + (a >> 16) * (b >> 16);
#endif
}

static inline int32_t word(int16_t low, int16_t high) {
  return static_cast<int32_t>(static_cast<uint16_t>(low) |
                              static_cast<uint32_t>(static_cast<uint16_t>(high)) << 16);
}

#if defined(ELISION_AVX512)
constexpr int MR = 8;
#else
constexpr int MR = 4;
#endif
constexpr int NV = 2, NR = NV * WIDTH, TILES = 4;
constexpr int64_t BLOCK = 256;  // pairs of terms that are packed at once

// Whether a float32 times a power of two is rounded only once: no sum becomes subnormal.
static bool is_safe_power(double x) {
  int exponent;
  return std::frexp(x, &exponent) == 0.5 && exponent > -100 && exponent < 90;
}

template <bool POWER>
class Chains {
 public:
  Chains(const int16_t* a, const int16_t* b, float* out, const Sum& sum, int64_t chunk,
         double worth)
      : a_(a + sum.a), b_(b + sum.b), out_(out + sum.out), sum_(sum), worth_(worth),
        am_(walk(sum.m, 0)), om_(walk(sum.m, 1)), at_(walk(sum.t, 0)), bt_(walk(sum.t, 1)),
        bn_(walk(sum.n, 0)), on_(walk(sum.n, 1)), rows_(am_.size()), columns_(bn_.size()) {
    int64_t terms = at_.size();
    if (!chunk || chunk > terms) chunk = terms;
    // A chain of an odd number of terms ends with half a pair.
    for (int64_t begin = 0; begin < terms; begin += chunk) {
      int64_t end = std::min(terms, begin + chunk);
      for (int64_t t = begin; t < end; t += 2) {
        first_.push_back(t);
        second_.push_back(t + 1 < end ? t + 1 : -1);
      }
    }
    pairs_ = first_.size();
    chain_ = (chunk + 1) / 2;
    block_ = chain_ <= BLOCK ? BLOCK / chain_ * chain_ : BLOCK;
  }

  void run(int threads) {
    int64_t panels = (rows_ + MR - 1) / MR;
    int64_t strips = (columns_ + NR * TILES - 1) / (NR * TILES);
    // Few strips: their rows are split as well, at the price of packing b again.
    int64_t parts = 1;
    while (sum_.groups * strips * parts < 2 * threads && panels / parts >= 8) parts *= 2;
    int64_t own = (panels + parts - 1) / parts;
    packed_.reset(new int32_t[sum_.groups * panels * MR * pairs_]);
    parallel(sum_.groups * panels, threads,
             [&](int i) { pack_a(i / panels, i % panels, panels); });
    parallel(sum_.groups * strips * parts, threads, [&](int i) {
      int64_t part = i % parts, strip = i / parts % strips, group = i / parts / strips;
      int64_t begin = part * own, end = std::min(panels, begin + own);
      if (begin < end) task(group, strip * NR * TILES, begin, end, panels);
    });
  }

  // The largest sum of magnitudes of b's values in one chain.
  int64_t largest() const { return largest_; }

 private:
  // Rows of a panel side by side, pair by pair; rows behind the last are zero.
  void pack_a(int64_t group, int64_t panel, int64_t panels) {
    int32_t* to = packed_.get() + (group * panels + panel) * MR * pairs_;
    for (int r = 0; r < MR; ++r) {
      int64_t row = panel * MR + r;
      if (row >= rows_) {
        for (int64_t p = 0; p < pairs_; ++p) to[p * MR + r] = 0;
        continue;
      }
      const int16_t* from = a_ + group * sum_.a_group + am_[row];
      for (int64_t p = 0; p < pairs_; ++p) {
        int16_t high = second_[p] < 0 ? int16_t{0} : from[at_[second_[p]]];
        to[p * MR + r] = word(from[at_[first_[p]]], high);
      }
    }
  }

  // Columns of a panel side by side, pair by pair; columns behind the last are zero.
  void pack_b(const int16_t* from, int64_t column, int64_t p0, int64_t count, int32_t* to,
              int64_t* magnitudes) {
    static const int16_t zeros[NR] = {};
    int live = static_cast<int>(std::min<int64_t>(NR, columns_ - column));
    const int64_t* on = bn_.data() + column;
    bool together = live == NR;
    for (int j = 1; together && j < NR; ++j) together = on[j] - on[j - 1] == 1;
    int64_t most = 0;
    for (int64_t p = 0; p < count; ++p, to += NR) {
      if ((p0 + p) % chain_ == 0) std::fill(magnitudes, magnitudes + NR, 0);
      const int16_t* low = from + bt_[first_[p0 + p]];
      bool paired = second_[p0 + p] >= 0;
      const int16_t* high = paired ? from + bt_[second_[p0 + p]] : zeros;
      if (together) {
        const int16_t *x = low + on[0], *y = paired ? high + on[0] : zeros;
        for (int j = 0; j < NR; ++j) to[j] = word(x[j], y[j]);
      } else {
        for (int j = 0; j < live; ++j) to[j] = word(low[on[j]], paired ? high[on[j]] : 0);
        for (int j = live; j < NR; ++j) to[j] = 0;
      }
      for (int j = 0; j < NR; ++j) {
        int32_t x = static_cast<int16_t>(to[j]), y = to[j] >> 16;
        magnitudes[j] += (x < 0 ? -x : x) + (y < 0 ? -y : y);
      }
      if ((p0 + p + 1) % chain_ == 0 || p0 + p + 1 == pairs_)
        most = std::max(most, *std::max_element(magnitudes, magnitudes + NR));
    }
    int64_t before = largest_;
    while (before < most && !largest_.compare_exchange_weak(before, most)) {
    }
  }

  void task(int64_t group, int64_t column, int64_t begin, int64_t end, int64_t panels) {
    int64_t width = std::min<int64_t>(NR * TILES, columns_ - column);
    int64_t tiles = (width + NR - 1) / NR;
    size_t plane = static_cast<size_t>(end - begin) * MR * tiles * NR;
    float* total = scratch(0, 2 * plane + tiles * NR * block_);
    int32_t* sums = reinterpret_cast<int32_t*>(total + plane);
    int32_t* b = sums + plane;
    std::vector<int64_t> magnitudes(tiles * NR);
    const int16_t* from = b_ + group * sum_.b_group;
    std::fill(total, total + plane, 0.0f);
    for (int64_t p0 = 0; p0 < pairs_; p0 += block_) {
      int64_t count = std::min(block_, pairs_ - p0);
      for (int64_t j = 0; j < tiles; ++j)
        pack_b(from, column + j * NR, p0, count, b + j * NR * count,
               magnitudes.data() + j * NR);
      for (int64_t i = begin; i < end; ++i) {
        const int32_t* a = packed_.get() + ((group * panels + i) * pairs_ + p0) * MR;
        for (int64_t j = 0; j < tiles; ++j) {
          size_t at = ((i - begin) * tiles + j) * MR * NR;
          tile(a, b + j * NR * count, p0, count, sums + at, total + at);
        }
      }
    }
    for (int64_t i = begin; i < end; ++i)
      for (int64_t j = 0; j < tiles; ++j)
        scatter(total + ((i - begin) * tiles + j) * MR * NR, group, i * MR, column + j * NR);
  }

  void scatter(const float* total, int64_t group, int64_t row, int64_t column) {
    int rows = static_cast<int>(std::min<int64_t>(MR, rows_ - row));
    int live = static_cast<int>(std::min<int64_t>(NR, columns_ - column));
    for (int r = 0; r < rows; ++r) {
      float* to = out_ + group * sum_.out_group + om_[row + r];
      for (int j = 0; j < live; ++j) to[on_[column + j]] = total[r * NR + j];
    }
  }

  vf worth(vi sum) const {
    if (POWER) return __builtin_convertvector(sum, vf) * static_cast<float>(worth_);
    return __builtin_convertvector(__builtin_convertvector(sum, vd) * worth_, vf);
  }

  // `count` pairs from p0 on of MR x NR sums.
  __attribute__((noinline)) void tile(const int32_t* a, const int32_t* b, int64_t p0,
                                      int64_t count, int32_t* sums, float* total) {
    const int64_t end = p0 + count;
    for (int64_t p = p0; p < end;) {
      int64_t full = std::min(pairs_, (p / chain_ + 1) * chain_), stop = std::min(full, end);
      vi s[MR][NV];
      bool begins = p % chain_ == 0;
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
        for (int j = 0; j < NV; ++j)
          s[i][j] = begins ? vi{} : load_words(sums + i * NR + j * WIDTH);
      for (; p < stop; ++p, a += MR, b += NR) {
        vi x[NV];
#pragma GCC unroll 2
        for (int j = 0; j < NV; ++j) x[j] = load_words(b + j * WIDTH);
#pragma GCC unroll 8
        for (int i = 0; i < MR; ++i) {
          vi y = a[i] - vi{};
#pragma GCC unroll 2
          for (int j = 0; j < NV; ++j)
            s[i][j] = (vi)((vw)s[i][j] + (vw)multiplied(y, x[j]));
        }
      }
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
        for (int j = 0; j < NV; ++j) {
          float* to = total + i * NR + j * WIDTH;
          if (stop == full)
            store(to, load(to) + worth(s[i][j]));
          else
            store_words(sums + i * NR + j * WIDTH, s[i][j]);
        }
    }
  }

  typedef uint32_t vw __attribute__((vector_size(WIDTH * 4)));

  const int16_t *a_, *b_;
  float* out_;
  const Sum& sum_;
  const double worth_;
  const std::vector<int64_t> am_, om_, at_, bt_, bn_, on_;
  const int64_t rows_, columns_;
  std::vector<int64_t> first_, second_;
  int64_t pairs_, chain_, block_;
  std::unique_ptr<int32_t[]> packed_;
  std::atomic<int64_t> largest_{0};
};

// Exponent of the last bit of a number that is set; nothing for zero.
static inline int32_t last_bit(uint32_t bits) {
  int32_t exponent = (bits >> 23) & 0xFF;
  int32_t whole = (bits & 0x7FFFFF) | (exponent ? 0x800000 : 0);
  if (!exponent) exponent = 1;
  float last = static_cast<float>(whole & -whole);  // a power of two
  int32_t found;
  std::memcpy(&found, &last, 4);
  found = (found >> 23) - 127 + exponent - 150;
  return whole ? found : std::numeric_limits<int32_t>::max();
}

}  // namespace

// The largest magnitude (as bits, infinities and NaN above all) of n values, and the
// smallest exponent of a last bit.
extern "C" void elision_integers_scan(const float* x, int64_t n, int32_t* largest,
                                      int32_t* last) {
  int32_t most = 0, least = std::numeric_limits<int32_t>::max();
  for (int64_t i = 0; i < n; ++i) {
    uint32_t bits;
    std::memcpy(&bits, x + i, 4);
    most = std::max(most, static_cast<int32_t>(bits & 0x7FFFFFFF));
    least = std::min(least, last_bit(bits));
  }
  *largest = most;
  *last = least;
}

// Values as multiples of a scale. Returns whether all are, to the last bit of float32.
extern "C" int elision_integers_of(const float* x, int64_t n, double scale, int16_t* out) {
  int bad = 0, exponent;
  // The quotient by a power of two is a product, without a rounding either way.
  bool power = std::frexp(scale, &exponent) == 0.5;
  double inverse = 1 / scale;
  for (int64_t i = 0; i < n; ++i) {
    double value = x[i], whole = std::nearbyint(power ? value * inverse : value / scale);
    bad |= std::fabs(whole * scale - value) > std::fabs(value) * 0x1p-22;
    bad |= whole > 32767 || whole < -32768;
    out[i] = static_cast<int16_t>(static_cast<int32_t>(whole));
  }
  return !bad;
}

// Computes one ordered sum of every output. `largest`: the largest magnitude in a.
// Returns 0; 1: a chain may have passed 32 bits; -1: no memory.
extern "C" int elision_integer_sums(const int16_t* a, const int16_t* b, float* out,
                                    const Sum* sum, int64_t chunk, double worth,
                                    int64_t largest, int threads) {
  try {
    int64_t most;
    if (is_safe_power(worth)) {
      Chains<true> chains(a, b, out, *sum, chunk, worth);
      chains.run(threads);
      most = chains.largest();
    } else {
      Chains<false> chains(a, b, out, *sum, chunk, worth);
      chains.run(threads);
      most = chains.largest();
    }
    return most * largest > std::numeric_limits<int32_t>::max();
  } catch (const std::bad_alloc&) {
    return -1;
  }
}
