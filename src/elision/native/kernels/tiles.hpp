// Products of bfloat16 by Intel's AMX: registers of 16 rows of 64 bytes.
//
// C (16 x 16 floats) += A (16 rows of 16 pairs) · B (16 pairs of rows, 16 columns): a word of
// A holds two neighbours of a row, a word of B two neighbours of a column, so that one
// instruction sums over 32. Without these instructions the products can be computed in plain
// C++: that is for checking the kernels, not for speed.
#pragma once

#include "bf16.hpp"

#if defined(__AMX_TILE__) && defined(__AMX_BF16__)
#include <immintrin.h>
#define ELISION_TILES 1
#elif defined(ELISION_EMULATE_TILES)
#define ELISION_TILES 1
#endif

#if defined(ELISION_TILES)

namespace elision {

constexpr int TILE = 16;         // rows, and words of a row
constexpr int DEPTH = 2 * TILE;  // that one product sums over

#if defined(__AMX_TILE__) && defined(__AMX_BF16__)

// What a thread's tiles look like, from here to the end of the block. Other libraries
// remember how they left the registers, so that it is put back.
class Tiles {
 public:
  Tiles() {
    _tile_storeconfig(before_);
    alignas(64) uint8_t ours[64] = {1};  // the palette; 8 tiles as large as they go
    for (int i = 0; i < 8; ++i) {
      ours[16 + 2 * i] = 4 * TILE;  // bytes of a row, 16 bits
      ours[48 + i] = TILE;
    }
    _tile_loadconfig(ours);
  }
  ~Tiles() {
    if (before_[0] == 0)
      _tile_release();
    else
      _tile_loadconfig(before_);
  }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

 private:
  alignas(64) uint8_t before_[64];
};

// The instructions name their registers in their bits.
#define ELISION_EACH_TILE(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7)

template <int T>
inline void tile_zero() {
#define ELISION_ONE(I) \
  if constexpr (T == I) _tile_zero(I);
  ELISION_EACH_TILE(ELISION_ONE)
#undef ELISION_ONE
}
template <int T>
inline void tile_load(const void* from, ptrdiff_t row_bytes) {
#define ELISION_ONE(I) \
  if constexpr (T == I) _tile_loadd(I, from, row_bytes);
  ELISION_EACH_TILE(ELISION_ONE)
#undef ELISION_ONE
}
template <int T>
inline void tile_store(void* to, ptrdiff_t row_bytes) {
#define ELISION_ONE(I) \
  if constexpr (T == I) _tile_stored(I, to, row_bytes);
  ELISION_EACH_TILE(ELISION_ONE)
#undef ELISION_ONE
}
// C of tiles 0 to 3, A of 4 and 5, B of 6 and 7.
template <int C, int A, int B>
inline void tile_multiply() {
#define ELISION_ONE(I)                                                           \
  if constexpr (C == I && A == 4 && B == 6) _tile_dpbf16ps(I, 4, 6);             \
  if constexpr (C == I && A == 4 && B == 7) _tile_dpbf16ps(I, 4, 7);             \
  if constexpr (C == I && A == 5 && B == 6) _tile_dpbf16ps(I, 5, 6);             \
  if constexpr (C == I && A == 5 && B == 7) _tile_dpbf16ps(I, 5, 7);
  ELISION_ONE(0) ELISION_ONE(1) ELISION_ONE(2) ELISION_ONE(3)
#undef ELISION_ONE
}
#undef ELISION_EACH_TILE

#else

struct Tiles {
  Tiles() {}
};

inline uint32_t (&tile_words(int tile))[TILE][TILE] {
  static thread_local uint32_t all[8][TILE][TILE];
  return all[tile];
}
template <int T>
inline void tile_zero() {
  std::memset(tile_words(T), 0, sizeof tile_words(T));
}
template <int T>
inline void tile_load(const void* from, ptrdiff_t row_bytes) {
  for (int i = 0; i < TILE; ++i)
    std::memcpy(tile_words(T)[i], static_cast<const char*>(from) + i * row_bytes, 4 * TILE);
}
template <int T>
inline void tile_store(void* to, ptrdiff_t row_bytes) {
  for (int i = 0; i < TILE; ++i)
    std::memcpy(static_cast<char*>(to) + i * row_bytes, tile_words(T)[i], 4 * TILE);
}
template <int C, int A, int B>
inline void tile_multiply() {
  auto half = [](uint32_t word, int upper) {
    uint32_t bits = upper ? word & 0xffff0000u : word << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  };
  for (int i = 0; i < TILE; ++i)
    for (int j = 0; j < TILE; ++j) {
      float sum;
      std::memcpy(&sum, &tile_words(C)[i][j], sizeof sum);
      for (int k = 0; k < TILE; ++k)
        for (int upper = 0; upper < 2; ++upper)
          sum += half(tile_words(A)[i][k], upper) * half(tile_words(B)[k][j], upper);
      std::memcpy(&tile_words(C)[i][j], &sum, sizeof sum);
    }
}

#endif

// --- strips of 32 rows --------------------------------------------------------------------

constexpr int STRIP = 2 * TILE;  // rows of A that are computed together
constexpr int PANEL = 64;        // columns of B side by side

// Strips of A lie in memory as they are read: [strip][depth / 32][32 rows][32 values].
// B is [depth / 2][64 words].
//
// ROWS x COLUMNS tiles of C, at most four, from `c` on: one tile of B meets all rows.
template <int ROWS, int COLUMNS>
inline void tile_product(const bf16* a, const float* b, int depth, bool add, float* c,
                         ptrdiff_t c_row) {
  ptrdiff_t bytes = c_row * 4;
  auto at = [&](int i, int j) { return c + i * TILE * c_row + j * TILE; };
  auto begin = [&](auto tile, float* from) {
    if (add)
      tile_load<decltype(tile)::value>(from, bytes);
    else
      tile_zero<decltype(tile)::value>();
  };
  auto each = [&](auto&& work) {
    work(std::integral_constant<int, 0>{}, 0, 0);
    if constexpr (COLUMNS > 1) work(std::integral_constant<int, 1>{}, 0, 1);
    if constexpr (ROWS == 1 && COLUMNS > 2) work(std::integral_constant<int, 2>{}, 0, 2);
    if constexpr (ROWS == 1 && COLUMNS > 3) work(std::integral_constant<int, 3>{}, 0, 3);
    if constexpr (ROWS == 2) work(std::integral_constant<int, 2>{}, 1, 0);
    if constexpr (ROWS == 2 && COLUMNS > 1) work(std::integral_constant<int, 3>{}, 1, 1);
  };
  each([&](auto tile, int i, int j) { begin(tile, at(i, j)); });
  for (int k = 0; k < depth; ++k, a += STRIP * DEPTH, b += TILE * PANEL) {
    tile_load<4>(a, 2 * DEPTH);
    tile_load<6>(b, 4 * PANEL);
    tile_multiply<0, 4, 6>();
    if constexpr (ROWS == 2) {
      tile_load<5>(a + TILE * DEPTH, 2 * DEPTH);
      tile_multiply<2, 5, 6>();
    }
    if constexpr (COLUMNS > 1) {
      tile_load<7>(b + TILE, 4 * PANEL);
      tile_multiply<1, 4, 7>();
      if constexpr (ROWS == 2) tile_multiply<3, 5, 7>();
    }
    if constexpr (ROWS == 1 && COLUMNS > 2) {
      tile_load<6>(b + 2 * TILE, 4 * PANEL);
      tile_multiply<2, 4, 6>();
    }
    if constexpr (ROWS == 1 && COLUMNS > 3) {
      tile_load<7>(b + 3 * TILE, 4 * PANEL);
      tile_multiply<3, 4, 7>();
    }
  }
  each([&](auto tile, int i, int j) { tile_store<decltype(tile)::value>(at(i, j), bytes); });
}

// C (+)= A · B of one strip, of which the first `rows` are wanted, and `tiles` tiles of
// columns; `depth` in units of DEPTH. All rows of C's tiles are written.
inline void strip_product(int rows, int tiles, const bf16* a, const float* b, int depth,
                          bool add, float* c, ptrdiff_t c_row) {
  if (rows <= TILE) {
    using Product = void (*)(const bf16*, const float*, int, bool, float*, ptrdiff_t);
    constexpr Product PRODUCTS[] = {tile_product<1, 1>, tile_product<1, 2>,
                                    tile_product<1, 3>, tile_product<1, 4>};
    return PRODUCTS[tiles - 1](a, b, depth, add, c, c_row);
  }
  for (int tile = 0; tile < tiles; tile += 2) {
    auto* product = tile + 1 < tiles ? tile_product<2, 2> : tile_product<2, 1>;
    product(a, b + tile * TILE, depth, add, c + tile * TILE, c_row);
  }
}

}  // namespace elision

#endif
