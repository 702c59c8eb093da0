// Rounding to number formats, value by value.

#include <algorithm>

#include "pool.hpp"
#include "rounding.hpp"

using namespace elision;

namespace {

constexpr int64_t CHUNK = 16 * 1024;  // values of a task

template <typename Work>
void over_chunks(int64_t n, int threads, Work work) {
  int chunks = static_cast<int>((n + CHUNK - 1) / CHUNK);
  parallel(chunks, threads, [&](int task) {
    int64_t begin = task * CHUNK;
    work(begin, std::min(CHUNK, n - begin));
  });
}

// y[i] = change(x[i]) for n values.
template <typename Change>
void each(const float* x, float* y, int64_t n, Change change) {
  int64_t i = 0;
  for (; i + WIDTH <= n; i += WIDTH) store(y + i, change(load(x + i)));
  if (i < n) store_some(y + i, change(load_some(x + i, n - i)), n - i);
}

}  // namespace

// y = the element's values in place of n floats; zeros where the magnitude is not above
// `above` (below 0: nowhere), NaN is. x may be y.
extern "C" void elision_round(const float* x, float* y, int64_t n, const Element* element,
                              int way, uint32_t seed, float above, int threads) {
  with_rounder(*element, way, [&](auto round) {
    over_chunks(n, threads, [&](int64_t begin, int64_t count) {
      Random random(seed, begin);
      auto change = [&](vf v) { return round(v, way == STOCHASTIC ? random.next() : vu{}); };
      if (above < 0) return each(x + begin, y + begin, count, change);
      vf level = splat(above);
      each(x + begin, y + begin, count, [&](vf v) {
        vf magnitude = floats(bits(v) & 0x7FFFFFFF);
        return magnitude <= level ? vf{} : change(v);
      });
    });
  });
}
