// Rounding to number formats: value by value, and with scales that groups share.

#include <algorithm>

#include "pool.hpp"
#include "rounding.hpp"

using namespace elision;

namespace {

constexpr int64_t CHUNK = 16 * 1024;  // values of a task

// Calls work(Rounder) for the element's kind and the way of rounding.
template <int KIND, typename Work>
void with_way(const Element& e, int way, Work work) {
  if (way == NEAREST)
    work(Rounder<KIND, NEAREST>(e));
  else if (way == ZERO)
    work(Rounder<KIND, ZERO>(e));
  else
    work(Rounder<KIND, STOCHASTIC>(e));
}
template <typename Work>
void with_rounder(const Element& e, int way, Work work) {
  if (e.kind == WIDE)
    with_way<WIDE>(e, way, work);
  else if (e.kind == NARROW)
    with_way<NARROW>(e, way, work);
  else
    with_way<FIXED>(e, way, work);
}

template <typename Work>
void over_chunks(int64_t n, int threads, Work work) {
  int chunks = static_cast<int>((n + CHUNK - 1) / CHUNK);
  parallel(chunks, threads, [&](int task) {
    int64_t begin = task * CHUNK;
    work(begin, std::min(CHUNK, n - begin));
  });
}

// y[i] = change(x[i]) for n values, the last ones by a copy.
template <typename Change>
void each(const float* x, float* y, int64_t n, Change change) {
  int64_t i = 0;
  for (; i + WIDTH <= n; i += WIDTH) store(y + i, change(load(x + i)));
  if (i == n) return;
  alignas(64) float rest[WIDTH] = {};
  std::copy(x + i, x + n, rest);
  store(rest, change(load(rest)));
  std::copy(rest, rest + (n - i), y + i);
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
