// Lists of a weight's non-zeros, of its values as they are.
#include "sparse_lists.hpp"

using namespace elision;

// The starts of all lists of [rows][columns]; returns the number of values.
extern "C" int64_t elision_lists_count(const float* weight, int64_t rows, int64_t columns,
                                       int32_t* row_start, int32_t* column_start) {
  std::fill_n(column_start, columns + 1, 0);
  int32_t total = 0;
  for (int64_t row = 0; row < rows; ++row, weight += columns) {
    row_start[row] = total;
    for (int64_t c = 0; c < columns; ++c) {
      int live = weight[c] != 0.0f;  // NaN is
      total += live;
      column_start[c + 1] += live;
    }
  }
  row_start[rows] = total;
  for (int64_t c = 0; c < columns; ++c) column_start[c + 1] += column_start[c];
  return total;
}

// Places and values of both lists. Rows from `shift_from` on are named `shift` higher by the
// lists of columns. `next` is memory for an integer a column.
extern "C" void elision_lists_fill(const float* weight, int64_t shift_from, int64_t shift,
                                   const Lists* lists, int32_t* next) {
  auto* row_place = const_cast<int32_t*>(lists->row_place);
  auto* row_values = const_cast<float*>(lists->row_values);
  auto* column_place = const_cast<int32_t*>(lists->column_place);
  auto* column_values = const_cast<float*>(lists->column_values);
  std::copy_n(lists->column_start, lists->columns, next);
  for (int64_t row = 0, n = 0; row < lists->rows; ++row, weight += lists->columns) {
    int32_t named = static_cast<int32_t>(row + (row >= shift_from ? shift : 0));
    for (int64_t c = 0; c < lists->columns; ++c) {
      if (weight[c] == 0.0f) continue;
      row_place[n] = static_cast<int32_t>(c);
      row_values[n++] = weight[c];
      column_place[next[c]] = named;
      column_values[next[c]++] = weight[c];
    }
  }
}
