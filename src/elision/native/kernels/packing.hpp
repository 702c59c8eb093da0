// Matrices turned round: as the recurrent products read them.
#pragma once

#include <algorithm>

#include "vec.hpp"

namespace elision {

// The transpose of [rows][columns].
static inline void transposed(const float* from, ptrdiff_t from_row, int rows, int columns,
                              float* to, ptrdiff_t to_row) {
  for (int r = 0; r < rows; r += 16)
    for (int c = 0; c < columns; c += 16) {
      if (r + 16 <= rows && c + 16 <= columns) {
        transpose16(from + r * from_row + c, from_row, to + c * to_row + r, to_row);
        continue;
      }
      for (int i = r; i < std::min(r + 16, rows); ++i)
        for (int j = c; j < std::min(c + 16, columns); ++j)
          to[j * to_row + i] = from[i * from_row + j];
    }
}

// Up to 16 rows, anywhere, as columns.
static inline void columns_of(const float* const* rows, int count, int low, int high,
                              float* to, ptrdiff_t to_row) {
  for (int c = low; c < high; c += 16) {
    float square[16 * 16];
    if (count == 16 && c + 16 <= high) {
      for (int i = 0; i < 16; ++i) copy_lanes(square + 16 * i, rows[i] + c);
      transpose16(square, 16, to + c * to_row, to_row);
      continue;
    }
    for (int i = 0; i < count; ++i)
      for (int j = c; j < std::min(c + 16, high); ++j)
        to[j * to_row + i] = rows[i][j];
  }
}

}  // namespace elision
