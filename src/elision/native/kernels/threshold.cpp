// The magnitude that a given share of a tensor exceeds, from a sample or exactly.
//
// Exactly, without ordering the tensor: a sample says between which two magnitudes the
// wanted one lies, one pass counts what is above them and collects what is between, and
// the wanted one is sought in that, by the same means. If the sample was wrong, or what
// is left is small, it is ordered.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <new>
#include <vector>

#include "pool.hpp"
#include "room.hpp"
#include "vec.hpp"

using namespace elision;

namespace {

constexpr int64_t MOST_SAMPLES = 16384, PER_SAMPLE = 16, FEW = 1024;
constexpr int64_t GOLDEN = 2654435769;  // fractional part of the golden ratio, * 2^32
constexpr double DEVIATIONS = 5;      // of the sample's rank, on both sides
constexpr int64_t CHUNK = 64 * 1024;  // values that a task looks at
// Between neighbouring runs of values the level moves less than this share, mostly (an own
// choice; where it moves more, a sample is taken).
constexpr float NEAR = 0.125f;

// The magnitude; NaN orders nothing and counts as the largest.
float magnitude(float value) { return std::isnan(value) ? INFINITY : std::fabs(value); }

// Magnitudes of `count` values spread over x: at the fractional parts, in fixed point, of
// multiples of the golden ratio. They lie evenly at every scale and share no rhythm with
// rows or planes.
std::vector<float> spread(const float* x, int64_t n, int64_t count) {
  std::vector<float> sample(count);
  for (int64_t i = 0; i < count; ++i) {
    int64_t turns = (i * GOLDEN & INT64_C(0xFFFFFFFF)) >> 1;
    sample[i] = magnitude(x[count == n ? i : turns * n >> 31]);
  }
  return sample;
}

// Count magnitudes above `high`, and collect those from `low` to `high`.
int64_t between(const float* x, int64_t n, float low, float high,
                std::vector<float>& found) {
  static thread_local Room<float> room;  // not cleared, which would cost as much again
  int64_t above = 0, count = 0, i = 0;
  room.reserve(n + 16);
  float* out = room.get();
#if defined(ELISION_AVX512)
  __m512 top = _mm512_set1_ps(high), bottom = _mm512_set1_ps(low);
  for (; i + 16 <= n; i += 16) {
    __m512 v = _mm512_abs_ps(_mm512_loadu_ps(x + i));
    __mmask16 over = _mm512_cmp_ps_mask(v, top, _CMP_NLE_UQ);
    __mmask16 in = _mm512_cmp_ps_mask(v, bottom, _CMP_GE_OQ) & ~over;
    above += __builtin_popcount(over);
    _mm512_storeu_ps(out + count, _mm512_maskz_compress_ps(in, v));
    count += __builtin_popcount(in);
  }
#endif
  for (; i < n; ++i) {
    float v = magnitude(x[i]);
    above += v > high;
    out[count] = v;
    count += v >= low && v <= high;
  }
  found.assign(out, out + count);
  return above;
}

// The k-th largest magnitude of x, from 1.
float kth(const float* x, int64_t n, int64_t k, int threads) {
  if (n > FEW) {
    std::vector<float> sample = spread(x, n, std::min(MOST_SAMPLES, n / PER_SAMPLE));
    int64_t count = static_cast<int64_t>(sample.size());
    double share = static_cast<double>(k) / n, rank = share * count;
    double margin = DEVIATIONS * std::sqrt(rank * (1 - share)) + 2;
    auto level = [&](double at) {
      at = std::clamp(at, 1.0, static_cast<double>(count));
      return kth(sample.data(), count, static_cast<int64_t>(at), threads);
    };
    float low = level(rank + margin), high = level(rank - margin);
    int chunks = static_cast<int>((n + CHUNK - 1) / CHUNK);
    std::vector<std::vector<float>> found(chunks);
    std::vector<int64_t> above(chunks);
    parallel(chunks, threads, [&](int task) {
      int64_t begin = task * CHUNK;
      above[task] = between(x + begin, std::min(CHUNK, n - begin), low, high, found[task]);
    });
    int64_t rest = k;
    for (int64_t number : above) rest -= number;
    std::vector<float> inside;
    for (auto& part : found) inside.insert(inside.end(), part.begin(), part.end());
    count = static_cast<int64_t>(inside.size());
    bool within = rest >= 1 && rest <= count;
    if (within && low == high) return low;
    if (within && count < n) return kth(inside.data(), count, rest, threads);
  }
  std::vector<float> all = spread(x, n, n);
  std::nth_element(all.begin(), all.begin() + (k - 1), all.end(), std::greater<float>());
  return all[k - 1];
}

// The same, sought first near a level that may be about right; below 0: none is known.
float kth_near(const float* x, int64_t n, int64_t k, float guess) {
  if (n > FEW && guess > 0 && std::isfinite(guess)) {
    static thread_local std::vector<float> inside;
    int64_t rest = k - between(x, n, guess * (1 - NEAR), guess * (1 + NEAR), inside);
    if (rest >= 1 && rest <= static_cast<int64_t>(inside.size())) {
      std::nth_element(inside.begin(), inside.begin() + (rest - 1), inside.end(),
                       std::greater<float>());
      return inside[rest - 1];
    }
  }
  return kth(x, n, k, 1);
}

// x where its magnitude is at least the level, or NaN; zero elsewhere.
void keep_from(const float* x, float* y, int64_t n, float level) {
  int64_t i = 0;
#if defined(ELISION_AVX512)
  __m512 least = _mm512_set1_ps(level);
  for (; i + 16 <= n; i += 16) {
    __m512 v = _mm512_loadu_ps(x + i);
    __mmask16 keep = _mm512_cmp_ps_mask(_mm512_abs_ps(v), least, _CMP_NLT_UQ);
    _mm512_storeu_ps(y + i, _mm512_maskz_mov_ps(keep, v));
  }
#endif
  for (; i < n; ++i) y[i] = std::fabs(x[i]) < level ? 0.0f : x[i];
}

}  // namespace

// Of each of `runs` runs of values, one behind the other and of `sizes` values, the values of
// at least the k-th largest magnitude of the run; zero elsewhere. `ranks`: k of each run, from
// 1. A run of more than `samples` values takes the k-th of so many values spread over it.
// Returns 0, or -1 if there is not memory enough.
extern "C" int elision_keep_largest(const float* x, float* y, const int64_t* sizes,
                                    const int64_t* ranks, int64_t runs, int64_t samples,
                                    int threads) {
  try {
    std::vector<int64_t> start(runs + 1, 0);
    for (int64_t r = 0; r < runs; ++r) start[r + 1] = start[r] + sizes[r];
    int tasks = static_cast<int>(std::min<int64_t>(runs, threads));
    parallel(tasks, threads, [&](int task) {
      float level = -1;
      for (int64_t r = runs * task / tasks; r < runs * (task + 1) / tasks; ++r) {
        const float* from = x + start[r];
        if (sizes[r] > samples) {
          std::vector<float> sample = spread(from, sizes[r], samples);
          level = kth_near(sample.data(), samples, ranks[r], level);
        } else {
          level = kth_near(from, sizes[r], ranks[r], level);
        }
        keep_from(from, y + start[r], sizes[r], level);
      }
    });
    return 0;
  } catch (const std::bad_alloc&) {
    return -1;
  }
}

// Of `count` values spread over x (all of them if count >= n), the k-th largest
// magnitude, lowered by one step, so that "above" keeps it and its equals. Below 0: keep
// all. NaN if there is not memory enough.
extern "C" float elision_threshold(const float* x, int64_t n, int64_t k, int64_t count,
                                   int threads) {
  if (n == 0) return -1.0f;
  try {
    float level;
    if (count < n) {
      std::vector<float> sample = spread(x, n, count);
      level = kth(sample.data(), count, std::clamp<int64_t>(k, 1, count), threads);
    } else {
      level = kth(x, n, std::clamp<int64_t>(k, 1, n), threads);
    }
    return level > 0 ? std::nextafter(level, 0.0f) : -1.0f;
  } catch (const std::bad_alloc&) {
    return NAN;
  }
}
