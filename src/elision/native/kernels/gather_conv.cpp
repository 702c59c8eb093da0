// Forward product and input gradient with a sparse weight: for every own channel, walk
// its list and add value x window into a tile of accumulators that stays in registers.

#include <algorithm>

#include "flushing.hpp"
#include "pool.hpp"
#include "weights.hpp"

using namespace elision;

namespace {

// Walk one list. `tile` holds ROWS x SPAN pixels of partial sums, absent for the first
// block of channels; `out` receives the new sums, one row every `out_step` floats. Every
// loop over `sum` must unroll, or the compiler keeps the accumulators in memory.
template <int ROWS, int SPAN>
void walk(const float* window, ptrdiff_t row_step, const int32_t* offset,
          const float* value, int length, const float* tile, float* out,
          ptrdiff_t out_step) {
  constexpr int VECTORS = SPAN * LANES / WIDTH;
  vf sum[ROWS][VECTORS];
#pragma GCC unroll 4
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 16
    for (int j = 0; j < VECTORS; ++j)
      sum[i][j] = tile ? load(tile + (i * VECTORS + j) * WIDTH) : vf{};
  const float* row[ROWS];
#pragma GCC unroll 4
  for (int i = 0; i < ROWS; ++i) {
    row[i] = window + i * row_step;
    asm("" : "+r"(row[i]));  // or the compiler adds the rows up anew for every entry
  }
  for (int n = 0; n < length; ++n) {
    vf v = splat(value[n]);
    ptrdiff_t o = offset[n];
#pragma GCC unroll 4
    for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 16
      for (int j = 0; j < VECTORS; ++j)
        sum[i][j] += v * load(row[i] + o + j * WIDTH);
  }
#pragma GCC unroll 4
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 16
    for (int j = 0; j < VECTORS; ++j) store(out + i * out_step + j * WIDTH, sum[i][j]);
}

#if defined(ELISION_HALF)

// The same of a window of halves: what a list sums up is promoted at its end. Each value
// is its half, twice.
template <int ROWS, int SPAN>
void walk(const half* window, ptrdiff_t row_step, const int32_t* offset,
          const float* value, int length, const float* tile, float* out,
          ptrdiff_t out_step) {
  constexpr int VECTORS = SPAN * LANES / HALVES;
  vh sum[ROWS][VECTORS];
#pragma GCC unroll 4
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 16
    for (int j = 0; j < VECTORS; ++j) sum[i][j] = vh{};
  const half* row[ROWS];
#pragma GCC unroll 4
  for (int i = 0; i < ROWS; ++i) {
    row[i] = window + i * row_step;
    asm("" : "+r"(row[i]));
  }
  for (int n = 0; n < length; ++n) {
    vh v = splat_twice(value + n);
    ptrdiff_t o = offset[n];
#pragma GCC unroll 4
    for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 16
      for (int j = 0; j < VECTORS; ++j)
        add_product(sum[i][j], v, row[i] + o + j * HALVES);
  }
#pragma GCC unroll 4
  for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < VECTORS; ++j) {
      vf low = widen_low(sum[i][j]), high = widen_high(sum[i][j]);
      if (tile) {
        const float* before = tile + (i * VECTORS + j) * HALVES;
        low += load(before);
        high += load(before + WIDTH);
      }
      store(out + i * out_step + j * HALVES, low);
      store(out + i * out_step + j * HALVES + WIDTH, high);
    }
  }
}

#endif

template <typename Number>
using Walk = void (*)(const Number*, ptrdiff_t, const int32_t*, const float*, int,
                      const float*, float*, ptrdiff_t);

// Copy what exists of a finished tile to the own plane.
void put(const Meeting& m, const Tile& tile, const Phase& phase, const Place& at, int own,
         const float* sums, float* result) {
  size_t plane = static_cast<size_t>(m.own_h) * m.own_w;
  for (int b = 0; b < at.blocks; ++b) {
    float* to = result + (static_cast<size_t>(at.block + b) * m.own_c + own) * plane * LANES;
    for (int i = 0; i < at.rows; ++i) {
      size_t y = phase.first_y + static_cast<size_t>(at.y + i) * m.own_step_y;
      for (int j = 0; j < at.cols; ++j) {
        size_t x = phase.first_x + static_cast<size_t>(at.x + j) * m.own_step_x;
        copy_lanes(to + (y * m.own_w + x) * LANES,
                   sums + ((i * tile.cols + j) * tile.blocks + b) * LANES);
      }
    }
  }
}

struct Task {
  int phase;
  Place at;
};

// `next` is the tile that this thread will probably do next, if there is one.
template <typename Number>
void one_tile(const Lists& lists, const Task& task, const Task* next, int own_begin,
              int own_end, const float* partner, int image_blocks, float* result) {
  const Meeting& m = lists.meeting;
  const Tile& tile = lists.tile;
  const Place& at = task.at;
  const Phase& phase = m.phases[task.phase];
  int row_floats = tile.span * LANES, tile_floats = tile.rows * row_floats;
  auto walk_list = for_shape<Number, Walk<Number>>(
      tile, [](auto rows, auto span) -> Walk<Number> { return walk<rows, span>; });
  size_t window_numbers = static_cast<size_t>(tile.channels) * tile.channel_numbers();
  auto* window = reinterpret_cast<Number*>(scratch(0, window_numbers));
  float* sums = scratch(1, static_cast<size_t>(own_end - own_begin) * tile_floats);
  // A whole tile of one image block in a plane without holes is stored where it belongs.
  bool direct = tile.blocks == 1 && m.own_step_x == 1 && at.cols == tile.cols &&
                at.rows == tile.rows;
  size_t plane = static_cast<size_t>(m.own_h) * m.own_w;
  size_t corner = static_cast<size_t>(phase.first_y + at.y * m.own_step_y) * m.own_w +
                  phase.first_x + at.x;
  static thread_local std::vector<int> pixels, next_pixels;
  find_pixels(m, tile, phase, at, pixels);
  if (next) find_pixels(m, tile, m.phases[next->phase], next->at, next_pixels);
  for (int block = 0; block < lists.blocks; ++block) {
    int first = block * tile.channels;
    int count = std::min(tile.channels, m.partner_c - first);
    pack_window(m, tile, at, pixels, partner, image_blocks, first, count, window);
    bool last = block + 1 == lists.blocks;
    Ahead ahead;
    if (!last)
      ahead = Ahead(m, tile, at, pixels, partner, first + count, own_end - own_begin);
    else if (next)
      ahead = Ahead(m, tile, next->at, next_pixels, partner, 0, own_end - own_begin);
    for (int own = own_begin; own < own_end; ++own) {
      ahead.fetch();
      size_t list = lists.list(task.phase, block, own);
      float* mine = sums + static_cast<size_t>(own - own_begin) * tile_floats;
      float* out = mine;
      ptrdiff_t out_step = row_floats;
      if (last && direct) {
        size_t channel = static_cast<size_t>(at.block) * m.own_c + own;
        out = result + (channel * plane + corner) * LANES;
        out_step = static_cast<ptrdiff_t>(m.own_step_y) * m.own_w * LANES;
      }
      walk_list(window, tile.row_step(m), lists.offset.get() + lists.begin[list],
                lists.value.get() + lists.begin[list], lists.length[list],
                block ? mine : nullptr, out, out_step);
      if (last && !direct) put(m, tile, phase, at, own, mine, result);
    }
  }
}

template <typename Number>
void gather_conv(const Lists& lists, int images, const float* partner, float* result,
                 int threads) {
  const Meeting& m = lists.meeting;
  const Tile& tile = lists.tile;
  std::vector<Task> tasks;
  int image_blocks = (images + LANES - 1) / LANES;
  for (int b = 0; b < image_blocks; b += tile.blocks)
    for (size_t p = 0; p < m.phases.size(); ++p)
      for (int y = 0; y < m.phases[p].rows; y += tile.rows)
        for (int x = 0; x < m.phases[p].cols; x += tile.cols)
          tasks.push_back({static_cast<int>(p),
                           {b, y, x, std::min(tile.blocks, image_blocks - b),
                            std::min(tile.rows, m.phases[p].rows - y),
                            std::min(tile.cols, m.phases[p].cols - x)}});
  // Few tiles: cut the own channels too, and pack each window more than once.
  int cuts = std::min(m.own_c, (threads + static_cast<int>(tasks.size()) - 1) /
                                   static_cast<int>(tasks.size()));
  int per_cut = (m.own_c + cuts - 1) / cuts;
  parallel(static_cast<int>(tasks.size()) * cuts, threads, [&](int index) {
    size_t task = index / cuts, next = (index + threads) / cuts;
    int begin = std::min(m.own_c, index % cuts * per_cut);
    int end = std::min(m.own_c, begin + per_cut);
    if (begin < end)
      one_tile<Number>(lists, tasks[task], next < tasks.size() ? &tasks[next] : nullptr,
                       begin, end, partner, image_blocks, result);
  });
}

int gather(const Lists& lists, int images, const float* partner, float* result,
           int threads) {
  try {
    auto gather_them = gather_conv<float>;
#if defined(ELISION_HALF)
    if (lists.tile.halves) gather_them = gather_conv<half>;
#endif
    gather_them(lists, images, partner, result, threads);
    return 0;
  } catch (const std::bad_alloc&) {
    return -1;
  }
}

}  // namespace

// Blocked input -> blocked output. Returns 0, or -1 if there is not memory enough.
extern "C" int elision_forward(const Weights* weights, const float* x, float* y,
                               int threads) {
  Flushing small;
  return gather(weights->forward, weights->conv.n, x, y, threads);
}

// Blocked gradient of the output -> blocked gradient of the input.
extern "C" int elision_input_grad(const Weights* weights, const float* g, float* dx,
                                  int threads) {
  Flushing small;
  return gather(weights->input_grad, weights->conv.n, g, dx, threads);
}
