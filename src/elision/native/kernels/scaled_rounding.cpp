// Rounding with scales that groups of values share: the largest magnitude, the scale, the
// quotient, its rounding and the product in one call, without a tensor between.
//
// A tensor is [outer][length][inner], its middle axis the one that blocks run along or
// that holds the channels. Every quotient and product is rounded to float32 once.

#include <algorithm>
#include <atomic>
#include <new>
#include <vector>

#include "pool.hpp"
#include "rounding.hpp"

using namespace elision;

namespace {

constexpr int64_t CHUNK = 16 * 1024;  // values of a task, about
constexpr int TILE = 256;             // neighbours whose blocks are looked at together
constexpr int32_t INFINITE = 0x7F800000;

enum Rules { POWER, LARGEST, TWO_LEVEL };

// How a scale follows from a group; filled in by elision/formats/native.py.
struct Rule {
  int32_t kind;
  int32_t lead;         // POWER: exponent of the element that the largest is brought to
  int32_t spreads_nan;  // a NaN makes its whole group NaN
  float largest;        // LARGEST, TWO_LEVEL: the largest element
  float whole;          // TWO_LEVEL: times the largest scale of a block
  Element block;        // TWO_LEVEL: format of a block's scale
};

// The largest finite magnitude of a group as its bits, and whether it holds a NaN (-1).
struct Found {
  vi top = {}, nan = {};

  // One group in all lanes.
  void join() {
    top = largest_lane(top);
    if (any(nan)) nan = splat_bits(-1);
  }
};

// What divides the values of a group, lane by lane.
struct Scale {
  vf scale, inverse;
};

// Powers of two from their biased exponents in [0, 254]; 0 is 2^-127.
vf power_of(vi biased) { return floats(biased > 0 ? biased << 23 : splat_bits(0x400000)); }

class Scales {
 public:
  // `tensor`: bits of the largest finite magnitude of the tensor, for TWO_LEVEL.
  Scales(const Rule& rule, int32_t tensor)
      : rule_(rule), round_(rule.block), tensor_(splat(normal(as_float(tensor) / rule.whole))) {}

  bool divides() const { return rule_.kind != POWER; }

  Scale of(const Found& found) const {
    vf nan = floats(splat_bits(0x7FC00000)), top = floats(found.top), s, inverse{};
    vi spread = rule_.spreads_nan ? found.nan : vi{};
    if (rule_.kind == POWER) {
      vi biased = (found.top >> 23) - rule_.lead;
      biased = larger(biased, vi{});
      biased = biased < 254 ? biased : splat_bits(254);
      s = power_of(biased), inverse = power_of(254 - biased);
    } else {
      s = top / splat(rule_.largest);
      if (rule_.kind == LARGEST)
        s = s < 0x1p-126f ? splat(0x1p-126f) : s;
      else
        s = round_(s / tensor_, vu{}) * tensor_;
    }
    return {spread ? nan : s, inverse};
  }

 private:
  static float normal(float s) { return s < 0x1p-126f ? 0x1p-126f : s; }

  Rule rule_;
  Rounder<NARROW, NEAREST> round_;
  vf tensor_;
};

// Rounds a quotient and multiplies it out again.
template <typename Round>
struct Change {
  Round round;
  bool divides;

  vf operator()(vf x, const Scale& by, vu random) const {
    if (!divides) return round(x * by.inverse, random) * by.scale;
    vf quotient = x / by.scale;
    vi zero = by.scale == 0;  // such a group becomes zeros, but for NaN
    if (any(zero)) quotient = zero ? (x == x ? vf{} : x) : quotient;
    return round(quotient, random) * by.scale;
  }
};

template <typename Work>
void over(int64_t count, int64_t values_each, int threads, Work work) {
  int64_t each = std::max<int64_t>(1, CHUNK / std::max<int64_t>(1, values_each));
  int tasks = static_cast<int>((count + each - 1) / each);
  parallel(tasks, threads, [&](int task) {
    int64_t begin = task * each, end = std::min(count, begin + each);
    for (int64_t i = begin; i < end; ++i) work(i);
  });
}

// What `rows` vectors hold, `stride` floats apart, of which `count` lanes are there. The
// bits of what is not finite are above all others: looked for only where they are met.
Found look_down(const float* x, int64_t rows, int64_t stride, int64_t count) {
  auto magnitude = [&](int64_t row) {
    return bits(load_some(x + row * stride, count)) & 0x7FFFFFFF;
  };
  Found found;
  for (int64_t r = 0; r < rows; ++r) found.top = larger(found.top, magnitude(r));
  if (!any(found.top >= INFINITE)) return found;
  found.top = vi{};
  for (int64_t r = 0; r < rows; ++r) {
    vi m = magnitude(r);
    found.nan |= m > INFINITE;
    found.top = larger(found.top, m < INFINITE ? m : vi{});
  }
  return found;
}

// What n neighbours hold, in all lanes.
Found look(const float* x, int64_t n) {
  int64_t whole = n / WIDTH;
  Found found = look_down(x, whole, WIDTH, WIDTH);
  if (n > whole * WIDTH) {
    Found rest = look_down(x + whole * WIDTH, 1, 0, n - whole * WIDTH);
    found.top = larger(found.top, rest.top), found.nan |= rest.nan;
  }
  found.join();
  return found;
}

void raise(std::atomic<int32_t>& top, int32_t value) {
  int32_t seen = top.load(std::memory_order_relaxed);
  while (seen < value && !top.compare_exchange_weak(seen, value)) {
  }
}

// Calls work(row, offset, count) for pieces of rows of `inner` values, at most a chunk each.
template <typename Work>
void over_rows(int64_t rows, int64_t inner, int threads, Work work) {
  int64_t pieces = (inner + CHUNK - 1) / CHUNK;
  over(rows * pieces, std::min(inner, CHUNK), threads, [&](int64_t unit) {
    int64_t row = unit / pieces, begin = unit % pieces * CHUNK;
    work(row, row * inner + begin, std::min(CHUNK, inner - begin));
  });
}

// A random state that stands still where nothing is random.
template <typename Round, typename Work>
void along(const float* x, float* y, int64_t offset, int64_t count, uint32_t seed, Work work) {
  Random random(seed, offset);
  for (int64_t i = 0; i < count; i += WIDTH) {
    vf v = load_some(x + offset + i, count - i);
    vu bits = Round::RANDOM ? random.next() : vu{};
    store_some(y + offset + i, work(v, i, bits), count - i);
  }
}

struct Call {
  const float* x;
  float* y;
  int64_t outer, length, inner, block;
  uint32_t seed;
  int threads;
};

int32_t largest_of(const Call& c) {
  std::atomic<int32_t> top{0};
  int64_t n = c.outer * c.length * c.inner;
  over_rows(1, n, c.threads, [&](int64_t, int64_t offset, int64_t count) {
    Found found = look(c.x + offset, count);
    raise(top, found.top[0]);
  });
  return top.load();
}

// WIDTH whole blocks one after the other, of `rows` vectors each; the largest magnitude of
// each is found for all of them together. False: some value is not finite; nothing is done.
template <typename Round>
bool whole_blocks(const Call& c, int64_t offset, int64_t rows, const Scales& scales,
                  const Change<Round>& change) {
  vi top[WIDTH] = {};
  const float* x = c.x + offset;
  for (vi& block : top)
    for (int64_t r = 0; r < rows; ++r, x += WIDTH)
      block = larger(block, bits(load(x)) & 0x7FFFFFFF);
  Found found{largest_lanes(top), {}};
  if (any(found.top >= INFINITE)) return false;
  Scale all = scales.of(found);
  Random random(c.seed, offset);
  x = c.x + offset;
  float* y = c.y + offset;
  for (int b = 0; b < WIDTH; ++b) {
    Scale scale{splat(all.scale[b]), splat(all.inverse[b])};
    for (int64_t r = 0; r < rows; ++r, x += WIDTH, y += WIDTH)
      store(y, change(load(x), scale, Round::RANDOM ? random.next() : vu{}));
  }
  return true;
}

// Blocks of neighbours in memory; the scales of WIDTH blocks are computed together.
template <typename Round>
void blocks_in_line(const Call& c, const Scales& scales, const Change<Round>& change) {
  int64_t per_line = (c.length + c.block - 1) / c.block, blocks = c.outer * per_line;
  bool whole = c.block % WIDTH == 0 && c.length % c.block == 0;
  over((blocks + WIDTH - 1) / WIDTH, c.block * WIDTH, c.threads, [&](int64_t unit) {
    int64_t offset[WIDTH], count[WIDTH];
    int here = static_cast<int>(std::min<int64_t>(WIDTH, blocks - unit * WIDTH));
    if (whole && here == WIDTH &&
        whole_blocks(c, unit * WIDTH * c.block, c.block / WIDTH, scales, change))
      return;
    Found found;
    for (int b = 0; b < here; ++b) {
      int64_t index = unit * WIDTH + b, begin = index % per_line * c.block;
      offset[b] = index / per_line * c.length + begin;
      count[b] = std::min(c.block, c.length - begin);
      Found one = look(c.x + offset[b], count[b]);
      found.top[b] = one.top[0], found.nan[b] = one.nan[0];
    }
    Scale all = scales.of(found);
    for (int b = 0; b < here; ++b) {
      Scale scale{splat(all.scale[b]), splat(all.inverse[b])};
      along<Round>(c.x, c.y, offset[b], count[b], c.seed,
                   [&](vf v, int64_t, vu random) { return change(v, scale, random); });
    }
  });
}

// Blocks across rows of `inner` values: neighbours in memory belong to different ones.
template <typename Round>
void blocks_across(const Call& c, const Scales& scales, const Change<Round>& change) {
  int64_t per_line = (c.length + c.block - 1) / c.block, tiles = (c.inner + TILE - 1) / TILE;
  int64_t tile = std::min<int64_t>(TILE, c.inner);
  over(c.outer * per_line * tiles, c.block * tile, c.threads, [&](int64_t unit) {
    int64_t column = unit % tiles * TILE, width = std::min<int64_t>(TILE, c.inner - column);
    int64_t line = unit / tiles / per_line, begin = unit / tiles % per_line * c.block;
    int64_t rows = std::min(c.block, c.length - begin);
    int64_t offset = (line * c.length + begin) * c.inner + column;
    Scale scale[TILE / WIDTH];
    for (int64_t i = 0; i < width; i += WIDTH)
      scale[i / WIDTH] = scales.of(look_down(c.x + offset + i, rows, c.inner, width - i));
    for (int64_t r = 0; r < rows; ++r)
      along<Round>(c.x, c.y, offset + r * c.inner, width, c.seed, [&](vf v, int64_t i, vu random) {
        return change(v, scale[i / WIDTH], random);
      });
  });
}

// One scale for each index of the middle axis.
template <typename Round>
void channels(const Call& c, const Scales& scales, const Change<Round>& change) {
  int64_t padded = (c.length + WIDTH - 1) / WIDTH * WIDTH;
  std::vector<std::atomic<int32_t>> top(padded), nan(padded);
  auto note = [&](int64_t channel, int32_t largest, int32_t is_nan) {
    raise(top[channel], largest);
    if (is_nan) nan[channel].store(1, std::memory_order_relaxed);
  };
  if (c.inner > 1) {
    over_rows(c.outer * c.length, c.inner, c.threads,
              [&](int64_t row, int64_t offset, int64_t count) {
                Found found = look(c.x + offset, count);
                note(row % c.length, found.top[0], found.nan[0]);
              });
  } else {
    int64_t rows = std::max<int64_t>(1, CHUNK / std::max<int64_t>(1, c.length));
    over((c.outer + rows - 1) / rows, rows * c.length, c.threads, [&](int64_t unit) {
      int64_t first = unit * rows, last = std::min(c.outer, first + rows);
      for (int64_t i = 0; i < c.length; i += WIDTH) {
        Found found =
            look_down(c.x + first * c.length + i, last - first, c.length, c.length - i);
        for (int64_t l = 0; l < std::min<int64_t>(WIDTH, c.length - i); ++l)
          note(i + l, found.top[l], found.nan[l]);
      }
    });
  }
  std::vector<float> scale(padded), inverse(padded);
  for (int64_t i = 0; i < padded; i += WIDTH) {
    Found found;
    for (int l = 0; l < WIDTH; ++l)
      found.top[l] = top[i + l].load(), found.nan[l] = -nan[i + l].load();
    Scale s = scales.of(found);
    store(&scale[i], s.scale), store(&inverse[i], s.inverse);
  }
  if (c.inner > 1)
    over_rows(c.outer * c.length, c.inner, c.threads,
              [&](int64_t row, int64_t offset, int64_t count) {
                int64_t channel = row % c.length;
                Scale s{splat(scale[channel]), splat(inverse[channel])};
                along<Round>(c.x, c.y, offset, count, c.seed, [&](vf v, int64_t, vu random) {
                  return change(v, s, random);
                });
              });
  else
    over(c.outer, c.length, c.threads, [&](int64_t row) {
      along<Round>(c.x, c.y, row * c.length, c.length, c.seed,
                   [&](vf v, int64_t i, vu random) {
                     return change(v, Scale{load(&scale[i]), load(&inverse[i])}, random);
                   });
    });
}

}  // namespace

// y = scale * element in place of x. `block` values along the middle axis share a scale;
// 0: all values of one index of it do. Returns 0, or -1 if there is not memory enough.
extern "C" int elision_round_scaled(const float* x, float* y, int64_t outer, int64_t length,
                                    int64_t inner, int64_t block, const Element* element,
                                    const Rule* rule, int way, uint32_t seed, int threads) {
  if (outer * length * inner == 0) return 0;
  Call call{x, y, outer, length, inner, block, seed, threads};
  try {
    Scales scales(*rule, rule->kind == TWO_LEVEL ? largest_of(call) : 0);
    with_rounder(*element, way, [&](auto round) {
      Change<decltype(round)> change{round, scales.divides()};
      if (block == 0)
        channels(call, scales, change);
      else if (inner == 1)
        blocks_in_line(call, scales, change);
      else
        blocks_across(call, scales, change);
    });
    return 0;
  } catch (const std::bad_alloc&) {
    return -1;
  }
}
