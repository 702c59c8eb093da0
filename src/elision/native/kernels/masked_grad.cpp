// Weight gradient at the surviving weights only: one number per list entry, the sum over
// images and pixels of input x gradient. The tile of the gradient stays in registers
// while a list runs; an entry's sum stays spread over the lanes until all tiles are done.

#include <algorithm>

#include "flushing.hpp"
#include "pool.hpp"
#include "weights.hpp"

using namespace elision;

namespace {

constexpr int64_t SUM_FLOATS = 64 * 1024;  // 256 KiB of partial sums

// Add, for every entry, the tile's pixels of input x gradient to LANES partial sums.
template <int ROWS, int SPAN>
void walk(const float* window, ptrdiff_t row_step, const int32_t* offset, int length,
          const float* tile, ptrdiff_t tile_step, float* spread) {
  constexpr int PARTS = LANES / WIDTH, VECTORS = SPAN * PARTS;
  vf g[ROWS][VECTORS];
#pragma GCC unroll 4
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 16
    for (int j = 0; j < VECTORS; ++j) g[i][j] = load(tile + i * tile_step + j * WIDTH);
  const float* row[ROWS];
#pragma GCC unroll 4
  for (int i = 0; i < ROWS; ++i) {
    row[i] = window + i * row_step;
    asm("" : "+r"(row[i]));  // or the compiler adds the rows up anew for every entry
  }
  for (int n = 0; n < length; ++n, spread += LANES) {
    ptrdiff_t o = offset[n];
    vf sum[2][PARTS] = {};  // two chains, as one would wait for its own latency
#pragma GCC unroll 4
    for (int part = 0; part < PARTS; ++part) sum[0][part] = load(spread + part * WIDTH);
#pragma GCC unroll 4
    for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 16
      for (int j = 0; j < VECTORS; ++j)
        sum[j / PARTS % 2][j % PARTS] += g[i][j] * load(row[i] + o + j * WIDTH);
#pragma GCC unroll 4
    for (int part = 0; part < PARTS; ++part)
      store(spread + part * WIDTH, sum[0][part] + sum[1][part]);
  }
}

#if defined(ELISION_HALF)

// The same in halves: an entry's products of one tile are promoted together.
template <int ROWS, int SPAN>
void walk(const half* window, ptrdiff_t row_step, const int32_t* offset, int length,
          const half* tile, ptrdiff_t tile_step, float* spread) {
  constexpr int VECTORS = SPAN * LANES / HALVES;
  vh g[ROWS][VECTORS];
#pragma GCC unroll 4
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 16
    for (int j = 0; j < VECTORS; ++j) g[i][j] = load(tile + i * tile_step + j * HALVES);
  const half* row[ROWS];
#pragma GCC unroll 4
  for (int i = 0; i < ROWS; ++i) {
    row[i] = window + i * row_step;
    asm("" : "+r"(row[i]));
  }
  for (int n = 0; n < length; ++n, spread += LANES) {
    ptrdiff_t o = offset[n];
    vh sum[2] = {};
#pragma GCC unroll 4
    for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 16
      for (int j = 0; j < VECTORS; ++j)
        add_product(sum[(i + j) % 2], g[i][j], row[i] + o + j * HALVES);
    vf low = widen_low(sum[0]) + widen_low(sum[1]);
    vf high = widen_high(sum[0]) + widen_high(sum[1]);
    store(spread, load(spread) + (low + high));
  }
}

#endif

template <typename Number>
using Walk = void (*)(const Number*, ptrdiff_t, const int32_t*, int, const Number*,
                      ptrdiff_t, float*);

// The gradient of one tile and output channel; what does not exist is zero.
template <typename Number>
void take(const Meeting& m, const Tile& tile, const Place& at, int own, const float* g,
          Number* to) {
  size_t plane = static_cast<size_t>(m.own_h) * m.own_w;
  for (int i = 0; i < tile.rows; ++i) {
    for (int j = 0; j < tile.cols; ++j) {
      for (int b = 0; b < tile.blocks; ++b, to += LANES) {
        if (i < at.rows && j < at.cols && b < at.blocks) {
          size_t channel = static_cast<size_t>(at.block + b) * m.own_c + own;
          size_t pixel = static_cast<size_t>(at.y + i) * m.own_w + at.x + j;
          copy_lanes(to, g + (channel * plane + pixel) * LANES);
        } else {
          clear_lanes(to);
        }
      }
    }
  }
}

// Blocks of input channels and a range of output channels that one task sums up.
struct Share {
  int first_block, last_block, k_begin, k_end;
};

// Where the entries of a share's blocks lie: one behind the other within a block, which
// starts at `first` in the lists and at `sums` among the share's partial sums.
struct Run {
  int64_t first, sums, count;
};

std::vector<Run> runs_of(const Lists& lists, const Share& share) {
  std::vector<Run> runs;
  int64_t sums = 0;
  for (int block = share.first_block; block < share.last_block; ++block) {
    size_t last = lists.list(0, block, share.k_end - 1);
    int64_t first = lists.begin[lists.list(0, block, share.k_begin)];
    int64_t count = lists.begin[last] + lists.length[last] - first;
    runs.push_back({first, sums, count});
    sums += count;
  }
  return runs;
}

// Tile by tile, so that the gradient of a tile is read from memory once for all blocks.
template <typename Number>
void sum_share(const Lists& lists, int images, const Share& share, const float* x,
               const float* g, float* dw) {
  const Meeting& m = lists.meeting;
  const Tile& tile = lists.tile;
  const Phase& phase = m.phases[0];
  int image_blocks = (images + LANES - 1) / LANES;
  std::vector<Run> runs = runs_of(lists, share);
  int64_t total = runs.back().sums + runs.back().count;
  size_t window_numbers = static_cast<size_t>(tile.channels) * tile.channel_numbers();
  auto* window = reinterpret_cast<Number*>(scratch(0, window_numbers));
  float* spread = scratch(1, static_cast<size_t>(total + 1) * LANES);
  std::fill_n(spread, total * LANES, 0.0f);
  auto walk_list = for_shape<Number, Walk<Number>>(
      tile, [](auto rows, auto span) -> Walk<Number> { return walk<rows, span>; });
  std::vector<int> pixels;
  size_t plane = static_cast<size_t>(m.own_h) * m.own_w;
  for (int b = 0; b < image_blocks; b += tile.blocks) {
    for (int y = 0; y < phase.rows; y += tile.rows) {
      for (int c = 0; c < phase.cols; c += tile.cols) {
        Place at{b, y, c, std::min(tile.blocks, image_blocks - b),
                 std::min(tile.rows, phase.rows - y), std::min(tile.cols, phase.cols - c)};
        // Floats of a whole tile of one image block are read where they are.
        bool direct = std::is_same_v<Number, float> && tile.blocks == 1 &&
                      at.rows == tile.rows && at.cols == tile.cols;
        find_pixels(m, tile, phase, at, pixels);
        for (int block = share.first_block; block < share.last_block; ++block) {
          const Run& run = runs[block - share.first_block];
          int first = block * tile.channels;
          int count = std::min(tile.channels, m.partner_c - first);
          pack_window(m, tile, at, pixels, x, image_blocks, first, count, window);
          Ahead ahead;
          if (block + 1 < share.last_block)
            ahead = Ahead(m, tile, at, pixels, x, first + count, share.k_end - share.k_begin);
          for (int k = share.k_begin; k < share.k_end; ++k) {
            ahead.fetch();
            size_t list = lists.list(0, block, k);
            if (lists.length[list] == 0) continue;
            alignas(64) Number copy[16 * LANES * sizeof(float) / sizeof(Number)];
            const Number* from = copy;
            ptrdiff_t step = tile.span * LANES;
            if (direct) {
              size_t channel = static_cast<size_t>(b) * m.own_c + k;
              size_t pixel = channel * plane + static_cast<size_t>(y) * m.own_w + c;
              from = reinterpret_cast<const Number*>(g + pixel * LANES);
              step = static_cast<ptrdiff_t>(m.own_w) * LANES;
            } else {
              take(m, tile, at, k, g, copy);
            }
            walk_list(window, tile.row_step(m), lists.offset.get() + lists.begin[list],
                      lists.length[list], from, step,
                      spread + (run.sums + lists.begin[list] - run.first) * LANES);
          }
        }
      }
    }
  }
  for (const Run& run : runs) {
    for (int64_t n = 0; n < run.count; ++n) {
      float sum = 0;
      for (int i = 0; i < LANES; ++i) sum += spread[(run.sums + n) * LANES + i];
      dw[lists.place.get()[run.first + n]] = sum;
    }
  }
}

// As many blocks together as have their partial sums in L2, and cuts of the output
// channels where that leaves fewer shares than threads.
std::vector<Share> shares_of(const Lists& lists, int threads) {
  int channels = lists.meeting.own_c;
  std::vector<Share> whole;
  int64_t sums = 0;
  for (int block = 0; block < lists.blocks; ++block) {
    Share one{block, block + 1, 0, channels};
    int64_t count = runs_of(lists, one)[0].count * LANES;
    if (whole.empty() || sums + count > SUM_FLOATS) {
      whole.push_back(one);
      sums = 0;
    }
    whole.back().last_block = one.last_block;
    sums += count;
  }
  int shares = static_cast<int>(whole.size());
  int cuts = threads == 1 ? 1 : std::min(channels, (2 * threads + shares - 1) / shares);
  int per_cut = (channels + cuts - 1) / cuts;
  std::vector<Share> all;
  for (const Share& share : whole)
    for (int k = 0; k < channels; k += per_cut)
      all.push_back(
          {share.first_block, share.last_block, k, std::min(channels, k + per_cut)});
  return all;
}

}  // namespace

// dw [K][C][R][S]: written at the places of the compressed weights, zero elsewhere.
// Returns 0, or -1 if there is not memory enough.
extern "C" int elision_masked_grad(const Weights* weights, const float* x, const float* g,
                                   float* dw, int threads) {
  Flushing small;
  try {
    const Lists& lists = weights->forward;
    const Conv& conv = weights->conv;
    std::fill(dw, dw + static_cast<size_t>(conv.k) * conv.c * conv.taps(), 0.0f);
    std::vector<Share> shares = shares_of(lists, threads);
    auto sum = sum_share<float>;
#if defined(ELISION_HALF)
    if (lists.tile.halves) sum = sum_share<half>;
#endif
    parallel(static_cast<int>(shares.size()), threads,
             [&](int i) { sum(lists, conv.n, shares[i], x, g, dw); });
    return 0;
  } catch (const std::bad_alloc&) {
    return -1;
  }
}
