// Dense products by the batch-reduce tile: convolutions and matrix products, forward and
// both gradients, in one layout for all:
//
//     x[image][C / v][row][column][v]
//
// v channels side by side; v = C is torch's channels_last, v = 16 the layout of direct
// convolutions (Georganas et al., "Anatomy of high-performance deep learning convolutions
// on SIMD architectures", arXiv 1808.05567). A matrix is an image of one row.
#pragma once

#include <algorithm>
#include <cstdint>
#include <new>
#include <optional>

#include "batch_reduce.hpp"
#include "large.hpp"
#include "packing.hpp"
#include "pool.hpp"

namespace elision {

// Memory of the calling thread, kept for the next call. Slot 0 is every thread's own.
constexpr int PACKED = 1, PADDED = 2, MADE = 3;
constexpr size_t KEPT = size_t{16} << 20;  // floats: what is larger is given back

class Memory {
 public:
  Memory(int slot, size_t floats) {
    if (floats > KEPT) own_.emplace(floats);
    data_ = own_ ? own_->get() : scratch(slot, floats);
  }
  float* get() const { return data_; }

 private:
  std::optional<Floats> own_;
  float* data_;
};

// Of the layer; read from an array of 64-bit integers.
struct DirectShape {
  int64_t images, c, height, width, k, taps[2], stride[2], padding[2], dilation[2];
  int64_t c_block, k_block;  // v of the input and of the output; divide C and K

  int64_t in(int axis) const { return axis ? width : height; }
  int64_t out(int axis) const {
    return (in(axis) + 2 * padding[axis] - dilation[axis] * (taps[axis] - 1) - 1) /
               stride[axis] +
           1;
  }
};

// Where the pixels of a tensor lie: floats between images, channel blocks, rows, pixels.
struct Plane {
  const float* at;
  ptrdiff_t image, block, row, pixel;
  int blocks, side;  // channel blocks, and channels side by side

  Plane(const float* data, int64_t channels, int64_t side_by_side, int64_t rows,
        int64_t columns)
      : at(data),
        image(channels * rows * columns),
        block(side_by_side * rows * columns),
        row(side_by_side * columns),
        pixel(side_by_side),
        blocks(static_cast<int>(channels / side_by_side)),
        side(static_cast<int>(side_by_side)) {}
};

inline int64_t ceil_of(int64_t count, int64_t size) { return (count + size - 1) / size; }

inline int registers_for(int columns) {
  return std::min<int>(registers_of(BLOCK), static_cast<int>(ceil_of(columns, WIDTH)));
}

template <int REGS, typename F>
void run_tile(int rows, const F& f, bool add, float* c, ptrdiff_t c_row, ptrdiff_t c_step,
              const Post* post) {
  tile_of<REGS>(rows, f, add ? c : nullptr, c_row, c, c_row, c_step, post,
                std::make_index_sequence<wide_rows(REGS)>{});
}

template <typename F>
void run_registers(int registers, int rows, const F& f, bool add, float* c,
                   ptrdiff_t c_row, ptrdiff_t c_step, const Post* post) {
  switch (registers) {
#if defined(ELISION_AVX512)
    case 4: return run_tile<4>(rows, f, add, c, c_row, c_step, post);
    case 3: return run_tile<3>(rows, f, add, c, c_row, c_step, post);
#endif
    case 2: return run_tile<2>(rows, f, add, c, c_row, c_step, post);
    default: return run_tile<1>(rows, f, add, c, c_row, c_step, post);
  }
}

// Rows of a strip for a block of so many columns, and strips of nearly equal height.
inline int most_rows(int columns) { return wide_rows(registers_for(columns)); }

template <typename Work>
void in_rows(int begin, int end, int most, const Work& work) {
  int strips = (end - begin + most - 1) / most;
  for (int s = 0, row = begin; s < strips; ++s) {
    int rows = (end - row + strips - s - 1) / (strips - s);
    work(row, rows);
    row += rows;
  }
}

// A plane and zeros around it: rows [low, high) of each axis; the plane itself where it
// holds them all.
class Padded {
 public:
  Padded(const Plane& plane, int64_t images, const int64_t size[2], const int64_t low[2],
         const int64_t high[2], int threads)
      : plane_(plane) {
    if (low[0] >= 0 && low[1] >= 0 && high[0] <= size[0] && high[1] <= size[1]) {
      plane_.at += low[0] * plane.row + low[1] * plane.pixel;
      return;
    }
    int64_t rows = high[0] - low[0], columns = high[1] - low[1];
    int64_t side = plane.side, planes = images * plane.blocks;
    copy_.emplace(PADDED, static_cast<size_t>(planes * rows * columns * side));
    float* copy = copy_->get();
    plane_ = Plane(copy, plane.blocks * side, side, rows, columns);
    int64_t first = std::clamp<int64_t>(-low[1], 0, columns);
    int64_t last = std::clamp<int64_t>(size[1] - low[1], first, columns);
    parallel(static_cast<int>(planes), threads, [&](int p) {
      const float* from = plane.at + (p / plane.blocks) * plane.image +
                          (p % plane.blocks) * plane.block;
      float* to = copy + p * rows * columns * side;
      for (int64_t r = 0; r < rows; ++r, to += columns * side) {
        int64_t row = low[0] + r;
        if (row < 0 || row >= size[0]) {
          std::fill_n(to, columns * side, 0.0f);
          continue;
        }
        std::fill_n(to, first * side, 0.0f);
        std::copy_n(from + row * plane.row + (low[1] + first) * plane.pixel,
                    (last - first) * side, to + first * side);
        std::fill_n(to + last * side, (columns - last) * side, 0.0f);
      }
    });
  }

  const Plane& plane() const { return plane_; }

 private:
  Plane plane_;
  std::optional<Memory> copy_;
};

// Blocks of 64 output channels, read as [channel block][row][column][channel][64]:
// the weight W[K][C][R][S] with its own columns K for the forward product.
inline Memory packed_forward(const DirectShape& v, const float* w, int threads) {
  int64_t taps = v.taps[0] * v.taps[1], depth = v.c * taps, panels = ceil_of(v.k, BLOCK);
  Memory packed(PACKED, static_cast<size_t>(panels * depth * BLOCK));
  int64_t strides = ceil_of(depth, 16);
  parallel(static_cast<int>(panels), threads, [&](int panel) {
    float* to = packed.get() + panel * depth * BLOCK;
    int64_t live = std::min<int64_t>(BLOCK, v.k - panel * BLOCK);
    const float* from = w + panel * BLOCK * depth;
    // Where row (channel, tap) of the transpose goes: taps outside channels of a block.
    auto place = [&](int64_t at) {
      int64_t c = at / taps, tap = at % taps;
      return ((c / v.c_block * taps + tap) * v.c_block + c % v.c_block) * BLOCK;
    };
    for (int64_t s = 0; s < strides; ++s) {
      int64_t first = 16 * s, count = std::min<int64_t>(16, depth - first);
      for (int64_t k = 0; k < BLOCK; k += 16) {
        float square[16 * 16];
        if (count == 16 && k + 16 <= live) {
          transpose16(from + k * depth + first, depth, square, 16);
        } else {
          for (int64_t i = 0; i < count; ++i)
            for (int64_t j = 0; j < 16; ++j)
              square[16 * i + j] =
                  k + j < live ? from[(k + j) * depth + first + i] : 0.0f;
        }
        for (int64_t i = 0; i < count; ++i)
          copy_lanes(to + place(first + i) + k, square + 16 * i);
      }
    }
  });
  return packed;
}

// The work's outcome for C: 0, or -1 where memory ran out.
template <typename Work>
int guarded(const Work& work) {
  try {
    work();
    return 0;
  } catch (const std::bad_alloc&) {
    return -1;
  }
}

}  // namespace elision
