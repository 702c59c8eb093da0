// A recurrent layer in one direction, forward and backward, for any cell.
//
// Tokens are the rows of the steps, one step after another; a step has at most as many as
// the step before it (a packed sequence), and row n of every step belongs to sequence n.
// Units come in blocks of 16. What a block's gates hold is kept as [block][token][64], so
// that one strip of a product is a strip of gates (the cell is computed while it is hot),
// the backward products read it as their left operand, batch by batch, and the products of
// the weight gradients as their right one. The backward pass overwrites the gates by their
// gradients.
//
// A cell (cells.hpp) says which of the 64 columns come from the input, which from the state,
// and where torch's gates lie in them.
#pragma once

#include <algorithm>
#include <vector>

#include "batch_reduce.hpp"
#include "cells.hpp"
#include "large.hpp"
#include "layer.hpp"
#include "packing.hpp"
#include "flushing.hpp"
#include "pool.hpp"
#include "run.hpp"

namespace elision {

constexpr int UNITS = 16;  // of a block
// Rows and depths whose operands fit an L2 of 1 MiB beside each other (measured: 64 to 512
// differ little).
constexpr int TOKEN_ROWS = 120;    // rows of X that meet one block of weights
constexpr int DEPTH_BLOCKS = 8;    // blocks of gates that are summed over at a time
constexpr int DEPTH_PART = 192;    // rows of a weight gradient that meet one block of gates
constexpr int DEPTH_TOKENS = 512;  // most tokens that are summed over at a time
constexpr int TOKENS_ROW = DEPTH_TOKENS + 16;  // not a power of two: no two in one cache set

inline int blocks_of(int count, int size) { return (count + size - 1) / size; }

template <typename Cell>
class Recurrence : Run<Cell, float> {
  using Base = Run<Cell, float>;
  using Base::blocks;
  using Base::blocks_of_cells;
  using Base::carried;
  using Base::cell_grads;
  using Base::cells_before;
  using Base::cells_of;
  using Base::gates_of;
  using Base::inputs;
  using Base::live;
  using Base::order;
  using Base::rows_of;
  using Base::sequences;
  using Base::starts_at_zero;
  using Base::threads;
  using Base::tokens;
  using Base::units;
  using Base::v;
  using Base::width;
  using typename Base::Rows;
  static_assert(Base::UNITS == UNITS && Base::BLOCK == BLOCK);
  static constexpr int WIDE_X = Cell::X_COLUMNS, WIDE_H = Cell::H_COLUMNS;

 public:
  explicit Recurrence(const Layer& layer) : Base(layer) {}

  void forward() {
    size_t bytes = static_cast<size_t>(blocks) * tokens * BLOCK * sizeof(float);
    in_large_pages(v.gates, bytes);
    if (v.cells) in_large_pages(v.cells, bytes / 4);
    in_large_pages(v.y, static_cast<size_t>(tokens) * units * sizeof(float));
    if (v.x) {
      Floats bias = packed_bias();
      input_part(bias.get());
    }  // else the gates hold what the input and the biases give
    Floats packed = packed_columns(v.w_hh, units, Cell::H_GATES);
    if (v.c0) blocks_of_cells();
    for (size_t s = 0; s < order.size(); ++s) {
      parallel(blocks, threads, [&](int block) { step_forward(order[s], block, packed); });
      // Rows that the next step does not have are at their end.
      int next = s + 1 < order.size() ? order[s + 1].continued : 0;
      for (int n = next; n < order[s].rows; ++n) last_state(order[s].token + n, n);
    }
  }

  void backward() {
    if (v.c0) blocks_of_cells();
    Floats packed = packed_rows(v.w_hh, units, Cell::H_GATES, WIDE_H);
    Base::take_carried(sequences);
    int panels = width / BLOCK, groups = 1;
    if (threads > panels)  // few units: share the sequences out, too
      groups = std::min(blocks_of(threads, panels), blocks_of(sequences, 8));
    for (int s = static_cast<int>(order.size()) - 1; s >= (v.wants_first ? -1 : 0); --s) {
      parallel(panels * groups, threads, [&](int task) {
        int panel = task / groups, group = task % groups;
        int low = sequences * group / groups, high = sequences * (group + 1) / groups;
        if (s + 1 < static_cast<int>(order.size()))
          carry(order[s + 1], panel, low, high, packed);
        if (s < 0) return;
        int end = std::min(high, order[s].rows);
        for (int block = 4 * panel; block < std::min(4 * panel + 4, blocks); ++block)
          step_backward(order[s], block, low, end);
      });
    }
    Base::give_carried();
    if (v.dx) input_gradient();
    if (v.dw_ih) weight_gradients();
  }

 private:
  // --- where things lie ----------------------------------------------------------------

  // The state before row n of a step, in y or in h0.
  const float* state_before(const Step& step, int n) const {
    return n < step.continued ? v.y + static_cast<size_t>(step.before + n) * units
                              : v.h0 + static_cast<size_t>(n) * units;
  }
  void last_state(int token, int n) const {
    size_t to = static_cast<size_t>(n) * units;
    std::copy_n(v.y + static_cast<size_t>(token) * units, units, v.hn + to);
    if (!v.cn) return;
    for (int u = 0; u < units; ++u)
      v.cn[to + u] = cells_of(u / UNITS, token)[u % UNITS];
  }

  // --- packing ---------------------------------------------------------------------------

  // [gates·units][depth] as [block][depth][64]: columns are the gates of a block's units.
  Floats packed_columns(const float* w, int depth, const int* places) const {
    size_t size = static_cast<size_t>(depth) * BLOCK;
    Floats packed(blocks * size);
    parallel(blocks, threads, [&](int block) {
      float* to = &packed[block * size];
      if (live(block) < UNITS) std::fill_n(to, size, 0.0f);
      for (int gate = 0; gate < Cell::GATES; ++gate) {
        const float* from = w + (static_cast<size_t>(gate) * units + block * UNITS) * depth;
        transposed(from, depth, live(block), depth, to + places[gate], BLOCK);
      }
    });
    return packed;
  }
  // [gates·units][columns] as [columns / 64][block · wide][64]: rows are the gates.
  Floats packed_rows(const float* w, int columns, const int* places,
                                 int wide) const {
    int panels = blocks_of(columns, BLOCK);
    int first = *std::min_element(places, places + Cell::GATES);
    size_t size = static_cast<size_t>(blocks) * wide * BLOCK;
    Floats packed(panels * size);
    parallel(panels, threads, [&](int panel) {
      int count = std::min(BLOCK, columns - panel * BLOCK);
      if (count < BLOCK || units % UNITS != 0) std::fill_n(&packed[panel * size], size, 0.0f);
      for (int gate = 0; gate < Cell::GATES; ++gate)
        for (int u = 0; u < units; ++u) {
          size_t row = (static_cast<size_t>(panel) * blocks + u / UNITS) * wide +
                       places[gate] - first + u % UNITS;
          std::copy_n(w + (static_cast<size_t>(gate) * units + u) * columns + panel * BLOCK,
                      count, &packed[row * BLOCK]);
        }
    });
    return packed;
  }
  // A bias for every column, 64 to a block: where a gate reads both, their sum.
  Floats packed_bias() const {
    Floats bias(static_cast<size_t>(blocks) * BLOCK, 0.0f);
    if (!v.b_ih) return bias;
    for (int gate = 0; gate < Cell::GATES; ++gate)
      for (int u = 0; u < units; ++u) {
        float* to = &bias[u / UNITS * BLOCK + u % UNITS];
        to[Cell::X_GATES[gate]] += v.b_ih[gate * units + u];
        to[Cell::H_GATES[gate]] += v.b_hh[gate * units + u];
      }
    return bias;
  }

  // --- forward -----------------------------------------------------------------------------

  // The input's part of all gates, bias included.
  void input_part(const float* bias) const {
    Floats packed = packed_columns(v.w_ih, inputs, Cell::X_GATES);
    int parts = blocks_of(tokens, TOKEN_ROWS);
    parallel(parts * blocks, threads, [&](int task) {
      int begin = task / blocks * TOKEN_ROWS, block = task % blocks;
      const float* start = bias + block * BLOCK;
      Factors f{nullptr, inputs, 0, &packed[static_cast<size_t>(block) * inputs * BLOCK],
                0,       1,      inputs};
      in_strips<WIDE_X>(begin, std::min(begin + TOKEN_ROWS, tokens), [&](int row, int rows) {
        f.a = v.x + static_cast<size_t>(row) * inputs;
        float* to = gates_of(block, row);
        strip<WIDE_X>(rows, f, start, 0, to, BLOCK);
        if (WIDE_X < BLOCK)  // what the state alone reaches begins at its bias
          for (int i = 0; i < rows; ++i)
            std::copy(start + WIDE_X, start + BLOCK, to + i * BLOCK + WIDE_X);
      });
    });
  }

  void step_forward(const Step& step, int block, const Floats& packed) const {
    Factors f{nullptr, units, 0,
              &packed[static_cast<size_t>(block) * units * BLOCK + Cell::H_FIRST],
              0, 1, units};
    auto work = [&](int row, int rows) {
      f.a = state_before(step, row);
      float* gates = gates_of(block, step.token + row);
      float* own = gates + Cell::H_FIRST;
      strip<WIDE_H>(rows, f, own, BLOCK, own, BLOCK);
      for (int n = row; n < row + rows; ++n, gates += BLOCK) {
        float* h = v.y + static_cast<size_t>(step.token + n) * units + block * UNITS;
        const float* before = state_before(step, n) + block * UNITS;
        const float* c = v.cells ? cells_before(step, block, n) : nullptr;
        float* cell = v.cells ? cells_of(block, step.token + n) : nullptr;
        if (live(block) == UNITS) {
          Cell::forward(rows_of(gates).row, UNITS, before, c, h, cell);
        } else {
          float given[UNITS] = {}, made[UNITS];
          std::copy_n(before, live(block), given);
          Cell::forward(rows_of(gates).row, UNITS, given, c, made, cell);
          std::copy_n(made, live(block), h);
        }
      }
    };
    in_strips<WIDE_H>(0, step.continued, work);
    if (!starts_at_zero) return in_strips<WIDE_H>(step.continued, step.rows, work);
    f.length = 0;  // no product, the cells alone
    in_strips<WIDE_H>(step.continued, step.rows, work);
  }

  // --- backward ----------------------------------------------------------------------------

  // What a step's gates want of the states before it: added to what is carried.
  void carry(const Step& step, int panel, int low, int high,
             const Floats& packed) {
    size_t whole = static_cast<size_t>(tokens) * BLOCK;
    const float* weights = &packed[static_cast<size_t>(panel) * blocks * WIDE_H * BLOCK];
    for (int first = 0; first < blocks; first += DEPTH_BLOCKS) {
      Factors f{nullptr, BLOCK, static_cast<ptrdiff_t>(whole),
                weights + static_cast<size_t>(first) * WIDE_H * BLOCK, WIDE_H * BLOCK,
                std::min(DEPTH_BLOCKS, blocks - first), WIDE_H};
      in_strips<BLOCK>(low, std::min(high, step.rows), [&](int row, int rows) {
        f.a = gates_of(first, step.token + row) + Cell::H_FIRST;
        float* to = &carried[static_cast<size_t>(row) * width + panel * BLOCK];
        strip<BLOCK>(rows, f, to, width, to, width);
      });
    }
  }

  void step_backward(const Step& step, int block, int low, int high) {
    for (int n = low; n < high; ++n) {
      size_t place = static_cast<size_t>(step.token + n) * units + block * UNITS;
      const float *dy = v.dy + place, *before = state_before(step, n) + block * UNITS;
      float given[2][UNITS] = {};
      if (live(block) < UNITS) {
        std::copy_n(dy, live(block), given[0]);
        std::copy_n(before, live(block), given[1]);
        dy = given[0];
        before = given[1];
      }
      float* dh = &carried[static_cast<size_t>(n) * width + block * UNITS];
      float* dc = &cell_grads[(static_cast<size_t>(block) * sequences + n) * UNITS];
      Cell::backward(rows_of(gates_of(block, step.token + n)).row, UNITS, before,
                     v.cells ? cells_before(step, block, n) : nullptr,
                     v.cells ? cells_of(block, step.token + n) : nullptr, dy, dh, dc);
    }
  }

  void input_gradient() const {
    in_large_pages(v.dx, static_cast<size_t>(tokens) * inputs * sizeof(float));
    Floats packed = packed_rows(v.w_ih, inputs, Cell::X_GATES, WIDE_X);
    size_t whole = static_cast<size_t>(tokens) * BLOCK;
    int panels = blocks_of(inputs, BLOCK);
    parallel(blocks_of(tokens, TOKEN_ROWS), threads, [&](int task) {
      int begin = task * TOKEN_ROWS, end = std::min(begin + TOKEN_ROWS, tokens);
      for (int first = 0; first < blocks; first += DEPTH_BLOCKS)
        for (int panel = 0; panel < panels; ++panel) {
          Factors f{nullptr, BLOCK, static_cast<ptrdiff_t>(whole),
                    &packed[(static_cast<size_t>(panel) * blocks + first) * WIDE_X * BLOCK],
                    WIDE_X * BLOCK, std::min(DEPTH_BLOCKS, blocks - first), WIDE_X};
          in_strips<BLOCK>(begin, end, [&](int row, int rows) {
            f.a = gates_of(first, row);
            add_strip(rows, f, inputs - panel * BLOCK, first > 0,
                      v.dx + static_cast<size_t>(row) * inputs + panel * BLOCK, inputs);
          });
        }
    });
  }

  // Both weight gradients and the bias's, in parts of the sum over tokens.
  void weight_gradients() const {
    std::vector<const float*> states(tokens);
    for (const Step& step : order)
      for (int n = 0; n < step.rows; ++n) states[step.token + n] = state_before(step, n);
    std::vector<const float*> rows(tokens);
    for (int n = 0; n < tokens; ++n) rows[n] = v.x + static_cast<size_t>(n) * inputs;
    std::vector<float> bias(static_cast<size_t>(blocks) * BLOCK, 0.0f);
    weight_gradient<WIDE_X>(rows, inputs, 0, Cell::X_GATES, v.dw_ih, bias.data(), 0);
    // Where all sequences begin in the first step, with zeros, it adds nothing.
    int first = starts_at_zero && !v.reverse && tokens > sequences ? sequences : 0;
    weight_gradient<WIDE_H>(states, units, Cell::H_FIRST, Cell::H_GATES, v.dw_hh, nullptr,
                            first);
    if (!v.db_ih) return;
    for (int gate = 0; gate < Cell::GATES; ++gate)
      for (int u = 0; u < units; ++u) {
        const float* from = &bias[u / UNITS * BLOCK + u % UNITS];
        v.db_ih[gate * units + u] = from[Cell::X_GATES[gate]];
        v.db_hh[gate * units + u] = from[Cell::H_GATES[gate]];
      }
  }

  // gradient = gatesᵀ · operand, as operandᵀ · gates, whose right side lies ready.
  template <int WIDE>
  void weight_gradient(const std::vector<const float*>& operand, int depth, int first,
                       const int* places, float* gradient, float* bias, int token) const {
    in_large_pages(gradient, sizeof(float) * Cell::GATES * units * depth);
    Floats left(static_cast<size_t>(depth) * TOKENS_ROW);
    Floats sums(static_cast<size_t>(blocks) * depth * BLOCK);
    int chunks = blocks_of(tokens - token, DEPTH_TOKENS);
    int most = blocks_of(tokens - token, chunks);
    for (int begin = token; begin < tokens; begin += most) {
      int count = std::min(most, tokens - begin);
      parallel(blocks_of(depth, 64), threads, [&](int task) {
        int low = task * 64, high = std::min(low + 64, depth);
        for (int n = 0; n < count; n += 16)
          columns_of(&operand[begin + n], std::min(16, count - n), low, high, &left[n],
                     TOKENS_ROW);
      });
      int parts = blocks_of(depth, DEPTH_PART);
      parallel(parts * blocks, threads, [&](int task) {
        int low = task / blocks * DEPTH_PART, block = task % blocks;
        const float* right = gates_of(block, begin);
        Factors f{nullptr, TOKENS_ROW, 0, right + first, 0, 1, count};
        in_strips<WIDE>(low, std::min(low + DEPTH_PART, depth), [&](int row, int rows) {
          f.a = &left[static_cast<size_t>(row) * TOKENS_ROW];
          float* to = &sums[(static_cast<size_t>(block) * depth + row) * BLOCK];
          for (int i = 0; i < rows * BLOCK; i += 16)  // the next strip's sums
            __builtin_prefetch(to + rows * BLOCK + i, 1);
          strip<WIDE>(rows, f, begin > token ? to : nullptr, BLOCK, to, BLOCK);
        });
        if (bias && low == 0) add_rows(right, count, bias + block * BLOCK);
      });
    }
    parallel(blocks, threads, [&](int block) {
      const float* from = &sums[static_cast<size_t>(block) * depth * BLOCK];
      for (int gate = 0; gate < Cell::GATES; ++gate)
        transposed(from + places[gate] - first, BLOCK, depth, live(block),
                   gradient + (static_cast<size_t>(gate) * units + block * UNITS) * depth,
                   depth);
    });
  }
};

// 0, or -1 where memory runs out.
template <typename Cell>
int run_recurrence(const Layer& layer, bool back) {
  Flushing small;
  try {
    Recurrence<Cell> recurrence(layer);
    back ? recurrence.backward() : recurrence.forward();
    return 0;
  } catch (const std::bad_alloc&) {
    return -1;
  }
}

}  // namespace elision
