// Products whose sums are rounded as they grow: out[m, n] = sum over t of a[m, t] b[t, n].
//
// The terms of a sum are added in the order of t. A chunk of them is summed in a narrow
// format, in registers; the sums of chunks are added in a wider one, in memory. Tensors
// are read where they lie, by sizes and strides (elision/products/terms.py), so that a
// convolution needs no unfolded image. A task computes a block of outputs alone: results
// do not depend on the number of threads.
//
// No multiplication here feeds an addition but by fma(), so the compiler has nothing to
// contract, and without -ffast-math it may not reorder (x + c) - c.

#include <algorithm>
#include <memory>
#include <vector>

#include "ordered_sum.hpp"
#include "pool.hpp"
#include "rounding.hpp"

#if defined(__AVX2__) && !defined(ELISION_AVX512)
#include <immintrin.h>
#endif
#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

using namespace elision;

namespace {

struct How {
  Element narrow, wide;
  int32_t narrows;      // 0: sums inside a chunk are float32's own
  int32_t widens;       // the same of the sums of chunks
  int32_t each;         // 1: every addition is rounded; 0: a chunk's sum once
  int32_t way;          // of rounding, in the narrow format
  int32_t compensated;  // 1: Kahan's sums
  int32_t bounded;      // 1: no sum leaves the range that Magic rounds
  int64_t chunk;        // terms; 0: all
  int64_t wide_chunk;   // sums of chunks that are added before their promotion; 0: all
  uint32_t key;         // of stochastic rounding
};

static inline vf fma(vf a, vf b, vf c) {
#if defined(ELISION_AVX512)
  return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
  return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  vf r;
  for (int i = 0; i < WIDTH; ++i) r[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return r;
#endif
}

static inline vf greater(vf a, vf b) {
#if defined(ELISION_AVX512)
  return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return a > b ? a : b;
#endif
}

// Subnormal numbers count, whatever the calling thread is set to.
class WithSubnormals {
#if defined(__SSE2__)
 public:
  WithSubnormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ & ~0x8040u); }
  ~WithSubnormals() { _mm_setcsr(before_); }

 private:
  unsigned before_;
#endif
};

// --- roundings of one sum; `h` is read by the stochastic one alone -------------------

struct Exact {
  static constexpr bool RANDOM = false;
  explicit Exact(const How&) {}
  vf operator()(vf x, vu) const { return x; }
};

// To nearest, ties to even, with gradual underflow, of sums that cannot overflow.
struct Magic {
  static constexpr bool RANDOM = false;
  explicit Magic(const How& how)
      : lowest(splat(power(how.narrow.lowest))),
        magic(splat_bits(((23 - how.narrow.fraction) << 23) + 0x400000)) {}
  vf operator()(vf x, vu) const {
    // 1.5 * 2^23 steps of the value: added and taken away again, it rounds to the step.
    vf step = greater(floats(bits(x) & 0x7F800000), lowest);
    vf c = floats(bits(step) + magic);
    return (x + c) - c;
  }
  vf lowest;
  vi magic;
};

template <int KIND, int WAY>
struct Checked {
  static constexpr bool RANDOM = WAY == STOCHASTIC;
  explicit Checked(const How& how) : round(how.narrow) {}
  // There is one zero: adding it takes the sign off.
  vf operator()(vf x, vu h) const { return round(x, h) + 0.0f; }
  Rounder<KIND, WAY> round;
};

// --- one term of one sum ------------------------------------------------------------

template <class Round>
struct Plain : Round {
  static constexpr int PARTS = 1;
  using Round::Round;
  void add(vf* s, vf a, vf b, vu h) const { s[0] = (*this)(fma(a, b, s[0]), h); }
};

// Kahan, 1965: s[1] is the part of the sum that its rounding added.
template <class Round>
struct Compensated : Round {
  static constexpr int PARTS = 2;
  using Round::Round;
  void add(vf* s, vf a, vf b, vu h) const {
    const Round& r = *this;
    vf y = r(fma(a, b, -s[1]), h);
    vf sum = r(s[0] + y, h);
    s[1] = r(r(sum - s[0], h) - y, h);
    s[0] = sum;
  }
};

// Adds the sums of a chunk, in memory, to those of the chunks before it.
class Promotion {
 public:
  explicit Promotion(const How& how)
      : how_(how), narrow_(how), nearest_(how), zero_(how), stochastic_(how), wide_(how.wide) {}

  // Row of one register; `h` as in the roundings above.
  void operator()(int64_t chunk, bool last, const float* sum, float* wide, float* total,
                  vu h) const {
    vf s = load(sum);
    if (how_.narrows && !how_.each) s = narrowed(s, h);
    int64_t place = how_.wide_chunk ? chunk % how_.wide_chunk : chunk;
    bool ends = last || (how_.wide_chunk && place == how_.wide_chunk - 1);
    vf w = (place ? load(wide) : vf{}) + s;
    if (how_.widens) w = widened(w);
    if (!ends) return store(wide, w);
    int64_t before = how_.wide_chunk ? chunk / how_.wide_chunk : 0;
    store(total, (before ? load(total) : vf{}) + w);
  }

 private:
  vf narrowed(vf s, vu h) const {
    if (how_.narrow.kind == WIDE) {
      if (how_.way == NEAREST) return Checked<WIDE, NEAREST>(how_)(s, h);
      if (how_.way == ZERO) return Checked<WIDE, ZERO>(how_)(s, h);
      return Checked<WIDE, STOCHASTIC>(how_)(s, h);
    }
    if (how_.way == NEAREST && how_.bounded) return narrow_(s, h);
    if (how_.way == NEAREST) return nearest_(s, h);
    return how_.way == ZERO ? zero_(s, h) : stochastic_(s, h);
  }
  vf widened(vf w) const {
    if (how_.wide.kind == WIDE) return Rounder<WIDE, NEAREST>(how_.wide)(w, vu{}) + 0.0f;
    return wide_(w, vu{}) + 0.0f;
  }

  const How& how_;
  Magic narrow_;
  Checked<NARROW, NEAREST> nearest_;
  Checked<NARROW, ZERO> zero_;
  Checked<NARROW, STOCHASTIC> stochastic_;
  Rounder<NARROW, NEAREST> wide_;
};

constexpr uint32_t GOLDEN = 0x9E3779B9u;  // 2^32 over the golden ratio: spreads terms

// MR rows of outputs by NV registers of columns, summed in registers.
template <int MR, int NV, class Way>
class Product {
  static constexpr int NR = NV * WIDTH;
  static constexpr int COLUMNS = NR * (NV < 4 ? 4 : 1);  // of a task
  static constexpr int64_t BLOCK = 256;                  // terms that are packed at once

 public:
  Product(const float* a, const float* b, float* out, const Sum& sum, const How& how)
      : a_(a + sum.a), b_(b + sum.b), out_(out), sum_(sum), how_(how), add_(how),
        promote_(how), am_(walk(sum.m, 0)), om_(walk(sum.m, 1)), at_(walk(sum.t, 0)),
        bt_(walk(sum.t, 1)), bn_(walk(sum.n, 0)), on_(walk(sum.n, 1)),
        rows_(am_.size()), terms_(at_.size()), columns_(bn_.size()),
        chunk_(how.chunk ? std::min<int64_t>(how.chunk, terms_) : terms_),
        block_(chunk_ <= BLOCK ? BLOCK / chunk_ * chunk_ : BLOCK) {}

  void run(int threads) {
    int64_t panels = (rows_ + MR - 1) / MR;
    int64_t strips = (columns_ + COLUMNS - 1) / COLUMNS;
    // Few strips: their rows are split as well, at the price of packing b again.
    int64_t parts = 1;
    while (sum_.groups * strips * parts < 2 * threads && panels / parts >= 8) parts *= 2;
    int64_t own = (panels + parts - 1) / parts;
    packed_.reset(new float[sum_.groups * panels * MR * terms_]);
    parallel(sum_.groups * panels, threads,
             [&](int i) { pack_a(i / panels, i % panels, panels); });
    parallel(sum_.groups * strips * parts, threads, [&](int i) {
      WithSubnormals here;
      int64_t part = i % parts, strip = i / parts % strips, group = i / parts / strips;
      int64_t first = part * own, last = std::min(panels, first + own);
      if (first < last) task(group, strip * COLUMNS, first, last, panels);
    });
  }

 private:
  // Rows of a panel side by side, term by term; rows behind the last are zero.
  void pack_a(int64_t group, int64_t panel, int64_t panels) {
    float* to = packed_.get() + (group * panels + panel) * MR * terms_;
    for (int r = 0; r < MR; ++r) {
      int64_t row = panel * MR + r;
      if (row >= rows_) {
        for (int64_t t = 0; t < terms_; ++t) to[t * MR + r] = 0;
        continue;
      }
      const float* from = a_ + group * sum_.a_group + am_[row];
      for (int64_t t = 0; t < terms_; ++t) to[t * MR + r] = from[at_[t]];
    }
  }

  // Columns of a panel side by side, term by term; columns behind the last are zero.
  void pack_b(const float* from, int64_t column, int64_t t0, int64_t count, float* to) {
    int live = static_cast<int>(std::min<int64_t>(NR, columns_ - column));
    const int64_t *on = bn_.data() + column, *by = bt_.data() + t0;
    bool together = live == NR && on[NR - 1] - on[0] == NR - 1;
    for (int j = 1; together && j < NR; ++j) together = on[j] - on[j - 1] == 1;
    if (together) {
      for (int64_t t = 0; t < count; ++t)
        for (int v = 0; v < NV; ++v)
          store(to + t * NR + v * WIDTH, load(from + by[t] + on[0] + v * WIDTH));
    } else if (count > 1 && by[1] - by[0] == 1) {  // runs of terms lie together
      for (int j = 0; j < NR; ++j)
        for (int64_t t = 0; t < count; ++t) to[t * NR + j] = j < live ? from[by[t] + on[j]] : 0;
    } else {
      for (int64_t t = 0; t < count; ++t) {
        const float* row = from + by[t];
        float* at = to + t * NR;
        for (int j = 0; j < live; ++j) at[j] = row[on[j]];
        for (int j = live; j < NR; ++j) at[j] = 0;
      }
    }
  }

  void task(int64_t group, int64_t column, int64_t first, int64_t last, int64_t panels) {
    int64_t width = std::min<int64_t>(COLUMNS, columns_ - column);
    int64_t tiles = (width + NR - 1) / NR, rows = (last - first) * MR;
    size_t plane = static_cast<size_t>(rows) * tiles * NR;
    float* memory = scratch(0, plane * (Way::PARTS + 2) + tiles * NR * block_);
    float *parts = memory, *wide = memory + Way::PARTS * plane, *total = wide + plane;
    float* b = total + plane;
    const float* from = b_ + group * sum_.b_group;
    for (int64_t t0 = 0; t0 < terms_; t0 += block_) {
      int64_t count = std::min(block_, terms_ - t0);
      for (int64_t j = 0; j < tiles; ++j)
        pack_b(from, column + j * NR, t0, count, b + j * NR * count);
      for (int64_t p = first; p < last; ++p) {
        const float* a = packed_.get() + ((group * panels + p) * terms_ + t0) * MR;
        for (int64_t j = 0; j < tiles; ++j) {
          size_t at = ((p - first) * tiles + j) * MR * NR;
          tile(a, b + j * NR * count, t0, count, parts + at * Way::PARTS, wide + at,
               total + at, group, p * MR, column + j * NR);
        }
      }
    }
    for (int64_t p = first; p < last; ++p)
      for (int64_t j = 0; j < tiles; ++j)
        scatter(total + ((p - first) * tiles + j) * MR * NR, group, p * MR, column + j * NR);
  }

  void scatter(const float* total, int64_t group, int64_t row, int64_t column) {
    int rows = static_cast<int>(std::min<int64_t>(MR, rows_ - row));
    int live = static_cast<int>(std::min<int64_t>(NR, columns_ - column));
    for (int r = 0; r < rows; ++r) {
      float* to = out_ + sum_.out + group * sum_.out_group + om_[row + r];
      for (int j = 0; j < live; ++j) to[on_[column + j]] = total[r * NR + j];
    }
  }

  // The random bits of a sum's terms begin at its place in the result.
  void random(vu* h, int64_t group, int64_t row, int64_t column) {
    int64_t start = sum_.out + group * sum_.out_group;
    for (int r = 0; r < MR; ++r)
      for (int j = 0; j < NR; ++j) {
        bool there = row + r < rows_ && column + j < columns_;
        int64_t place = there ? start + om_[row + r] + on_[column + j] : 0;
        h[r * NV + j / WIDTH][j % WIDTH] = hashed(static_cast<uint32_t>(place) ^ how_.key);
      }
  }

  // `count` terms from t0 on of MR x NR sums.
  __attribute__((noinline)) void tile(const float* a, const float* b, int64_t t0,
                                      int64_t count, float* parts, float* wide,
                                      float* total, int64_t group, int64_t row,
                                      int64_t column) {
    constexpr bool STIRS = Way::RANDOM;
    vu start[MR * NV];
    bool stirs = STIRS || (how_.narrows && !how_.each && how_.way == STOCHASTIC);
    if (stirs) random(start, group, row, column);
    const Way add = add_;
    const int64_t end = t0 + count;
    for (int64_t t = t0; t < end;) {
      int64_t chunk = t / chunk_;
      int64_t full = std::min(terms_, (chunk + 1) * chunk_), stop = std::min(full, end);
      vf s[MR][NV][Way::PARTS];
      if (t == chunk * chunk_) {
#pragma GCC unroll 8
        for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
          for (int j = 0; j < NV; ++j)
#pragma GCC unroll 2
            for (int k = 0; k < Way::PARTS; ++k) s[i][j][k] = vf{};
      } else {
#pragma GCC unroll 8
        for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
          for (int j = 0; j < NV; ++j)
#pragma GCC unroll 2
            for (int k = 0; k < Way::PARTS; ++k)
              s[i][j][k] = load(parts + (k * MR + i) * NR + j * WIDTH);
      }
      for (; t < stop; ++t, a += MR, b += NR) {
        vf x[NV];
#pragma GCC unroll 8
        for (int j = 0; j < NV; ++j) x[j] = load(b + j * WIDTH);
#pragma GCC unroll 8
        for (int i = 0; i < MR; ++i) {
          vf y = splat(a[i]);
#pragma GCC unroll 8
          for (int j = 0; j < NV; ++j) {
            vu h{};
            if (STIRS) h = hashed(start[i * NV + j] + static_cast<uint32_t>(t) * GOLDEN);
            add.add(s[i][j], y, x[j], h);
          }
        }
      }
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < NV; ++j)
#pragma GCC unroll 2
          for (int k = 0; k < Way::PARTS; ++k)
            store(parts + (k * MR + i) * NR + j * WIDTH, s[i][j][k]);
      if (stop < full) return;
      for (int i = 0; i < MR * NV; ++i) {
        vu h{};
        if (stirs) h = hashed(start[i] + static_cast<uint32_t>(t - 1) * GOLDEN);
        promote_(chunk, full == terms_, parts + i * WIDTH, wide + i * WIDTH,
                 total + i * WIDTH, h);
      }
    }
  }

  const float *a_, *b_;
  float* out_;
  const Sum& sum_;
  const How& how_;
  const Way add_;
  const Promotion promote_;
  const std::vector<int64_t> am_, om_, at_, bt_, bn_, on_;
  const int64_t rows_, terms_, columns_, chunk_, block_;
  std::unique_ptr<float[]> packed_;
};

#if defined(ELISION_AVX512)
constexpr int ROWS = 8, ROUNDED_ROWS = 8;
#elif defined(__AVX2__)
constexpr int ROWS = 6, ROUNDED_ROWS = 4;
#else
constexpr int ROWS = 4, ROUNDED_ROWS = 2;
#endif

template <int MR, class Way>
void compute(const float* a, const float* b, float* out, const Sum& s, const How& how,
             int threads) {
  bool thin = s.m.sizes[0] * s.m.sizes[1] * s.m.sizes[2] == 1;  // one channel a group
  if (thin)
    Product<1, 8, Way>(a, b, out, s, how).run(threads);
  else
    Product<MR, 2, Way>(a, b, out, s, how).run(threads);
}

template <int KIND>
void checked(const float* a, const float* b, float* out, const Sum& s, const How& how,
             int threads) {
  if (how.way == STOCHASTIC)
    Product<2, 2, Plain<Checked<KIND, STOCHASTIC>>>(a, b, out, s, how).run(threads);
  else if (how.way == ZERO)
    Product<2, 2, Plain<Checked<KIND, ZERO>>>(a, b, out, s, how).run(threads);
  else if (how.compensated)
    Product<2, 2, Compensated<Checked<KIND, NEAREST>>>(a, b, out, s, how).run(threads);
  else
    Product<2, 2, Plain<Checked<KIND, NEAREST>>>(a, b, out, s, how).run(threads);
}

}  // namespace

// Computes one ordered sum of every output. Returns 0; -1: no memory.
extern "C" int elision_accumulate(const float* a, const float* b, float* out,
                                  const Sum* sum, const How* how, int threads) {
  try {
    if (!how->narrows && how->compensated)
      Product<2, 2, Compensated<Exact>>(a, b, out, *sum, *how).run(threads);
    else if (!how->narrows || !how->each)
      compute<ROWS, Plain<Exact>>(a, b, out, *sum, *how, threads);
    else if (how->way == NEAREST && how->bounded && how->compensated)
      Product<2, 2, Compensated<Magic>>(a, b, out, *sum, *how).run(threads);
    else if (how->way == NEAREST && how->bounded)
      compute<ROUNDED_ROWS, Plain<Magic>>(a, b, out, *sum, *how, threads);
    else if (how->narrow.kind == WIDE)
      checked<WIDE>(a, b, out, *sum, *how, threads);
    else
      checked<NARROW>(a, b, out, *sum, *how, threads);
    return 0;
  } catch (const std::bad_alloc&) {
    return -1;
  }
}
