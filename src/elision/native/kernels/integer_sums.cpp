// Products of integers, summed in chains of 32 bits: two of 16 bits an instruction, or four
// of 8 bits where the CPU has VNNI.
//
// An operand is integers times one scale (integers.cpp). A chain of them is summed exactly,
// becomes float32 times both scales, and is added to the chains before it. Tensors are read
// where they lie, by sizes and strides; terms that follow one another share a word. A task
// computes a block of outputs alone, so that results do not depend on the number of threads.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <type_traits>
#include <vector>

#include "ordered_sum.hpp"
#include "pool.hpp"
#include "vec.hpp"
#include "words.hpp"

using namespace elision;

namespace {

#if defined(ELISION_AVX512)
constexpr int MR = 8;
#else
constexpr int MR = 4;
#endif
constexpr int NV = 2, NR = NV * WIDTH, TILES = 4;
constexpr int64_t BLOCK = 256;  // words that are packed at once

// Whether a float32 times a power of two is rounded only once: no sum becomes subnormal.
static bool is_safe_power(double x) {
  int exponent;
  return std::frexp(x, &exponent) == 0.5 && exponent > -100 && exponent < 90;
}

// T: what an operand's integers are stored as. POWER: is_safe_power(worth).
template <typename T, bool POWER>
class Chains {
 public:
  Chains(const T* a, const T* b, float* out, const Sum& sum, int64_t chunk, double worth,
         bool counts)
      : a_(a + sum.a), b_(b + sum.b), out_(out + sum.out), sum_(sum), worth_(worth),
        counts_(counts), om_(walk(sum.m, 1)), on_(walk(sum.n, 1)), rows_(om_.size()),
        columns_(on_.size()), am_(walk(sum.m, 0)), bn_(walk(sum.n, 0)) {
    std::vector<int64_t> at = walk(sum.t, 0), bt = walk(sum.t, 1);
    int64_t terms = at.size();
    if (!chunk || chunk > terms) chunk = terms;
    // A chain ends with a word that may hold fewer terms; it repeats its first, times zero.
    for (int64_t begin = 0; begin < terms; begin += chunk)
      for (int64_t t = begin; t < std::min(terms, begin + chunk); t += PER) {
        Word word{};
        word.terms = std::min<int64_t>(PER, std::min(terms, begin + chunk) - t);
        word.a_together = word.b_together = word.terms == PER;
        for (int i = 0; i < PER; ++i) {
          int64_t term = i < word.terms ? t + i : t;
          word.a[i] = at[term], word.b[i] = bt[term];
          word.a_together &= word.a[i] - word.a[0] == i;
          word.b_together &= word.b[i] - word.b[0] == i;
        }
        words_.push_back(word);
      }
    count_ = words_.size();
    chain_ = (chunk + PER - 1) / PER;
    chains_ = (count_ + chain_ - 1) / chain_;
    block_ = chain_ <= BLOCK ? BLOCK / chain_ * chain_ : BLOCK;
    // Rows and columns behind the last repeat it; nothing reads their sums.
    am_.resize((rows_ + MR - 1) / MR * MR, am_.back());
    bn_.resize((columns_ + NR - 1) / NR * NR, bn_.back());
  }

  void run(int threads) {
    int64_t panels = (rows_ + MR - 1) / MR;
    int64_t strips = (columns_ + NR * TILES - 1) / (NR * TILES);
    // Few strips: their rows are split as well, at the price of packing b again.
    int64_t parts = 1;
    while (sum_.groups * strips * parts < 2 * threads && panels / parts >= 8) parts *= 2;
    int64_t own = (panels + parts - 1) / parts;
    packed_.reset(new int32_t[sum_.groups * panels * MR * count_]);
    if (BYTES) starts_.reset(new int32_t[sum_.groups * panels * MR * chains_]);
    parallel(sum_.groups * panels, threads,
             [&](int i) { pack_a(i / panels, i % panels, panels); });
    parallel(sum_.groups * strips * parts, threads, [&](int i) {
      int64_t part = i % parts, strip = i / parts % strips, group = i / parts / strips;
      int64_t begin = part * own, end = std::min(panels, begin + own);
      if (begin < end) task(group, strip * NR * TILES, begin, end, panels);
    });
  }

  // The largest sum of magnitudes of b's values in one chain, where they are counted.
  int64_t largest() const { return largest_; }

 private:
  static constexpr bool BYTES = sizeof(T) == 1;
  static constexpr int PER = 4 / sizeof(T);  // terms in a word
  static constexpr uint32_t SIGNS = BYTES ? 0x80808080 : 0;  // adds 128 to every byte

  // Terms that share a word, by their places in a and b.
  struct Word {
    int64_t a[PER], b[PER];
    int terms;
    bool a_together, b_together;
  };

  // The j-th of each row, side by side in a word.
  static inline uint32_t joined(const T* const* rows, int64_t j) {
    typedef typename std::make_unsigned<T>::type U;
    uint32_t word = 0;
#pragma GCC unroll 4
    for (int i = 0; i < PER; ++i)
      word |= static_cast<uint32_t>(static_cast<U>(rows[i][j])) << (8 * sizeof(T) * i);
    return word;
  }

  static inline uint32_t word_at(const T* from) {
    uint32_t word;
    std::memcpy(&word, from, sizeof(word));
    return word;
  }

  // Rows of a panel side by side, word by word.
  void pack_a(int64_t group, int64_t panel, int64_t panels) {
    int64_t own = group * panels + panel;
    int32_t* to = packed_.get() + own * MR * count_;
    const T* from = a_ + group * sum_.a_group;
    const int64_t* on = am_.data() + panel * MR;
    for (int64_t p = 0; p < count_; ++p) {
      const Word& word = words_[p];
      for (int r = 0; r < MR; ++r) {
        const T* row = from + on[r];
        T values[PER] = {};
        if (word.a_together)
          std::memcpy(values, row + word.a[0], sizeof(values));
        else
          for (int i = 0; i < word.terms; ++i) values[i] = row[word.a[i]];
        to[p * MR + r] = static_cast<int32_t>(word_at(values));
      }
    }
    if (!BYTES) return;
    int32_t* starts = starts_.get() + own * MR * chains_;
    std::fill_n(starts, MR * chains_, 0);
    for (int r = 0; r < MR; ++r) take_back(to + r, starts + r);
  }

  // What a chain starts with: minus the 128 times a row of a that b's bytes have too much.
  void take_back(const int32_t* row, int32_t* starts) const {
    for (int64_t p = 0; p < count_; ++p) {
      int8_t values[4];
      std::memcpy(values, row + p * MR, 4);
      starts[p / chain_ * MR] -= 128 * (values[0] + values[1] + values[2] + values[3]);
    }
  }

  // Columns of a panel side by side, word by word; RUN of them lie side by side in b.
  template <int RUN>
  void pack_b(const T* from, const int64_t* on, int64_t p0, int64_t count, int32_t* to,
              int64_t* magnitudes) {
    for (int64_t p = p0; p < p0 + count; ++p, to += NR) {
      const Word& word = words_[p];
      if (RUN < 4 && word.b_together) {
        const T* row = from + word.b[0];
        for (int j = 0; j < NR; ++j) to[j] = static_cast<int32_t>(word_at(row + on[j]) ^ SIGNS);
      } else {
        for (int k = 0; k < NR; k += RUN) {
          const T* rows[PER];
#pragma GCC unroll 4
          for (int i = 0; i < PER; ++i) rows[i] = from + word.b[i] + on[k];
          for (int j = 0; j < RUN; ++j)
            to[k + j] = static_cast<int32_t>(joined(rows, j) ^ SIGNS);
        }
      }
      if (counts_) count_magnitudes(to, p, magnitudes);
    }
  }

  void count_magnitudes(const int32_t* words, int64_t p, int64_t* magnitudes) {
    if (p % chain_ == 0) std::fill(magnitudes, magnitudes + NR, 0);
    bool paired = words_[p].terms == PER;
    for (int j = 0; j < NR; ++j) {
      int32_t x = static_cast<int16_t>(words[j]), y = paired ? words[j] >> 16 : 0;
      magnitudes[j] += (x < 0 ? -x : x) + (y < 0 ? -y : y);
    }
    if ((p + 1) % chain_ != 0 && p + 1 != count_) return;
    int64_t most = *std::max_element(magnitudes, magnitudes + NR), before = largest_;
    while (before < most && !largest_.compare_exchange_weak(before, most)) {
    }
  }

  // The longest runs of columns, aligned in a panel, that lie side by side.
  static int run_of(const int64_t* on) {
    int run = NR;
    for (int j = 1; j < NR; ++j)
      while (j % run != 0 && on[j] - on[j - 1] != 1) run /= 2;
    return run;
  }

  void pack(const T* from, const int64_t* on, int64_t p0, int64_t count, int32_t* to,
            int64_t* magnitudes) {
    switch (run_of(on)) {
      case NR: return pack_b<NR>(from, on, p0, count, to, magnitudes);
      case NR / 2: return pack_b<NR / 2>(from, on, p0, count, to, magnitudes);
      case NR / 4: return pack_b<NR / 4>(from, on, p0, count, to, magnitudes);
      case NR / 8: return pack_b<NR / 8>(from, on, p0, count, to, magnitudes);
      default: return pack_b<1>(from, on, p0, count, to, magnitudes);
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
    const T* from = b_ + group * sum_.b_group;
    std::fill(total, total + plane, 0.0f);
    for (int64_t p0 = 0; p0 < count_; p0 += block_) {
      int64_t count = std::min(block_, count_ - p0);
      for (int64_t j = 0; j < tiles; ++j)
        pack(from, bn_.data() + column + j * NR, p0, count, b + j * NR * count,
             magnitudes.data() + j * NR);
      for (int64_t i = begin; i < end; ++i) {
        int64_t panel = group * panels + i;
        const int32_t* a = packed_.get() + (panel * count_ + p0) * MR;
        const int32_t* starts = BYTES ? starts_.get() + panel * chains_ * MR : nullptr;
        for (int64_t j = 0; j < tiles; ++j) {
          size_t at = ((i - begin) * tiles + j) * MR * NR;
          if (chain_ == 1 && !BYTES)
            tile_of_words(a, b + j * NR * count, count, total + at);
          else
            tile(a, b + j * NR * count, starts, p0, count, sums + at, total + at);
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
    for (int k = 0; k < live; k += WIDTH) {
      const int64_t* on = on_.data() + column + k;
      int own = std::min(WIDTH, live - k);
      bool together = own == WIDTH;
      for (int j = 1; together && j < WIDTH; ++j) together = on[j] - on[j - 1] == 1;
      float* to = out_ + group * sum_.out_group;
      const float* from = total + k;
      if (together)
        for (int r = 0; r < rows; ++r) store(to + om_[row + r] + on[0], load(from + r * NR));
      else
        for (int j = 0; j < own; ++j)
          for (int r = 0; r < rows; ++r) to[om_[row + r] + on[j]] = from[r * NR + j];
    }
  }

  vf worth(vi sum) const {
    if (POWER) return __builtin_convertvector(sum, vf) * static_cast<float>(worth_);
    return __builtin_convertvector(__builtin_convertvector(sum, vd) * worth_, vf);
  }

  // `count` words of MR x NR sums where every word is a chain: totals stay in registers.
  __attribute__((noinline)) void tile_of_words(const int32_t* a, const int32_t* b,
                                               int64_t count, float* total) const {
    vf t[MR][NV];
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
      for (int j = 0; j < NV; ++j) t[i][j] = load(total + i * NR + j * WIDTH);
    for (int64_t p = 0; p < count; ++p, a += MR, b += NR) {
      vi x[NV];
#pragma GCC unroll 2
      for (int j = 0; j < NV; ++j) x[j] = load_words(b + j * WIDTH);
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i) {
        vi y = a[i] - vi{};
#pragma GCC unroll 2
        for (int j = 0; j < NV; ++j) t[i][j] += worth(added(vi{}, y, x[j], T{}));
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
      for (int j = 0; j < NV; ++j) store(total + i * NR + j * WIDTH, t[i][j]);
  }

  // `count` words from p0 on of MR x NR sums.
  __attribute__((noinline)) void tile(const int32_t* a, const int32_t* b,
                                      const int32_t* starts, int64_t p0, int64_t count,
                                      int32_t* sums, float* total) {
    const int64_t end = p0 + count;
    for (int64_t p = p0; p < end;) {
      int64_t chain = p / chain_, full = std::min(count_, (chain + 1) * chain_);
      int64_t stop = std::min(full, end);
      vi s[MR][NV];
      bool begins = p % chain_ == 0;
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i) {
        vi start = BYTES ? starts[chain * MR + i] - vi{} : vi{};
#pragma GCC unroll 2
        for (int j = 0; j < NV; ++j)
          s[i][j] = begins ? start : load_words(sums + i * NR + j * WIDTH);
      }
      for (; p < stop; ++p, a += MR, b += NR) {
        vi x[NV];
#pragma GCC unroll 2
        for (int j = 0; j < NV; ++j) x[j] = load_words(b + j * WIDTH);
#pragma GCC unroll 8
        for (int i = 0; i < MR; ++i) {
          vi y = a[i] - vi{};
#pragma GCC unroll 2
          for (int j = 0; j < NV; ++j) s[i][j] = added(s[i][j], y, x[j], T{});
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

  const T *a_, *b_;
  float* out_;
  const Sum& sum_;
  const double worth_;
  const bool counts_;
  const std::vector<int64_t> om_, on_;
  const int64_t rows_, columns_;
  std::vector<int64_t> am_, bn_;
  std::vector<Word> words_;
  int64_t count_, chain_, chains_, block_;  // words; words of a chain; chains
  std::unique_ptr<int32_t[]> packed_, starts_;
  std::atomic<int64_t> largest_{0};
};

// The largest sum of magnitudes that Chains counted.
template <typename T>
int64_t computed(const T* a, const T* b, float* out, const Sum& sum, int64_t chunk,
                 double worth, bool counts, int threads) {
  if (is_safe_power(worth)) {
    Chains<T, true> chains(a, b, out, sum, chunk, worth, counts);
    chains.run(threads);
    return chains.largest();
  }
  Chains<T, false> chains(a, b, out, sum, chunk, worth, counts);
  chains.run(threads);
  return chains.largest();
}

}  // namespace

// Whether there are sums of bytes: elision_integer_sums takes `bytes`.
extern "C" int elision_multiplies_bytes() {
#if defined(ELISION_BYTES)
  return 1;
#else
  return 0;
#endif
}

// Computes one ordered sum of every output, of int16 or, if `bytes`, of int8. `largest`:
// the largest magnitude in a; 0: no chain can pass 32 bits, as must be so of bytes.
// Returns 0; 1: a chain may have passed 32 bits; -1: no memory.
extern "C" int elision_integer_sums(const void* a, const void* b, float* out,
                                    const Sum* sum, int64_t chunk, double worth,
                                    int64_t largest, int bytes, int threads) {
  try {
#if defined(ELISION_BYTES)
    if (bytes) {
      auto x = static_cast<const int8_t*>(a), y = static_cast<const int8_t*>(b);
      computed(x, y, out, *sum, chunk, worth, false, threads);
      return 0;
    }
#endif
    auto x = static_cast<const int16_t*>(a), y = static_cast<const int16_t*>(b);
    int64_t most = computed(x, y, out, *sum, chunk, worth, largest > 0, threads);
    return most * largest > std::numeric_limits<int32_t>::max();
  } catch (const std::bad_alloc&) {
    return -1;
  }
}
