// How a sparse-weight kernel cuts its work: the tile of own pixels that the registers
// hold, and the window of partner pixels that the tile reads.
//
// A tile is `rows` x `cols` own pixels of `blocks` blocks of 16 images. The window is
// packed with the blocks innermost and, for a stride, with columns of the same remainder
// together, so that for every tap the `cols * blocks` pixels of one tile row lie side by
// side: [channel][window row][remainder][column][block][16]. Packing pays once for
// padding, stride, dilation, ragged edges and small planes; the inner loop knows none.
#pragma once

#include <type_traits>
#include <utility>
#include <vector>

#include "half.hpp"
#include "meeting.hpp"

namespace elision {

// Shapes whose accumulators fit the registers, best first: rows, and pixels of a row (of
// halves twice as many).
struct Shape {
  int rows, span;
};
constexpr Shape SHAPES[] = {
    {4, REGISTERS >= 16 ? 4 : WIDTH / 4},
    {2, REGISTERS >= 16 ? 8 : WIDTH / 4},
    {2, REGISTERS >= 16 ? 4 : WIDTH / 4},
    {1, REGISTERS >= 16 ? 8 : WIDTH / 2},
    {1, REGISTERS >= 16 ? 16 : WIDTH / 2},
};
constexpr int MOST_CHANNELS = 128;
// A little above an L1 of 32 KiB: a list slides over its window, and longer lists pay
// (measured: 16 to 48 KiB).
constexpr int WINDOW_FLOATS = 10 * 1024;
// Products that are summed in halves before they are promoted, at most: those of 24
// channels of a 3x3 kernel, of which the sparse ones are a tenth or so.
constexpr int MOST_CHUNK = 216;

struct Tile {
  int rows, span;    // of own pixels in registers; span = cols * blocks
  int cols, blocks;
  int window_rows, remainders, window_cols;  // of the widest phase
  int channels;                              // partner channels of one window
  bool halves;                               // what the window holds

  int row_numbers() const { return remainders * window_cols * blocks * LANES; }
  int channel_numbers() const { return window_rows * row_numbers(); }
  // Numbers between what two neighbouring tile rows read.
  int row_step(const Meeting& m) const { return m.step_y * row_numbers(); }
  // Where, within one channel's window, the first pixel of the tile meets this tap.
  int offset(const Meeting& m, const Phase& phase, const Tap& tap) const {
    int x = tap.dx - phase.min_dx;
    return (tap.dy - phase.min_dy) * row_numbers() +
           ((x % m.step_x) * window_cols + x / m.step_x) * blocks * LANES;
  }
};

// What `choose` returns for a tile's shape, given as types that are constants: rows, span.
template <typename Number, typename Kernel, typename Choose, size_t... I>
Kernel for_shape(const Tile& tile, Choose choose, std::index_sequence<I...>) {
  constexpr int MORE = sizeof(float) / sizeof(Number);
  Kernel found = nullptr;
  ((tile.rows == SHAPES[I].rows && tile.span == SHAPES[I].span * MORE
        ? void(found = choose(std::integral_constant<int, SHAPES[I].rows>{},
                              std::integral_constant<int, SHAPES[I].span * MORE>{}))
        : void()),
   ...);
  return found;
}

template <typename Number, typename Kernel, typename Choose>
Kernel for_shape(const Tile& tile, Choose choose) {
  constexpr size_t COUNT = sizeof(SHAPES) / sizeof(SHAPES[0]);
  return for_shape<Number, Kernel>(tile, choose, std::make_index_sequence<COUNT>{});
}

inline int round_up(int value, int unit) { return (value + unit - 1) / unit * unit; }

// The tile that wastes least at the edges; of equals the first shape, then the widest.
// Halves take blocks in pairs where there are two, so that a register is one pixel and no
// load straddles two cache lines.
inline Tile choose_tile(const Meeting& m, int images, bool halves) {
  int blocks_in_all = (images + LANES - 1) / LANES, rows = 1, cols = 1, taps = 1;
  for (const Phase& phase : m.phases) {
    rows = std::max(rows, phase.rows);
    cols = std::max(cols, phase.cols);
    taps = std::max(taps, static_cast<int>(phase.taps.size()));
  }
  Tile best{};
  double least = 0;
  for (const Shape& shape : SHAPES) {
    int span = shape.span * (halves ? 2 : 1);
    for (int blocks = halves && blocks_in_all > 1 ? 2 : 1; blocks <= span; blocks *= 2) {
      int wide = span / blocks;
      double work = 1.0 * round_up(rows, shape.rows) * round_up(cols, wide) *
                    round_up(blocks_in_all, blocks);
      if (best.rows == 0 || work < least) {
        best = Tile{shape.rows, span, wide, blocks, 0, 0, 0, 0, halves};
        least = work;
      }
    }
  }
  best.remainders = m.step_x;
  for (const Phase& phase : m.phases) {
    best.window_rows = std::max(best.window_rows, (best.rows - 1) * m.step_y + 1 +
                                                      phase.max_dy - phase.min_dy);
    best.window_cols = std::max(
        best.window_cols, best.cols + (phase.max_dx - phase.min_dx) / m.step_x);
  }
  // A window without overlap, as of a 1x1 kernel, is read once per list: there longer
  // lists are worth more than a window that stays in L1.
  bool overlaps = best.window_rows > best.rows || best.window_cols > best.cols;
  int room = overlaps ? WINDOW_FLOATS : 2 * WINDOW_FLOATS;
  int most = MOST_CHANNELS;
  if (halves) {
    room *= 2;
    most = std::min(most, MOST_CHUNK / taps);
  }
  best.channels = std::max(1, std::min({room / best.channel_numbers(), most, m.partner_c}));
  return best;
}

// Where a tile lies, and what of it is inside the plane and the batch.
struct Place {
  int block, y, x;              // first image block; first own row and column in the phase
  int blocks, rows, cols;       // how many of them exist
};

// The partner pixel at every place of one channel's window, -1 outside the plane.
inline void find_pixels(const Meeting& m, const Tile& tile, const Phase& phase,
                        const Place& at, std::vector<int>& pixels) {
  int top = at.y * m.step_y + phase.min_dy, left = at.x * m.step_x + phase.min_dx;
  pixels.clear();
  for (int row = 0; row < tile.window_rows; ++row) {
    for (int rest = 0; rest < tile.remainders; ++rest) {
      for (int q = 0; q < tile.window_cols; ++q) {
        int y = top + row, x = left + q * m.step_x + rest;
        bool inside = y >= 0 && y < m.partner_h && x >= 0 && x < m.partner_w;
        pixels.push_back(inside ? y * m.partner_w + x : -1);
      }
    }
  }
}

// Pack the window of `count` partner channels from `first` on; what is outside the plane
// or the batch is zero.
template <typename Number>
void pack_window(const Meeting& m, const Tile& tile, const Place& at,
                 const std::vector<int>& pixels, const float* partner, int image_blocks,
                 int first, int count, Number* window) {
  size_t plane = static_cast<size_t>(m.partner_h) * m.partner_w * LANES;
  size_t block_floats = plane * m.partner_c;
  int blocks = std::min(tile.blocks, image_blocks - at.block);
  const float* channel =
      partner + (static_cast<size_t>(at.block) * m.partner_c + first) * plane;
  for (int c = 0; c < count; ++c, channel += plane) {
    for (int pixel : pixels) {
      int b = 0;
      if (pixel >= 0) {
        const float* from = channel + static_cast<size_t>(pixel) * LANES;
        for (; b < blocks; ++b, window += LANES, from += block_floats)
          copy_lanes(window, from);
      }
      for (; b < tile.blocks; ++b, window += LANES) clear_lanes(window);
    }
  }
}

// The window that is packed next, asked for from memory a few pixels at a time while the
// lists run over the present one: its pixels lie in short pieces, one plane apart, which
// a processor does not foresee by itself.
class Ahead {
 public:
  Ahead() = default;
  Ahead(const Meeting& m, const Tile& tile, const Place& at,
        const std::vector<int>& pixels, const float* partner, int first, int steps)
      : pixels_(&pixels),
        plane_(static_cast<size_t>(m.partner_h) * m.partner_w * LANES),
        channel_(partner + (static_cast<size_t>(at.block) * m.partner_c + first) * plane_),
        left_(pixels.size() * std::min(tile.channels, m.partner_c - first)),
        each_((left_ + steps - 1) / steps) {}

  // One of the `steps`.
  void fetch() {
    for (size_t end = left_ - std::min(left_, each_); left_ > end; --left_) {
      int pixel = (*pixels_)[next_];
      if (pixel >= 0)
        __builtin_prefetch(channel_ + static_cast<size_t>(pixel) * LANES, 0, 2);
      if (++next_ == pixels_->size()) {
        next_ = 0;
        channel_ += plane_;
      }
    }
  }

 private:
  const std::vector<int>* pixels_ = nullptr;
  size_t plane_ = 0;
  const float* channel_ = nullptr;
  size_t left_ = 0, each_ = 0, next_ = 0;
};

}  // namespace elision
