// A recurrent layer of bfloat16 in one direction, forward and backward, for any cell.
//
// As recurrent.hpp, whose order of steps, blocks of units and columns of gates are kept, with
// products by tiles.hpp. Sums, the cell's functions, its cells and what is carried from step
// to step are floats; inputs, states, weights and saved gates are bfloat16. Products read
// strips of 32 rows that are packed as the tiles lie: the cell writes the state (going back,
// the gates' gradients) there beside the place where it is kept, twice in turns, so that a
// step's strips are read while the next one's are written.
#pragma once

#include <algorithm>
#include <vector>

#include "cells.hpp"
#include "large.hpp"
#include "layer.hpp"
#include "pool.hpp"
#include "run.hpp"
#include "tiles.hpp"

namespace elision {

using Bf16Layer = LayerOf<bf16>;

#if defined(ELISION_TILES)

// So many strips meet one panel of weights, and so many tokens are summed over at a time, as
// leave a panel room beside them in an L2 of 2 MiB (that of the CPUs that have tiles).
constexpr int STRIPS_TOGETHER = 8, STRIPS_DEEP = 4;
constexpr int TOKENS_TOGETHER = 2048;
constexpr int BLOCKS_TOGETHER = 2;  // blocks of gates that meet one strip of a weight's columns

template <typename Cell>
class Bf16Recurrence : Run<Cell, bf16> {
  using Base = Run<Cell, bf16>;
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
  static constexpr int UNITS = TILE, BLOCK = PANEL;
  static_assert(Base::UNITS == UNITS && Base::BLOCK == BLOCK);
  static constexpr int X_TILES = Cell::X_COLUMNS / TILE, H_TILES = Cell::H_COLUMNS / TILE;
  static constexpr int H_FIRST = Cell::H_FIRST;

 public:
  explicit Bf16Recurrence(const Bf16Layer& layer)
      : Base(layer), strips(up(sequences, STRIP)) {
    first_states.resize(static_cast<size_t>(sequences) * units);
    for (int n = 0; n < sequences; ++n) {
      size_t row = static_cast<size_t>(n) * units;
      narrow_row(&first_states[row], v.h0 + row, units);
    }
  }

  void forward() {
    size_t values = static_cast<size_t>(blocks) * tokens * BLOCK;
    in_large_pages(v.gates, values * sizeof(bf16));
    if (v.cells) in_large_pages(v.cells, values / 4 * sizeof(float));
    in_large_pages(v.y, static_cast<size_t>(tokens) * units * sizeof(bf16));
    input_part();
    Floats weights = packed_columns(v.w_hh, units, Cell::H_GATES);
    if (v.c0) blocks_of_cells();
    size_t half = Packed::floats(strips, units);
    Floats memory(2 * half, 0.0f);
    Packed states[2] = {{units, memory.get()}, {units, &memory[half]}};
    for (size_t s = 0; s < order.size(); ++s) {
      const Step& step = order[s];
      const Packed &from = states[s % 2], &to = states[1 - s % 2];
      for (int n = step.continued; n < step.rows; ++n)
        from.put(n, &first_states[static_cast<size_t>(n) * units], units);
      bool is_zero = starts_at_zero && step.continued == 0;
      in_parts(blocks, [&](int low, int high) {
        Tiles tiles;
        for (int block = low; block < high; ++block)
          step_forward(step, block, weights, is_zero, from, to);
      });
      // Rows that the next step does not have are at their end.
      int next = s + 1 < order.size() ? order[s + 1].continued : 0;
      for (int n = next; n < step.rows; ++n) last_state(step.token + n, n);
    }
  }

  void backward() {
    if (v.c0) blocks_of_cells();
    Floats weights = packed_rows(v.w_hh, units, Cell::H_GATES);
    Base::take_carried(strips * STRIP);
    size_t half = Packed::floats(strips, blocks * BLOCK);
    Floats memory(2 * half);
    Packed grads[2] = {{blocks * BLOCK, memory.get()}, {blocks * BLOCK, &memory[half]}};
    int panels = width / BLOCK;
    // Few units: share the sequences out, too.
    int groups = threads > panels ? std::min(up(threads, panels), strips) : 1;
    int last = static_cast<int>(order.size()) - 1;
    for (int s = last; s >= (v.wants_first ? -1 : 0); --s)
      parallel(panels * groups, threads, [&](int task) {
        Tiles tiles;
        int panel = task / groups, group = task % groups;
        int low = strips * group / groups, high = strips * (group + 1) / groups;
        const Packed &from = grads[(s + 1) & 1], &to = grads[s & 1];
        if (s < last) carry(order[s + 1], panel, low, high, weights, from);
        if (s < 0) return;
        for (int block = 4 * panel; block < std::min(4 * panel + 4, blocks); ++block)
          for (int strip = low; strip < high; ++strip)
            step_backward(order[s], block, strip, to);
      });
    Base::give_carried();
    if (v.dx) input_gradient();
    if (v.dw_ih) weight_gradients();
  }

 private:
  static int up(int count, int size) { return (count + size - 1) / size; }

  static void widen16(float* to, const bf16* from) {
    for (int j = 0; j < TILE; j += WIDTH) store(to + j, widen(from + j));
  }
  static void narrow16(bf16* to, const float* from) {
    for (int j = 0; j < TILE; j += WIDTH) narrow(to + j, load(from + j));
  }
  static void narrow_row(bf16* to, const float* from, int count) {
    int j = 0;
    for (; j + TILE <= count; j += TILE) narrow16(to + j, from + j);
    if (j == count) return;
    alignas(64) float rest[TILE] = {};
    bf16 last[TILE];
    std::copy_n(from + j, count - j, rest);
    narrow16(last, rest);
    std::copy_n(last, count - j, to + j);
  }
  // 16 words: pairs of two rows' values.
  static void pair16(float* to, const bf16* lower, const bf16* upper) {
    for (int j = 0; j < TILE; j += WIDTH) {
      vu word = words(lower + j) | words(upper + j) << 16;
      std::memcpy(to + j, &word, sizeof word);
    }
  }

  // Rows as the tiles lie: [strip][depth][32 rows][32 values].
  struct Packed {
    int depth;
    bf16* memory;

    Packed(int values, float* memory)
        : depth(up(values, DEPTH)), memory(reinterpret_cast<bf16*>(memory)) {}
    static size_t floats(int strips, int values) {
      return static_cast<size_t>(strips) * up(values, DEPTH) * STRIP * TILE;
    }
    bf16* strip(int number) const {
      return memory + static_cast<size_t>(number) * depth * STRIP * DEPTH;
    }
    bf16* at(int row, int value) const {
      return strip(row / STRIP) +
             (static_cast<size_t>(value / DEPTH) * STRIP + row % STRIP) * DEPTH +
             value % DEPTH;
    }
    // The gates of a block: two tiles wide.
    void put_block(int row, int block, const bf16* from) const {
      std::memcpy(at(row, block * BLOCK), from, DEPTH * sizeof(bf16));
      std::memcpy(at(row, block * BLOCK + DEPTH), from + DEPTH, DEPTH * sizeof(bf16));
    }
    void put(int row, const bf16* from, int count) const {
      for (int value = 0; value < count; value += DEPTH)
        std::copy_n(from + value, std::min(DEPTH, count - value), at(row, value));
    }
  };

  // work(low, high) for parts of a number of things, some to a thread.
  template <typename Work>
  void in_parts(int count, const Work& work) const {
    int parts = threads == 1 ? 1 : std::min(count, 4 * threads);
    parallel(parts, threads,
             [&](int part) { work(count * part / parts, count * (part + 1) / parts); });
  }

  // --- where things lie ----------------------------------------------------------------

  // The state before row n of a step, in y or in the first states.
  const bf16* state_before(const Step& step, int n) const {
    return n < step.continued ? v.y + static_cast<size_t>(step.before + n) * units
                              : &first_states[static_cast<size_t>(n) * units];
  }
  void last_state(int token, int n) const {
    size_t to = static_cast<size_t>(n) * units;
    for (int u = 0; u < units; ++u) {
      v.hn[to + u] = widen(v.y[static_cast<size_t>(token) * units + u]);
      if (v.cn) v.cn[to + u] = cells_of(u / UNITS, token)[u % UNITS];
    }
  }
  // A block's values of a row of y, dy or the first states, as floats; zero past the units.
  void block_of(const bf16* row, int block, float* to) const {
    if (live(block) == UNITS) return widen16(to, row + block * UNITS);
    for (int u = 0; u < UNITS; ++u)
      to[u] = u < live(block) ? widen(row[block * UNITS + u]) : 0.0f;
  }

  // --- packing ---------------------------------------------------------------------------

  // [gates·units][depth] as [block][depth / 2][64 words]: columns are a block's gates.
  Floats packed_columns(const bf16* w, int depth, const int* places) const {
    int pairs = up(depth, DEPTH) * TILE;
    size_t size = static_cast<size_t>(pairs) * BLOCK;
    Floats packed(blocks * size);
    parallel(blocks, threads, [&](int block) {
      float* to = &packed[block * size];
      if (Cell::GATES < 4) std::fill_n(to, size, 0.0f);
      for (int gate = 0; gate < Cell::GATES; ++gate) {
        const bf16* from = w + (static_cast<size_t>(gate) * units + block * UNITS) * depth;
        for (int k = 0; k < pairs; k += TILE) {
          alignas(64) float square[TILE * TILE] = {};
          int count = std::min(DEPTH, depth - 2 * k);
          for (int u = 0; u < live(block); ++u)
            std::copy_n(from + static_cast<size_t>(u) * depth + 2 * k, count,
                        reinterpret_cast<bf16*>(square + u * TILE));
          transpose16(square, TILE, to + static_cast<size_t>(k) * BLOCK + places[gate], BLOCK);
        }
      }
    });
    return packed;
  }
  // [gates·units][columns] as [columns / 64][block · 32][64 words]: rows are the gates.
  Floats packed_rows(const bf16* w, int columns, const int* places) const {
    int panels = up(columns, BLOCK);
    size_t size = static_cast<size_t>(blocks) * BLOCK / 2 * BLOCK;
    Floats packed(panels * size);
    parallel(panels, threads, [&](int panel) {
      int count = std::min(BLOCK, columns - panel * BLOCK);
      if (count < BLOCK || units % UNITS != 0 || Cell::GATES < 4)
        std::fill_n(&packed[panel * size], size, 0.0f);
      for (int gate = 0; gate < Cell::GATES; ++gate)
        for (int u = 0; u < units; u += 2) {
          const bf16* lower = w + (static_cast<size_t>(gate) * units + u) * columns;
          lower += panel * BLOCK;
          const bf16* upper = lower + columns;
          bf16 rows[2][BLOCK] = {};
          if (count < BLOCK || u + 1 == units) {
            std::copy_n(lower, count, rows[0]);
            if (u + 1 < units) std::copy_n(upper, count, rows[1]);
            lower = rows[0];
            upper = rows[1];
          }
          int row = u / UNITS * BLOCK + places[gate] + u % UNITS;
          float* to = &packed[panel * size + static_cast<size_t>(row / 2) * BLOCK];
          for (int j = 0; j < BLOCK; j += TILE) pair16(to + j, lower + j, upper + j);
        }
    });
    return packed;
  }
  // A bias for every column, 64 to a block: where a gate reads both, their sum.
  std::vector<float> packed_bias() const {
    std::vector<float> bias(static_cast<size_t>(blocks) * BLOCK, 0.0f);
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
  void input_part() const {
    Floats weights = packed_columns(v.w_ih, inputs, Cell::X_GATES);
    std::vector<float> bias = packed_bias();
    int all = up(tokens, STRIP);
    Floats memory(Packed::floats(all, inputs), 0.0f);
    Packed x(inputs, memory.get());
    parallel(all, threads, [&](int strip) {
      for (int n = strip * STRIP; n < std::min(tokens, (strip + 1) * STRIP); ++n)
        x.put(n, v.x + static_cast<size_t>(n) * inputs, inputs);
    });
    size_t size = static_cast<size_t>(x.depth) * TILE * BLOCK;
    for (int begin = 0; begin < all; begin += STRIPS_TOGETHER)
      in_parts(blocks, [&](int low, int high) {
        Tiles tiles;
        alignas(64) float made[STRIP * BLOCK];
        for (int block = low; block < high; ++block)
          for (int strip = begin; strip < std::min(begin + STRIPS_TOGETHER, all); ++strip) {
            int row = strip * STRIP, rows = std::min(STRIP, tokens - row);
            strip_product(rows, X_TILES, x.strip(strip), &weights[block * size], x.depth,
                          false, made, BLOCK);
            bf16* to = gates_of(block, row);
            const float* start = &bias[static_cast<size_t>(block) * BLOCK];
            for (int i = 0; i < rows; ++i, to += BLOCK)
              for (int j = 0; j < BLOCK; j += WIDTH) {
                vf sum = load(start + j);
                if (j < Cell::X_COLUMNS) sum += load(made + i * BLOCK + j);
                narrow(to + j, sum);
              }
          }
      });
  }

  void step_forward(const Step& step, int block, const Floats& weights, bool is_zero,
                    const Packed& from, const Packed& to) const {
    alignas(64) float made[STRIP * BLOCK];
    const float* own = &weights[static_cast<size_t>(block) * from.depth * TILE * BLOCK];
    for (int row = 0; row < step.rows; row += STRIP) {
      int rows = std::min(STRIP, step.rows - row);
      if (!is_zero)
        strip_product(rows, H_TILES, from.strip(row / STRIP), own + H_FIRST, from.depth,
                      false, made + H_FIRST, BLOCK);
      for (int i = 0; i < rows; ++i) {
        int n = row + i, token = step.token + n;
        alignas(64) float gates[BLOCK], before[UNITS], h[UNITS];
        bf16* kept = gates_of(block, token);
        for (int j = 0; j < BLOCK; j += WIDTH) {
          vf sum = widen(kept + j);
          if (!is_zero && j >= H_FIRST) sum += load(made + i * BLOCK + j);
          store(gates + j, sum);
        }
        if (!Cell::HAS_CELLS) block_of(state_before(step, n), block, before);
        Cell::forward(rows_of(gates).row, UNITS, before,
                      v.cells ? cells_before(step, block, n) : nullptr, h,
                      v.cells ? cells_of(block, token) : nullptr);
        for (int j = 0; j < BLOCK; j += WIDTH) narrow(kept + j, load(gates + j));
        narrow16(to.at(n, block * UNITS), h);
        narrow_row(v.y + static_cast<size_t>(token) * units + block * UNITS, h, live(block));
      }
    }
  }

  // --- backward ----------------------------------------------------------------------------

  // What a step's gates want of the states before it: added to what is carried.
  void carry(const Step& step, int panel, int low, int high, const Floats& weights,
             const Packed& grads) {
    const float* own = &weights[static_cast<size_t>(panel) * blocks * BLOCK / 2 * BLOCK];
    for (int strip = low; strip < std::min(high, up(step.rows, STRIP)); ++strip)
      strip_product(std::min(STRIP, step.rows - strip * STRIP), PANEL / TILE,
                    grads.strip(strip), own, grads.depth, true,
                    &carried[static_cast<size_t>(strip) * STRIP * width + panel * BLOCK],
                    width);
  }

  void step_backward(const Step& step, int block, int strip, const Packed& grads) {
    int row = strip * STRIP, end = std::min(row + STRIP, step.rows);
    for (int n = row; n < end; ++n) {
      int token = step.token + n;
      alignas(64) float gates[BLOCK], before[UNITS], dy[UNITS];
      bf16* kept = gates_of(block, token);
      for (int j = 0; j < BLOCK; j += WIDTH) store(gates + j, widen(kept + j));
      block_of(v.dy + static_cast<size_t>(token) * units, block, dy);
      if (!Cell::HAS_CELLS) block_of(state_before(step, n), block, before);
      float* dh = &carried[static_cast<size_t>(n) * width + block * UNITS];
      float* dc = &cell_grads[(static_cast<size_t>(block) * sequences + n) * UNITS];
      Cell::backward(rows_of(gates).row, UNITS, before,
                     v.cells ? cells_before(step, block, n) : nullptr,
                     v.cells ? cells_of(block, token) : nullptr, dy, dh, dc);
      // Twice from the registers: what was just stored in halves is slow to load.
      bf16* packed = grads.at(n, block * BLOCK);
      for (int j = 0; j < BLOCK; j += WIDTH) {
        vf grad = load(gates + j);
        narrow(kept + j, grad);
        narrow(packed + j / DEPTH * STRIP * DEPTH + j % DEPTH, grad);
      }
    }
    // Sequences of the strip that this step does not have: nothing is carried to them.
    const bf16 zero[BLOCK] = {};
    for (int n = end; end > row && n < row + STRIP; ++n) grads.put_block(n, block, zero);
  }

  void input_gradient() const {
    in_large_pages(v.dx, static_cast<size_t>(tokens) * inputs * sizeof(bf16));
    Floats weights = packed_rows(v.w_ih, inputs, Cell::X_GATES);
    size_t size = static_cast<size_t>(blocks) * BLOCK / 2 * BLOCK;
    int all = up(tokens, STRIP), panels = up(inputs, BLOCK);
    // Few tokens: fewer strips together.
    int together = std::max(1, std::min(STRIPS_DEEP, all / threads));
    parallel(up(all, together), threads, [&](int task) {
      Tiles tiles;
      alignas(64) float made[STRIP * BLOCK];
      int begin = task * together, end = std::min(begin + together, all);
      Packed grads(blocks * BLOCK, scratch(0, Packed::floats(together, blocks * BLOCK)));
      for (int block = 0; block < blocks; ++block)
        for (int n = begin * STRIP; n < std::min(end * STRIP, tokens); ++n)
          grads.put_block(n - begin * STRIP, block, gates_of(block, n));
      for (int panel = 0; panel < panels; ++panel)
        for (int strip = begin; strip < end; ++strip) {
          int row = strip * STRIP, rows = std::min(STRIP, tokens - row);
          int columns = std::min(BLOCK, inputs - panel * BLOCK);
          strip_product(rows, up(columns, TILE), grads.strip(strip - begin),
                        &weights[panel * size], grads.depth, false, made, BLOCK);
          bf16* to = v.dx + static_cast<size_t>(row) * inputs + panel * BLOCK;
          for (int i = 0; i < rows; ++i, to += inputs) narrow_row(to, made + i * BLOCK, columns);
        }
    });
  }

  // Both weight gradients and the bias's, in parts of the sum over tokens.
  void weight_gradients() const {
    std::vector<const bf16*> states(tokens), rows(tokens);
    for (const Step& step : order)
      for (int n = 0; n < step.rows; ++n) states[step.token + n] = state_before(step, n);
    for (int n = 0; n < tokens; ++n) rows[n] = v.x + static_cast<size_t>(n) * inputs;
    std::vector<float> bias(static_cast<size_t>(blocks) * BLOCK, 0.0f);
    weight_gradient(rows, inputs, 0, X_TILES, Cell::X_GATES, v.dw_ih, bias.data(), 0);
    // Where all sequences begin in the first step, with zeros, it adds nothing.
    int first = starts_at_zero && !v.reverse && tokens > sequences ? sequences : 0;
    weight_gradient(states, units, H_FIRST, H_TILES, Cell::H_GATES, v.dw_hh, nullptr, first);
    if (!v.db_ih) return;
    for (int gate = 0; gate < Cell::GATES; ++gate)
      for (int u = 0; u < units; ++u) {
        const float* from = &bias[u / UNITS * BLOCK + u % UNITS];
        v.db_ih[gate * units + u] = from[Cell::X_GATES[gate]];
        v.db_hh[gate * units + u] = from[Cell::H_GATES[gate]];
      }
  }

  // gradient = gatesᵀ · operand, as operandᵀ · gates: the right side is nearly as it lies.
  void weight_gradient(const std::vector<const bf16*>& operand, int depth, int first,
                       int tiles, const int* places, bf16* gradient, float* bias,
                       int token) const {
    in_large_pages(gradient, sizeof(bf16) * Cell::GATES * units * depth);
    int columns = up(depth, STRIP), padded = columns * STRIP;
    int chunks = up(tokens - token, TOKENS_TOGETHER);
    int most = up(up(tokens - token, chunks), DEPTH) * DEPTH;
    Floats memory(Packed::floats(columns, most));
    Packed left(most, memory.get());
    Floats sums(static_cast<size_t>(blocks) * padded * BLOCK);
    for (int begin = token; begin < tokens; begin += most) {
      int count = std::min(most, tokens - begin), deep = up(count, DEPTH);
      parallel(columns, threads, [&](int strip) {
        for (int k = 0; k < deep; ++k)
          turned(&operand[begin + k * DEPTH], std::min(DEPTH, count - k * DEPTH),
                 strip * STRIP, depth,
                 left.strip(strip) + static_cast<size_t>(k) * STRIP * DEPTH);
      });
      parallel(up(blocks, BLOCKS_TOGETHER), threads, [&](int task) {
        Tiles on;
        int low = task * BLOCKS_TOGETHER, high = std::min(low + BLOCKS_TOGETHER, blocks);
        size_t size = static_cast<size_t>(deep) * TILE * BLOCK;
        float* right = scratch(0, size * BLOCKS_TOGETHER);
        for (int block = low; block < high; ++block) {
          pairs_of(gates_of(block, begin), count, right + (block - low) * size);
          if (bias) add_rows(gates_of(block, begin), count, bias + block * BLOCK);
        }
        for (int strip = 0; strip < columns; ++strip)
          for (int block = low; block < high; ++block)
            strip_product(std::min(STRIP, depth - strip * STRIP), tiles, left.strip(strip),
                          right + (block - low) * size + first, deep, begin > token,
                          &sums[(static_cast<size_t>(block) * padded + strip * STRIP) * BLOCK +
                                first],
                          BLOCK);
      });
    }
    parallel(blocks, threads, [&](int block) {
      const float* from = &sums[static_cast<size_t>(block) * padded * BLOCK];
      for (int gate = 0; gate < Cell::GATES; ++gate)
        for (int d = 0; d < depth; d += TILE) {
          alignas(64) float square[TILE * TILE];
          transpose16(from + static_cast<size_t>(d) * BLOCK + places[gate], BLOCK, square,
                      TILE);
          for (int u = 0; u < live(block); ++u)
            narrow_row(gradient + d + static_cast<size_t>(gate * units + block * UNITS + u) * depth,
                       square + u * TILE, std::min(TILE, depth - d));
        }
    });
  }
  // At most 32 rows, anywhere, as [32 columns][32 rows], zero beyond.
  static void turned(const bf16* const* rows, int count, int column, int columns, bf16* to) {
    const bf16 zero[TILE] = {};
    for (int half = 0; half < 2; ++half, column += TILE) {
      alignas(64) float square[TILE * TILE];
      bf16 part[2][TILE] = {};
      int live = std::min(TILE, columns - column);
      for (int i = 0; i < TILE; ++i) {
        const bf16* pair[2];
        for (int j = 0; j < 2; ++j) {
          pair[j] = 2 * i + j < count && live > 0 ? rows[2 * i + j] + column : zero;
          if (pair[j] == zero || live == TILE) continue;
          std::copy_n(pair[j], live, part[j]);
          pair[j] = part[j];
        }
        pair16(square + i * TILE, pair[0], pair[1]);
      }
      transpose16(square, TILE, reinterpret_cast<float*>(to) + half * TILE * TILE, TILE);
    }
  }
  // Rows of a block's gates as words of two, zero up to a whole tile.
  static void pairs_of(const bf16* rows, int count, float* to) {
    const bf16 zero[BLOCK] = {};
    for (int n = 0; n < up(count, DEPTH) * DEPTH; n += 2, rows += 2 * BLOCK, to += BLOCK)
      for (int j = 0; j < BLOCK; j += TILE)
        pair16(to + j, n < count ? rows + j : zero, n + 1 < count ? rows + BLOCK + j : zero);
  }
  static void add_rows(const bf16* rows, int count, float* total) {
    vf sum[BLOCK / WIDTH] = {};
    for (int n = 0; n < count; ++n, rows += BLOCK)
      for (int j = 0; j < BLOCK / WIDTH; ++j) sum[j] += widen(rows + j * WIDTH);
    for (int j = 0; j < BLOCK / WIDTH; ++j)
      store(total + j * WIDTH, load(total + j * WIDTH) + sum[j]);
  }

  int strips;
  std::vector<bf16> first_states;  // [sequences][units]
};

#endif

}  // namespace elision
