// Weight gradient of a matrix product from one sparse operand, dense result, both operands as
// they lie: [tokens][columns]. The columns of the sparse one become lists of tokens, and each
// entry multiplies some columns of the dense one's row, whose sums stay in registers.
//
// Tokens come in chunks, so that the dense rows of a list stay in cache; they are copied there,
// since rows a power of two apart would share the cache's sets.

#include <algorithm>
#include <atomic>
#include <vector>

#include "flushing.hpp"
#include "pool.hpp"
#include "room.hpp"
#include "vec.hpp"

using namespace elision;

namespace {

constexpr int CHUNK = 128;                // tokens: with `WIDE` floats 64 KiB, as in operand_grad.cpp
constexpr int VECTORS = 8;                // sums of a list, in registers
constexpr int WIDE = VECTORS * WIDTH;     // columns of the dense operand beside one another
constexpr int RESULT_FLOATS = 64 * 1024;  // 256 KiB of results stay in L2 beside them

struct Matrix {
  const float* values;
  int64_t step, columns;  // floats from row to row, and of a row
  const float* row(int64_t r) const { return values + r * step; }
};

struct Lists {
  Room<float> value;
  Room<int32_t> token;          // in the chunk
  std::vector<int64_t> begin;   // [chunk][column]
  std::vector<int32_t> length;  // [chunk][column]
};

bool finite(const float* values, int64_t count) {
  vf zero{};
  int64_t i = 0;
  for (; i + WIDTH <= count; i += WIDTH) zero += load(values + i) * 0.0f;
  bool good = true;
  for (int j = 0; j < WIDTH; ++j) good &= zero[j] == 0;
  for (; i < count; ++i) good &= values[i] * 0.0f == 0;
  return good;
}

// Lists of one chunk; false if a value is infinite or NaN.
bool compress(const Matrix& m, int64_t first, int live, int64_t chunk, Lists& lists) {
  bool good = true;
  int64_t next = chunk * m.columns * (CHUNK + 16);
  alignas(64) float seen[16 * 16], turned[16 * CHUNK];
  alignas(64) int32_t place[CHUNK];
  for (int t = 0; t < CHUNK; ++t) place[t] = t;
  for (int64_t c = 0; c < m.columns; c += 16) {
    int columns = static_cast<int>(std::min<int64_t>(16, m.columns - c));
    for (int t = 0; t < live; t += 16) {
      const float* from = m.row(first + t) + c;
      int rows = std::min(16, live - t);
      if (columns == 16 && rows == 16) {
        transpose16(from, m.step, turned + t, CHUNK);
      } else {
        std::fill_n(seen, 16 * 16, 0.0f);
        for (int i = 0; i < rows; ++i) std::copy_n(from + i * m.step, columns, seen + i * 16);
        transpose16(seen, 16, turned + t, CHUNK);
      }
    }
    for (int i = 0; i < columns; ++i) {
      const float* values = turned + i * CHUNK;
      lists.begin[chunk * m.columns + c + i] = next;
      int64_t begin = next;
      for (int t = 0; t < live; t += 16)
        next += append16(values + t, place + t, 0, 0.0f, std::min(16, live - t),
                         lists.value.get() + next, lists.token.get() + next);
      good &= finite(lists.value.get() + begin, next - begin);
      lists.length[chunk * m.columns + c + i] = static_cast<int32_t>(next - begin);
    }
  }
  return good;
}

// sums += value x row, over one list.
void walk(const float* rows, const int32_t* token, const float* value, int length, float* sums) {
  vf sum[VECTORS];
#pragma GCC unroll 8
  for (int j = 0; j < VECTORS; ++j) sum[j] = load(sums + j * WIDTH);
  for (int n = 0; n < length; ++n) {
    vf v = splat(value[n]);
    const float* row = rows + static_cast<ptrdiff_t>(token[n]) * WIDE;
#pragma GCC unroll 8
    for (int j = 0; j < VECTORS; ++j) sum[j] += v * load(row + j * WIDTH);
  }
#pragma GCC unroll 8
  for (int j = 0; j < VECTORS; ++j) store(sums + j * WIDTH, sum[j]);
}

}  // namespace

// dw [dense columns][sparse columns], or, not `turned`, [sparse columns][dense columns]: the
// sum over `tokens` rows of sparse x dense, whose rows lie `step` floats apart. Zeros of the
// sparse operand are left out.
// Returns 1; 0 if a value of an operand is infinite or NaN, which zeros would spread: dw is
// then not what a dense product is; or -1 if there is not memory enough.
extern "C" int elision_rows_weight_grad(const float* sparse, int64_t sparse_step,
                                        int64_t sparse_columns, const float* dense,
                                        int64_t dense_step, int64_t dense_columns,
                                        int64_t tokens, int turned, float* dw, int threads) {
  Flushing small;
  try {
    Matrix own{sparse, sparse_step, sparse_columns}, other{dense, dense_step, dense_columns};
    int64_t chunks = (tokens + CHUNK - 1) / CHUNK;
    static thread_local Lists kept;
    Lists& lists = kept;
    size_t room = static_cast<size_t>(chunks) * own.columns * (CHUNK + 16) + 16;
    lists.value.reserve(room);
    lists.token.reserve(room);
    lists.begin.assign(chunks * own.columns, 0);
    lists.length.assign(chunks * own.columns, 0);
    std::atomic<int> all_finite{1};
    auto live = [&](int64_t chunk) {
      return static_cast<int>(std::min<int64_t>(CHUNK, tokens - chunk * CHUNK));
    };
    parallel(static_cast<int>(chunks), threads, [&](int chunk) {
      if (!compress(own, static_cast<int64_t>(chunk) * CHUNK, live(chunk), chunk, lists))
        all_finite.store(0);
    });
    // Cut the sparse columns where the results would not stay in cache or the threads would
    // run out of work; each cut copies the dense rows again.
    int64_t groups = (other.columns + WIDE - 1) / WIDE;
    int64_t cuts = std::max((own.columns * WIDE + RESULT_FLOATS - 1) / RESULT_FLOATS,
                            (threads + groups - 1) / groups);
    cuts = std::max<int64_t>(1, std::min(own.columns, cuts));
    int64_t per_cut = (own.columns + cuts - 1) / cuts;
    parallel(static_cast<int>(groups * cuts), threads, [&](int task) {
      int64_t begin = std::min(own.columns, task % cuts * per_cut);
      int64_t end = std::min(own.columns, begin + per_cut), first = task / cuts * WIDE;
      int64_t columns = std::min<int64_t>(WIDE, other.columns - first);
      float* rows = scratch(2, static_cast<size_t>(CHUNK) * WIDE);
      float* result = scratch(3, static_cast<size_t>(per_cut) * WIDE);
      std::fill_n(result, (end - begin) * WIDE, 0.0f);
      if (columns < WIDE) std::fill_n(rows, CHUNK * WIDE, 0.0f);
      bool good = true;
      for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        for (int t = 0; t < live(chunk); ++t)
          std::copy_n(other.row(chunk * CHUNK + t) + first, columns, rows + t * WIDE);
        if (begin == 0) good &= finite(rows, static_cast<int64_t>(live(chunk)) * WIDE);
        for (int64_t c = begin; c < end; ++c) {
          int64_t list = chunk * own.columns + c, at = lists.begin[list];
          if (lists.length[list] == 0) continue;
          walk(rows, lists.token.get() + at, lists.value.get() + at, lists.length[list],
               result + (c - begin) * WIDE);
        }
      }
      if (!good) all_finite.store(0);
      if (!turned) {
        for (int64_t c = begin; c < end; ++c)
          std::copy_n(result + (c - begin) * WIDE, columns, dw + c * other.columns + first);
        return;
      }
      float* to = dw + first * own.columns + begin;
      for (int64_t k = 0; k < columns; k += 16) {
        int64_t i = 0;
        for (; k + 16 <= columns && i + 16 <= end - begin; i += 16)
          transpose16(result + i * WIDE + k, WIDE, to + k * own.columns + i, own.columns);
        for (; i < end - begin; ++i)
          for (int64_t j = k; j < std::min(k + 16, columns); ++j)
            to[j * own.columns + i] = result[i * WIDE + j];
      }
    });
    return all_finite.load();
  } catch (const std::bad_alloc&) {
    return -1;
  }
}
