// One run over a recurrent layer: its sizes, and where gates, cells and what is carried back
// lie. Shared by the kernels of floats and of bfloat16, whose products differ.
#pragma once

#include <algorithm>
#include <vector>

#include "layer.hpp"

namespace elision {

template <typename Cell, typename Value>
class Run {
 protected:
  static constexpr int UNITS = 16, BLOCK = 64;  // units of a block, columns of its gates

  explicit Run(const LayerOf<Value>& layer)
      : v(layer),
        units(static_cast<int>(v.units)),
        inputs(static_cast<int>(v.inputs)),
        threads(static_cast<int>(v.threads)),
        blocks((units + UNITS - 1) / UNITS),
        sequences(static_cast<int>(v.sizes[0])),
        order(steps_of(v)),
        starts_at_zero(std::all_of(v.h0, v.h0 + v.sizes[0] * v.units,
                                   [](float h) { return h == 0.0f; })) {
    for (const Step& step : order) tokens += step.rows;
  }

  Value* gates_of(int block, int token) const {
    return v.gates + (static_cast<size_t>(block) * tokens + token) * BLOCK;
  }
  struct Rows {
    float* row[4];
  };
  static Rows rows_of(float* gates) {
    const int* at = Cell::ROWS;
    return {{gates + at[0], gates + at[1], gates + at[2], gates + at[3]}};
  }
  float* cells_of(int block, int row) const {
    return v.cells + (static_cast<size_t>(block) * (tokens + sequences) + row) * UNITS;
  }
  int live(int block) const { return std::min(UNITS, units - block * UNITS); }
  const float* cells_before(const Step& step, int block, int n) const {
    return cells_of(block, n < step.continued ? step.before + n : tokens + n);
  }
  void cells_row(const float* from, int row, float* to, int rows, int to_row) const {
    for (int u = 0; u < units; ++u)
      to[(static_cast<size_t>(u / UNITS) * rows + to_row) * UNITS + u % UNITS] =
          from[static_cast<size_t>(row) * units + u];
  }
  void blocks_of_cells() const {
    for (int b = 0; b < blocks; ++b)
      std::fill_n(cells_of(b, tokens), sequences * UNITS, 0.0f);
    for (int n = 0; n < sequences; ++n)
      cells_row(v.c0, n, v.cells, tokens + sequences, tokens + n);
  }
  // What the last states' gradients are, for rows of so many sequences or more.
  void take_carried(int rows) {
    width = (units + BLOCK - 1) / BLOCK * BLOCK;
    carried.assign(static_cast<size_t>(rows) * width, 0.0f);
    cell_grads.assign(static_cast<size_t>(blocks) * sequences * UNITS, 0.0f);
    for (int n = 0; n < sequences; ++n) {
      std::copy_n(v.dh + static_cast<size_t>(n) * units, units,
                  &carried[static_cast<size_t>(n) * width]);
      if (v.dc) cells_row(v.dc, n, cell_grads.data(), sequences, n);
    }
  }
  // What has been carried to the first states.
  void give_carried() const {
    for (int n = 0; n < sequences; ++n) {
      std::copy_n(&carried[static_cast<size_t>(n) * width], units,
                  v.dh + static_cast<size_t>(n) * units);
      if (v.dc)
        for (int u = 0; u < units; ++u)
          v.dc[static_cast<size_t>(n) * units + u] =
              cell_grads[(static_cast<size_t>(u / UNITS) * sequences + n) * UNITS +
                         u % UNITS];
    }
  }

  const LayerOf<Value>& v;
  int units, inputs, threads, blocks, sequences, tokens = 0;
  std::vector<Step> order;        // of computing
  bool starts_at_zero;
  int width = 0;                  // of a row of what is carried
  std::vector<float> carried;     // [sequences or more][width]
  std::vector<float> cell_grads;  // [block][sequences][16]
};

}  // namespace elision
