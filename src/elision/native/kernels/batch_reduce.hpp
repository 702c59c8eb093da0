// The batch-reduce product: C += sum over i of A_i · B_i, with C in registers throughout.
//
// C is a strip of a few rows and at most 64 columns. A_i is read value by value and spread
// over a register, so its rows lie anywhere; B_i has rows of 64 floats side by side, of
// which the strip reads the first `columns`. Every product of a recurrent layer is of this
// form (Georganas et al., "Harnessing deep learning via a single building block",
// arXiv 1906.06440).
#pragma once

#include <algorithm>
#include <utility>

#include "vec.hpp"

namespace elision {

constexpr int BLOCK = 64;  // columns of B side by side: four gates of 16 units

// Registers of a row of accumulators, and rows: accumulators, one row of B and one value of
// A fit the 32 registers of AVX-512 and the 16 of the others.
#if defined(ELISION_AVX512)
constexpr int wide_rows(int registers) { return registers == 3 ? 8 : 6; }
constexpr int registers_of(int columns) { return columns / WIDTH; }
#else
constexpr int wide_rows(int) { return REGISTERS / 2; }
constexpr int registers_of(int) { return 2; }
#endif

// A_i begins at a + i · a_step, B_i at b + i · b_step; `length` columns of A_i, rows of B_i.
struct Factors {
  const float* a;
  ptrdiff_t a_row, a_step;
  const float* b;
  ptrdiff_t b_step;
  int count, length;

  static constexpr bool SCATTERED = false, PAIRS = false;
  const float* left(int i, int row) const { return a + i * a_step + row * a_row; }
  const float* right(int i) const { return b + i * b_step; }
  int depth(int) const { return length; }
  ptrdiff_t column() const { return 1; }
  void skip_columns(int columns) { b += columns; }
};

struct Piece {
  ptrdiff_t a, b;
  int length;
};

// A_i and B_i at any places, rows of A_i and of C at any places: pixels of a strip. `OF_PAIRS`:
// a word is not a float but two values of bfloat16.
template <bool OF_PAIRS>
struct Pixels {
  const float *a, *b;
  const Piece* list;
  int count;
  ptrdiff_t from[8], to[8];  // of each row: in A, in C

  static constexpr bool SCATTERED = true, PAIRS = OF_PAIRS;
  const float* left(int i, int row) const { return a + list[i].a + from[row]; }
  const float* right(int i) const { return b + list[i].b; }
  int depth(int i) const { return list[i].length; }
  ptrdiff_t column() const { return 1; }
  void skip_columns(int columns) { b += columns; }
};

// A_i and B_i at any places, rows of A_i side by side: channels of pixels `step` apart.
template <bool OF_PAIRS>
struct Channels {
  const float *a, *b;
  ptrdiff_t step;
  const Piece* list;
  int count;

  static constexpr bool SCATTERED = false, PAIRS = OF_PAIRS;
  const float* left(int i, int row) const { return a + list[i].a + row; }
  const float* right(int i) const { return b + list[i].b; }
  int depth(int i) const { return list[i].length; }
  ptrdiff_t column() const { return step; }
  void skip_columns(int columns) { b += columns; }
};

// What is done to a sum that is complete: scale and shift of each column (null: none), then
// what is below zero becomes zero.
struct Post {
  const float* scale = nullptr;
  const float* shift = nullptr;
  bool relu = false;

  vf of(vf sum, int column) const {
    if (scale) sum = sum * load(scale + column);
    if (shift) sum = sum + load(shift + column);
    return relu ? (sum < vf{} ? vf{} : sum) : sum;  // NaN stays
  }
  Post from(int column) const {
    return {scale ? scale + column : nullptr, shift ? shift + column : nullptr, relu};
  }
};

typedef uint32_t words_of_register __attribute__((vector_size(WIDTH * 4)));

// One word in all lanes; no arithmetic, which would change what is no float.
static inline vf splat_word(const float* p) {
  uint32_t word;
  std::memcpy(&word, p, sizeof word);
  words_of_register words = word - words_of_register{};
  return reinterpret_cast<vf>(words);
}

// sum + a.low · b.low + a.high · b.high, of pairs of bfloat16 in words. The CPU's instruction
// takes numbers below the smallest normal float as zero.
static inline vf add_pairs(vf sum, vf a, vf b) {
#if defined(ELISION_AVX512)
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  return sum;
#else
  auto low = [](vf pairs) {
    return reinterpret_cast<vf>(reinterpret_cast<words_of_register>(pairs) << 16);
  };
  auto high = [](vf pairs) {
    return reinterpret_cast<vf>(reinterpret_cast<words_of_register>(pairs) & 0xffff0000u);
  };
  return sum + low(a) * low(b) + high(a) * high(b);
#endif
}

// Whether pairs can be multiplied on this CPU by what was compiled.
static inline bool multiplies_pairs() {
#if defined(ELISION_AVX512)
  return __builtin_cpu_supports("avx512bf16");
#else
  return true;
#endif
}

// `start` holds what is added to, start_row floats between its rows (0: one row for all);
// null is zero. Registers of a row are `c_step` floats apart.
template <int ROWS, int REGS, typename F>
void tile(const F& f, const float* start, ptrdiff_t start_row, float* c, ptrdiff_t c_row,
          ptrdiff_t c_step, const Post* post) {
  auto c_at = [&](int i) {
    if constexpr (F::SCATTERED) return f.to[i];
    return i * c_row;
  };
  auto start_at = [&](int i) {
    if constexpr (F::SCATTERED) return f.to[i];
    return i * start_row;
  };
  vf sum[ROWS][REGS];
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < REGS; ++j)
      sum[i][j] = start ? load(start + start_at(i) + j * c_step) : vf{};
  ptrdiff_t column = f.column();
  for (int n = 0; n < f.count; ++n) {
    const float* a[ROWS];
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i) a[i] = f.left(n, i);
    const float* b = f.right(n);
    ptrdiff_t at = 0;
    for (int k = f.depth(n); k > 0; --k, at += column, b += BLOCK) {
      vf row[REGS];
#pragma GCC unroll 4
      for (int j = 0; j < REGS; ++j) row[j] = load(b + j * WIDTH);
#pragma GCC unroll 8
      for (int i = 0; i < ROWS; ++i) {
        vf value = F::PAIRS ? splat_word(a[i] + at) : splat(a[i][at]);
#pragma GCC unroll 4
        for (int j = 0; j < REGS; ++j) {
          if constexpr (F::PAIRS)
            sum[i][j] = add_pairs(sum[i][j], value, row[j]);
          else
            sum[i][j] += value * row[j];
        }
      }
    }
  }
  if (post) {
#pragma GCC unroll 4
    for (int j = 0; j < REGS; ++j)
#pragma GCC unroll 8
      for (int i = 0; i < ROWS; ++i) sum[i][j] = post->of(sum[i][j], j * WIDTH);
  }
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < REGS; ++j) store(c + c_at(i) + j * c_step, sum[i][j]);
}

template <int REGS, typename F, size_t... I>
void tile_of(int rows, const F& f, const float* start, ptrdiff_t start_row, float* c,
             ptrdiff_t c_row, ptrdiff_t c_step, const Post* post,
             std::index_sequence<I...>) {
  using Tile = void (*)(const F&, const float*, ptrdiff_t, float*, ptrdiff_t, ptrdiff_t,
                        const Post*);
  // Not static: GNU systems share a template's statics between libraries, whose registers
  // may be of other widths.
  constexpr Tile TILES[] = {tile<static_cast<int>(I) + 1, REGS, F>...};
  TILES[rows - 1](f, start, start_row, c, c_row, c_step, post);
}

// All columns of at most wide_rows rows.
template <int COLUMNS, typename F>
void strip(int rows, F f, const float* start, ptrdiff_t start_row, float* c,
           ptrdiff_t c_row) {
  constexpr int REGS = registers_of(COLUMNS);
  for (int column = 0; column < COLUMNS; column += REGS * WIDTH) {
    tile_of<REGS>(rows, f, start ? start + column : nullptr, start_row, c + column, c_row,
                  WIDTH, nullptr, std::make_index_sequence<wide_rows(REGS)>{});
    f.skip_columns(REGS * WIDTH);
  }
}

// Calls work(row, rows) for strips of nearly equal height.
template <int COLUMNS, typename Work>
void in_strips(int begin, int end, const Work& work) {
  constexpr int MOST = wide_rows(registers_of(COLUMNS));
  int strips = (end - begin + MOST - 1) / MOST;
  for (int s = 0, row = begin; s < strips; ++s) {
    int rows = (end - row + strips - s - 1) / (strips - s);
    work(row, rows);
    row += rows;
  }
}

// The sum of rows of a block of columns, added to `total`.
static inline void add_rows(const float* rows, int count, float* total) {
  float sum[BLOCK] = {};
  for (int n = 0; n < count; ++n, rows += BLOCK)
    for (int j = 0; j < BLOCK; ++j) sum[j] += rows[j];
  for (int j = 0; j < BLOCK; ++j) total[j] += sum[j];
}

// C of any width in a matrix: the last block of columns goes through memory of its own.
inline void add_strip(int rows, const Factors& f, int columns, bool add, float* c,
                      ptrdiff_t c_row) {
  if (columns >= BLOCK) return strip<BLOCK>(rows, f, add ? c : nullptr, c_row, c, c_row);
  float part[8 * BLOCK] = {};
  if (add)
    for (int i = 0; i < rows; ++i)
      std::copy(c + i * c_row, c + i * c_row + columns, part + i * BLOCK);
  strip<BLOCK>(rows, f, part, BLOCK, part, BLOCK);
  for (int i = 0; i < rows; ++i)
    std::copy(part + i * BLOCK, part + i * BLOCK + columns, c + i * c_row);
}

}  // namespace elision
