// A recurrent layer with sparse weights, in one direction, forward and backward.
//
// Sequences lie in the lanes of the registers: [unit][lane], so that a weight that is not
// zero is one value for all lanes, wherever it stands. Lanes come in blocks, whose memory is
// [step][lane block][row][lanes]: the rows that a list of weights reads then stay in the L2.
// A sequence that is not alive in a step computes on, from zero inputs; nothing of it is
// read, and on the way back its gradient is zero until it lives.
//
// The gradient of a weight is computed at the places of its lists alone: it is the product
// of two rows, summed over steps and lanes.
#pragma once

#include <algorithm>
#include <vector>

#include "cells.hpp"
#include "large.hpp"
#include "layer.hpp"
#include "pool.hpp"
#include "sparse_lists.hpp"

namespace elision {

// `v` gives the shapes, the state and what is wanted; its weights, gates and cells are not
// read. Memory kept for the backward pass: xs [steps][blocks][inputs][lanes], gates
// [steps][blocks][4 · units][lanes], states (and cells) [steps + 1][blocks][units][lanes].
//
// Without lists of the weight on the input, the input is that weight's product with what the
// layer reads, bias b_ih included: [tokens][gates · units]; its gradient is among those of the
// gates. Whose weight gradients are not asked for is null.
struct SparseLayer {
  const Layer* layer;
  const Lists *input, *hidden;  // input: may be null
  int64_t lanes;  // of a block
  float *xs, *gates, *states, *cells;
  float *dw_input, *dw_hidden;  // in the order of row_values
  float* owed;  // the gates' gradients, [tokens][4 · units]; null where not asked for
};

template <typename Cell, int REGS>
class SparseRecurrence {
  static constexpr int LANES_ = REGS * WIDTH;
  // Rows of the gates in memory: a GRU's last are the state's part of its third gate, which
  // is the third of the weights on the state.
  static constexpr int SHIFTED = Cell::GATES == 3 ? 2 : 4;

 public:
  explicit SparseRecurrence(const SparseLayer& layer)
      : s(layer),
        v(*layer.layer),
        order(steps_of(v)),
        units(static_cast<int>(v.units)),
        inputs(static_cast<int>(v.inputs)),
        threads(static_cast<int>(v.threads)),
        sequences(static_cast<int>(v.sizes[0])),
        blocks((sequences + LANES_ - 1) / LANES_),
        groups(std::min(units, std::max(1, (threads + blocks - 1) / blocks))) {}

  void forward() {
    size_t step_x = step_floats(inputs), step_h = step_floats(units);
    in_large_pages(s.xs, order.size() * step_x * sizeof(float));
    in_large_pages(s.gates, order.size() * 4 * step_h * sizeof(float));
    in_large_pages(s.states, (order.size() + 1) * step_h * sizeof(float));
    if (Cell::HAS_CELLS) in_large_pages(s.cells, (order.size() + 1) * step_h * sizeof(float));
    std::fill_n(s.states, step_h, 0.0f);
    if (Cell::HAS_CELLS) std::fill_n(s.cells, step_h, 0.0f);
    parallel(static_cast<int>(order.size()) * blocks, threads, [&](int task) {
      int n = task / blocks, block = task % blocks;
      into_lanes(v.x, order[n].token, order[n].rows, inputs, block, at(s.xs, n, block, inputs));
    });
    for (size_t n = 0; n < order.size(); ++n) {
      const Step& step = order[n];
      int next = n + 1 < order.size() ? order[n + 1].continued : 0;
      begin_sequences(static_cast<int>(n), step);
      parallel(blocks * groups, threads, [&](int task) {
        int block = task / groups, group = task % groups;
        step_forward(static_cast<int>(n), block, units * group / groups,
                     units * (group + 1) / groups);
      });
      parallel(blocks, threads, [&](int block) {
        out_of_lanes(at(s.states, n + 1, block, units), block, step.rows, units,
                     v.y + static_cast<size_t>(step.token) * units);
        for (int i = next; i < step.rows; ++i) {
          if (i / LANES_ != block) continue;
          lane(at(s.states, n + 1, block, units), i, units, v.hn);
          if (Cell::HAS_CELLS) lane(at(s.cells, n + 1, block, units), i, units, v.cn);
        }
      });
    }
  }

  void backward() {
    size_t step_h = step_floats(units);
    Floats dh(step_h, 0.0f), dc(step_h, 0.0f), dy(step_h);
    if (v.dx) in_large_pages(v.dx, sizeof(float) * tokens() * inputs);
    if (s.owed) in_large_pages(s.owed, sizeof(float) * tokens() * 4 * units);
    for (int n = static_cast<int>(order.size()) - 1; n >= 0; --n) {
      const Step& step = order[n];
      int next = n + 1 < static_cast<int>(order.size()) ? order[n + 1].continued : 0;
      for (int i = next; i < step.rows; ++i) {  // sequences that end here
        put_lane(v.dh, i, units, dh.get());
        if (Cell::HAS_CELLS) put_lane(v.dc, i, units, dc.get());
      }
      parallel(blocks, threads, [&](int block) {
        into_lanes(v.dy, step.token, step.rows, units, block, dy.get() + block_floats(block));
      });
      parallel(blocks * groups, threads, [&](int task) {
        int block = task / groups, group = task % groups;
        step_backward(n, block, units * group / groups, units * (group + 1) / groups, dh, dc,
                      dy);
      });
      parallel(blocks * groups, threads, [&](int task) {
        int block = task / groups, group = task % groups;
        carry(n, block, units * group / groups, units * (group + 1) / groups, dh);
      });
      for (int i = step.continued; i < step.rows; ++i) {  // sequences that began here
        take_lane(dh.get(), i, v.dh);
        if (Cell::HAS_CELLS) take_lane(dc.get(), i, v.dc);
      }
    }
    int all = static_cast<int>(order.size()) * blocks;
    if (v.dx)
      parallel(all, threads, [&](int task) { input_gradient(task / blocks, task % blocks); });
    if (s.owed)
      parallel(all, threads, [&](int task) {
        int n = task / blocks, block = task % blocks;
        out_of_lanes(at(s.gates, n, block, 4 * units), block, order[n].rows, 4 * units,
                     s.owed + static_cast<size_t>(order[n].token) * 4 * units);
      });
    // Null where no weight is left, too.
    if (s.dw_input) weight_gradient(*s.input, s.xs, inputs, false, s.dw_input);
    if (s.dw_hidden) weight_gradient(*s.hidden, s.states, units, true, s.dw_hidden);
    if (v.db_ih) bias_gradients();
  }

 private:
  size_t step_floats(int rows) const { return static_cast<size_t>(blocks) * rows * LANES_; }
  size_t block_floats(int block) const { return static_cast<size_t>(block) * units * LANES_; }
  float* at(float* from, size_t step, int block, int rows) const {
    return from + (step * blocks + block) * rows * LANES_;
  }
  size_t tokens() const {
    size_t count = 0;
    for (const Step& step : order) count += step.rows;
    return count;
  }
  static int row_of_hidden(int row, int units) {
    return row >= SHIFTED * units ? row + units : row;
  }

  // --- lanes ---------------------------------------------------------------------------

  // Rows from `token` on, of which there are `rows`, as lanes; others are zero.
  void into_lanes(const float* from, int token, int rows, int width, int block,
                  float* to) const {
    int first = block * LANES_, live = std::max(0, std::min(LANES_, rows - first));
    const float* row = from + static_cast<size_t>(token + first) * width;
    for (int i = 0; i < LANES_; i += 16) {
      int count = std::max(0, std::min(16, live - i));
      for (int c = 0; c < width; c += 16) {
        int columns = std::min(16, width - c);
        float* out = to + static_cast<size_t>(c) * LANES_ + i;
        if (count == 16 && columns == 16) {
          transpose16(row + static_cast<size_t>(i) * width + c, width, out, LANES_);
          continue;
        }
        for (int j = 0; j < columns; ++j)
          for (int l = 0; l < 16; ++l)
            out[j * LANES_ + l] =
                l < count ? row[static_cast<size_t>(i + l) * width + c + j] : 0.0f;
      }
    }
  }
  void out_of_lanes(const float* from, int block, int rows, int width, float* to) const {
    int first = block * LANES_, live = std::max(0, std::min(LANES_, rows - first));
    for (int i = 0; i < live; i += 16)
      for (int c = 0; c < width; c += 16) {
        int count = std::min(16, live - i), columns = std::min(16, width - c);
        const float* in = from + static_cast<size_t>(c) * LANES_ + i;
        float* out = to + static_cast<size_t>(first + i) * width + c;
        if (count == 16 && columns == 16) {
          transpose16(in, LANES_, out, width);
          continue;
        }
        for (int l = 0; l < count; ++l)
          for (int j = 0; j < columns; ++j)
            out[static_cast<size_t>(l) * width + j] = in[j * LANES_ + l];
      }
  }
  // One sequence's values out of a block, into row `i`.
  void lane(const float* from, int i, int width, float* to) const {
    for (int u = 0; u < width; ++u)
      to[static_cast<size_t>(i) * width + u] = from[u * LANES_ + i % LANES_];
  }
  // A row into a sequence's lane, in [block][units][lanes], whatever NaN weights left there.
  void put_lane(const float* from, int i, int width, float* to) const {
    float* block = to + block_floats(i / LANES_);
    for (int u = 0; u < width; ++u)
      block[u * LANES_ + i % LANES_] = from[static_cast<size_t>(i) * width + u];
  }
  // A sequence's lane out of memory, leaving zero.
  void take_lane(float* from, int i, float* to) const {
    float* block = from + block_floats(i / LANES_);
    for (int u = 0; u < units; ++u) {
      to[static_cast<size_t>(i) * units + u] = block[u * LANES_ + i % LANES_];
      block[u * LANES_ + i % LANES_] = 0.0f;
    }
  }

  // --- forward -------------------------------------------------------------------------

  void begin_sequences(int n, const Step& step) const {
    for (int i = step.continued; i < step.rows; ++i) {
      int block = i / LANES_;
      float* h = at(s.states, n, block, units);
      float* c = Cell::HAS_CELLS ? at(s.cells, n, block, units) : nullptr;
      for (int u = 0; u < units; ++u) {
        h[u * LANES_ + i % LANES_] = v.h0[static_cast<size_t>(i) * units + u];
        if (c) c[u * LANES_ + i % LANES_] = v.c0[static_cast<size_t>(i) * units + u];
      }
    }
  }

  void step_forward(int n, int block, int low, int high) const {
    const float* x = at(s.xs, n, block, inputs);
    const float* before = at(s.states, n, block, units);
    float* gates = at(s.gates, n, block, 4 * units);
    float* h = at(s.states, n + 1, block, units);
    float* c = Cell::HAS_CELLS ? at(s.cells, n, block, units) : nullptr;
    float* cell = Cell::HAS_CELLS ? at(s.cells, n + 1, block, units) : nullptr;
    for (int u = low; u < high; ++u) {
      float* rows[4];
      for (int g = 0; g < 4; ++g)
        rows[g] = gates + (static_cast<ptrdiff_t>(g) * units + u) * LANES_;
      for (int g = 0; g < Cell::GATES; ++g) {
        int row = g * units + u;
        float bx = v.b_ih ? v.b_ih[row] : 0.0f, bh = v.b_hh ? v.b_hh[row] : 0.0f;
        float* own = rows[g];
        float* state = g >= SHIFTED ? rows[g + 1] : own;
        alignas(64) float start[LANES_];
        std::fill_n(start, LANES_, state == own ? bx + bh : bx);
        if (s.input)
          list_sum(*s.input, row, x, start, own);
        else
          for (int j = 0; j < LANES_; j += WIDTH)
            store(own + j, load(start + j) + load(x + static_cast<size_t>(row) * LANES_ + j));
        if (state != own) std::fill_n(start, LANES_, bh);
        list_sum(*s.hidden, row, before, state == own ? own : start, state);
      }
      ptrdiff_t at_unit = static_cast<ptrdiff_t>(u) * LANES_;
      Cell::forward(rows, LANES_, before + at_unit, c ? c + at_unit : nullptr, h + at_unit,
                    cell ? cell + at_unit : nullptr);
    }
  }
  static void list_sum(const Lists& w, int row, const float* rows, const float* start,
                       float* out) {
    int first = w.row_start[row];
    sum_list<REGS>(w.row_place + first, w.row_values + first, w.row_start[row + 1] - first,
                   rows, start, out);
  }

  // --- backward ------------------------------------------------------------------------

  void step_backward(int n, int block, int low, int high, const Floats& dh, const Floats& dc,
                     const Floats& dy) const {
    float* gates = at(s.gates, n, block, 4 * units);
    for (int u = low; u < high; ++u) {
      ptrdiff_t place = static_cast<ptrdiff_t>(u) * LANES_;
      float* rows[4];
      for (int g = 0; g < 4; ++g)
        rows[g] = gates + (static_cast<ptrdiff_t>(g) * units + u) * LANES_;
      size_t own = block_floats(block) + place;
      Cell::backward(rows, LANES_, at(s.states, n, block, units) + place,
                     Cell::HAS_CELLS ? at(s.cells, n, block, units) + place : nullptr,
                     Cell::HAS_CELLS ? at(s.cells, n + 1, block, units) + place : nullptr,
                     &dy[own], &dh[own], &dc[own]);
    }
  }

  // column_place of the hidden lists names rows of the gates in memory.
  void carry(int n, int block, int low, int high, const Floats& dh) const {
    const float* gates = at(s.gates, n, block, 4 * units);
    for (int u = low; u < high; ++u) {
      float* to = &dh[block_floats(block) + static_cast<size_t>(u) * LANES_];
      int first = s.hidden->column_start[u];
      sum_list<REGS>(s.hidden->column_place + first, s.hidden->column_values + first,
                     s.hidden->column_start[u + 1] - first, gates, to, to);
    }
  }

  void input_gradient(int n, int block) const {
    const float* gates = at(s.gates, n, block, 4 * units);
    float* made = scratch(0, static_cast<size_t>(inputs) * LANES_);
    for (int c = 0; c < inputs; ++c) {
      int first = s.input->column_start[c];
      sum_list<REGS>(s.input->column_place + first, s.input->column_values + first,
                     s.input->column_start[c + 1] - first, gates, nullptr,
                     made + static_cast<size_t>(c) * LANES_);
    }
    out_of_lanes(made, block, order[n].rows, inputs,
                 v.dx + static_cast<size_t>(order[n].token) * inputs);
  }

  void weight_gradient(const Lists& w, float* operand, int width, bool hidden,
                       float* gradient) const {
    std::fill_n(gradient, w.row_start[w.rows], 0.0f);
    // So many steps' operands as fit half an L2 of 1 MiB.
    int all = static_cast<int>(order.size()) * blocks;
    int most = std::max(1, (512 << 10) / (width * LANES_ * 4));
    int parts = std::min<int>(static_cast<int>(w.rows), 4 * threads);
    parallel(parts, threads, [&](int part) {
      int low = static_cast<int>(w.rows * part / parts);
      int high = static_cast<int>(w.rows * (part + 1) / parts);
      for (int begin = 0; begin < all; begin += most) {
        int count = std::min(most, all - begin);
        const float* others = operand + static_cast<size_t>(begin) * width * LANES_;
        for (int row = low; row < high; ++row) {
          int own = hidden ? row_of_hidden(row, units) : row, first = w.row_start[row];
          const float* gates =
              s.gates + (static_cast<size_t>(begin) * 4 * units + own) * LANES_;
          dot_list<REGS>(w.row_place + first, w.row_start[row + 1] - first, gates,
                         static_cast<ptrdiff_t>(4) * units * LANES_, others,
                         static_cast<ptrdiff_t>(width) * LANES_, count, gradient + first);
        }
      }
    });
  }

  void bias_gradients() const {
    size_t all = order.size() * blocks, step = static_cast<size_t>(4) * units * LANES_;
    parallel(4 * units, threads, [&](int row) {
      double total = 0;
      for (size_t b = 0; b < all; ++b) {
        const float* from = s.gates + b * step + static_cast<size_t>(row) * LANES_;
        float sum = 0;
        for (int l = 0; l < LANES_; ++l) sum += from[l];
        total += sum;
      }
      float value = static_cast<float>(total);
      int gate = row / units;
      if (gate < Cell::GATES) v.db_ih[row] = value;
      if (gate < SHIFTED || Cell::GATES == 4)
        v.db_hh[row] = value;
      else if (gate > SHIFTED)
        v.db_hh[row - units] = value;
    });
  }

  const SparseLayer& s;
  const Layer& v;
  std::vector<Step> order;
  int units, inputs, threads, sequences, blocks, groups;
};

}  // namespace elision
