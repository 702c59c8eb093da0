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
};

// `start` holds what is added to, start_row floats between its rows (0: one row for all);
// null is zero.
template <int ROWS, int REGS>
void tile(const Factors& f, const float* start, ptrdiff_t start_row, float* c,
          ptrdiff_t c_row) {
  vf sum[ROWS][REGS];
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < REGS; ++j)
      sum[i][j] = start ? load(start + i * start_row + j * WIDTH) : vf{};
  for (int n = 0; n < f.count; ++n) {
    const float* a = f.a + n * f.a_step;
    const float* b = f.b + n * f.b_step;
    for (int k = 0; k < f.length; ++k, ++a, b += BLOCK) {
      vf row[REGS];
#pragma GCC unroll 4
      for (int j = 0; j < REGS; ++j) row[j] = load(b + j * WIDTH);
#pragma GCC unroll 8
      for (int i = 0; i < ROWS; ++i) {
        vf value = splat(a[i * f.a_row]);
#pragma GCC unroll 4
        for (int j = 0; j < REGS; ++j) sum[i][j] += value * row[j];
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < REGS; ++j) store(c + i * c_row + j * WIDTH, sum[i][j]);
}

template <int REGS, size_t... I>
void tile_of(int rows, const Factors& f, const float* start, ptrdiff_t start_row, float* c,
             ptrdiff_t c_row, std::index_sequence<I...>) {
  using Tile = void (*)(const Factors&, const float*, ptrdiff_t, float*, ptrdiff_t);
  // Not static: GNU systems share a template's statics between libraries, whose registers
  // may be of other widths.
  constexpr Tile TILES[] = {tile<static_cast<int>(I) + 1, REGS>...};
  TILES[rows - 1](f, start, start_row, c, c_row);
}

// All columns of at most wide_rows rows.
template <int COLUMNS>
void strip(int rows, Factors f, const float* start, ptrdiff_t start_row, float* c,
           ptrdiff_t c_row) {
  constexpr int REGS = registers_of(COLUMNS);
  for (int column = 0; column < COLUMNS; column += REGS * WIDTH) {
    tile_of<REGS>(rows, f, start ? start + column : nullptr, start_row, c + column, c_row,
                  std::make_index_sequence<wide_rows(REGS)>{});
    f.b += REGS * WIDTH;
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
