// Winograd's convolution F(m, 3) along both axes, m = 2 or 4: the forward product of a 3x3
// kernel of stride 1, channels side by side (torch's channels_last), 16 or a multiple.
//
//     Y = Aᵀ [Σ_c (G g Gᵀ) ⊙ (Bᵀ d B)] A
//
// (Lavin and Gray, arXiv 1509.09308.) The filters are transformed once; then, for some
// tiles at a time, the data is, n² matrix products by the batch-reduce tile follow, and
// their sums are turned back. The matrices are those that elision.engines.winograd makes and
// proves; the functions below apply them by common subexpressions.
#include "direct.hpp"
#include "flushing.hpp"

using namespace elision;

namespace {

// Points 0, 1, −1 and infinity.
struct F2 {
  static constexpr int M = 2, N = 4;

  static void data(const vf* d, vf* v) {
    v[0] = d[2] - d[0];
    v[1] = d[1] + d[2];
    v[2] = d[2] - d[1];
    v[3] = d[3] - d[1];
  }
  static void filter(const vf* g, vf* u) {
    vf half = splat(0.5f), even = half * (g[0] + g[2]), odd = half * g[1];
    u[0] = -g[0];
    u[1] = even + odd;
    u[2] = even - odd;
    u[3] = g[2];
  }
  static void inverse(const vf* p, vf* y) {
    y[0] = p[0] + p[1] + p[2];
    y[1] = p[1] - p[2] + p[3];
  }
};

// Points 0, 1, −1, 2, −2 and infinity.
struct F4 {
  static constexpr int M = 4, N = 6;

  static void data(const vf* d, vf* v) {
    vf four = splat(4.0f), five = splat(5.0f);
    vf even = d[4] - four * d[2], odd = d[3] - four * d[1];
    vf near = d[4] - d[2], twice = d[3] - d[1];
    twice = twice + twice;
    v[0] = four * d[0] - five * d[2] + d[4];
    v[1] = even + odd;
    v[2] = even - odd;
    v[3] = near + twice;
    v[4] = near - twice;
    v[5] = four * d[1] - five * d[3] + d[5];
  }
  static void filter(const vf* g, vf* u) {
    vf sixth = splat(-1.0f / 6), part = splat(1.0f / 24), twelfth = splat(1.0f / 12);
    vf even = sixth * (g[0] + g[2]), odd = sixth * g[1];
    vf wide = part * g[0] - sixth * g[2], skew = twelfth * g[1];
    u[0] = splat(0.25f) * g[0];
    u[1] = even + odd;
    u[2] = even - odd;
    u[3] = wide + skew;
    u[4] = wide - skew;
    u[5] = g[2];
  }
  static void inverse(const vf* p, vf* y) {
    vf near = p[1] + p[2], skew = p[1] - p[2];
    vf far = p[3] + p[4], twice = p[3] - p[4];
    twice = twice + twice;
    vf four = splat(4.0f);
    y[0] = p[0] + near + far;
    y[1] = skew + twice;
    y[2] = near + four * far;
    y[3] = skew + four * twice + p[5];
  }
};

// Both axes: the columns of a square, then the rows of what they give. `at(i, j)` loads,
// `put(i, j, value)` stores.
template <int FROM, int TO, typename One, typename At, typename Put>
inline void both(const One& one, const At& at, const Put& put) {
  vf half[FROM][TO];
#pragma GCC unroll 6
  for (int j = 0; j < FROM; ++j) {
    vf column[FROM];
#pragma GCC unroll 6
    for (int i = 0; i < FROM; ++i) column[i] = at(i, j);
    one(column, half[j]);
  }
#pragma GCC unroll 6
  for (int i = 0; i < TO; ++i) {
    vf row[FROM], made[TO];
#pragma GCC unroll 6
    for (int j = 0; j < FROM; ++j) row[j] = half[j][i];
    one(row, made);
#pragma GCC unroll 6
    for (int j = 0; j < TO; ++j) put(i, j, made[j]);
  }
}

constexpr int FILTERS = 3, SUMS = 4;  // slots of scratch, beside those of direct.hpp

// Tiles whose data, transformed, is about 512 KiB; a step of it is no power of two.
int64_t tiles_at_once(int64_t channels, int64_t values) {
  int64_t tiles = (512 << 10) / static_cast<int64_t>(sizeof(float)) / (channels * values);
  return std::clamp<int64_t>(tiles, 24, 96) / 6 * 6;
}

template <typename F>
class Winograd {
  static constexpr int M = F::M, N = F::N, VALUES = N * N;

 public:
  Winograd(const DirectShape& shape, const Post& after, int thread_count)
      : v(shape),
        post(after),
        threads(thread_count),
        panels(ceil_of(v.k, BLOCK)),
        rows(ceil_of(v.out(0), M)),
        columns(ceil_of(v.out(1), M)),
        tiles(v.images * rows * columns),
        step(v.c + LANES) {}

  void run(const float* x, const float* w, float* y) {
    Memory made = transformed(w);
    filters = made.get();
    int64_t size[2] = {v.height, v.width}, low[2] = {-v.padding[0], -v.padding[1]};
    int64_t high[2] = {low[0] + rows * M + 2, low[1] + columns * M + 2};
    Padded padded(Plane(x, v.c, v.c, v.height, v.width), v.images, size, low, high,
                  threads);
    in = &padded.plane();
    out = y;
    int64_t most = tiles_at_once(v.c, VALUES);
    int64_t blocks = ceil_of(tiles, most);
    if (threads > 1)  // as many as fill every thread as often
      blocks = std::min(ceil_of(blocks, threads) * threads, tiles);
    most = ceil_of(tiles, blocks);
    parallel(static_cast<int>(blocks), threads, [&](int block) {
      int64_t begin = tiles * block / blocks, end = tiles * (block + 1) / blocks;
      float* data = scratch(0, VALUES * most * step);
      float* sums = scratch(SUMS, VALUES * most * BLOCK);
      for (int64_t t = begin; t < end; ++t)
        transform_data(t, data + (t - begin) * step, most * step);
      for (int64_t panel = 0; panel < panels; ++panel) {
        multiply(static_cast<int>(end - begin), panel, data, most * step, sums,
                 most * BLOCK);
        for (int64_t t = begin; t < end; ++t)
          transform_sums(t, panel, sums + (t - begin) * BLOCK, most * BLOCK);
      }
    });
  }

 private:
  // [value][block of 64 filters][channel][64].
  Memory transformed(const float* w) const {
    Memory packed = packed_forward(v, w, threads);
    Memory made(FILTERS, VALUES * panels * v.c * BLOCK);
    parallel(static_cast<int>(panels), threads, [&](int panel) {
      const float* from = packed.get() + panel * 9 * v.c * BLOCK;
      float* to = made.get() + panel * v.c * BLOCK;
      for (int64_t at = 0; at < v.c * BLOCK; at += WIDTH)
        both<3, N>(
            F::filter,
            [&](int i, int j) { return load(from + (3 * i + j) * v.c * BLOCK + at); },
            [&](int i, int j, vf value) {
              store(to + (N * i + j) * panels * v.c * BLOCK + at, value);
            });
    });
    return made;
  }

  void transform_data(int64_t tile, float* to, int64_t to_value) const {
    int64_t column = tile % columns, row = tile / columns % rows;
    const float* from = in->at + tile / columns / rows * in->image + row * M * in->row +
                        column * M * in->pixel;
    for (int64_t c = 0; c < v.c; c += WIDTH)
      both<N, N>(
          F::data,
          [&](int i, int j) { return load(from + i * in->row + j * in->pixel + c); },
          [&](int i, int j, vf value) { store(to + (N * i + j) * to_value + c, value); });
  }

  void multiply(int count, int64_t panel, const float* data, int64_t data_value,
                float* sums, int64_t sums_value) const {
    int live = static_cast<int>(std::min<int64_t>(BLOCK, v.k - panel * BLOCK));
    for (int value = 0; value < VALUES; ++value) {
      const float* b = filters + (value * panels + panel) * v.c * BLOCK;
      in_rows(0, count, most_rows(live), [&](int row, int height) {
        Factors f{data + value * data_value + row * step, static_cast<ptrdiff_t>(step), 0,
                  b, 0, 1, static_cast<int>(v.c)};
        float* c = sums + value * sums_value + row * BLOCK;
        int most = registers_of(BLOCK) * WIDTH;
        for (int at = 0; at < live; at += most) {
          run_registers(registers_for(std::min(live - at, most)), height, f, false, c + at,
                        BLOCK, WIDTH, nullptr);
          f.skip_columns(most);
        }
      });
    }
  }

  void transform_sums(int64_t tile, int64_t panel, const float* sums,
                      int64_t sums_value) const {
    int64_t column = tile % columns * M, row = tile / columns % rows * M;
    int64_t wide = v.out(1) * v.k;
    int64_t high = std::min<int64_t>(M, v.out(0) - row);
    int64_t across = std::min<int64_t>(M, v.out(1) - column);
    float* to = out + (tile / columns / rows * v.out(0) + row) * wide + column * v.k;
    for (int64_t k = panel * BLOCK; k < std::min(v.k, (panel + 1) * BLOCK); k += WIDTH)
      both<N, M>(
          F::inverse,
          [&](int i, int j) {
            return load(sums + (N * i + j) * sums_value + (k - panel * BLOCK));
          },
          [&](int i, int j, vf value) {
            if (i < high && j < across)
              store(to + i * wide + j * v.k + k, post.of(value, static_cast<int>(k)));
          });
  }

  const DirectShape& v;
  Post post;
  int threads;
  int64_t panels, rows, columns, tiles, step;
  const float* filters = nullptr;
  const Plane* in = nullptr;
  float* out = nullptr;
};

}  // namespace

extern "C" {

// As elision_direct_forward, for a 3x3 kernel of stride and dilation 1 and channels that
// are multiples of 16, side by side. `m` is 2 or 4.
int elision_winograd_forward(const int64_t* shape, int m, const float* x, const float* w,
                             const float* scale, const float* shift, int relu, float* y,
                             int threads) {
  Flushing small;
  const auto& v = *reinterpret_cast<const DirectShape*>(shape);
  Post post{scale, shift, relu != 0};
  return guarded([&] {
    if (m == 2)
      Winograd<F2>(v, post, threads).run(x, w, y);
    else
      Winograd<F4>(v, post, threads).run(x, w, y);
  });
}

}  // extern "C"
