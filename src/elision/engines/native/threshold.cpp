// The magnitude that a given share of a tensor exceeds, from a sample or exactly.
//
// Exactly, without ordering the tensor: a sample says between which two magnitudes the
// wanted one lies, one pass counts what is above them and collects what is between, and
// only that is ordered. If the sample was wrong, the whole tensor is.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <new>
#include <vector>

#include "pool.hpp"
#include "vec.hpp"

using namespace elision;

namespace {

constexpr int64_t SAMPLE = 16384;
constexpr double DEVIATIONS = 5;      // of the sample's rank, on both sides
constexpr int64_t CHUNK = 64 * 1024;  // values that a task looks at

// The magnitude; NaN orders nothing and counts as the largest.
float magnitude(float value) { return std::isnan(value) ? INFINITY : std::fabs(value); }

// The `rank`-th largest, from 0; reorders the values.
float largest(std::vector<float>& values, int64_t rank) {
  auto at = values.begin() +
            std::clamp<int64_t>(rank, 0, static_cast<int64_t>(values.size()) - 1);
  std::nth_element(values.begin(), at, values.end(), std::greater<float>());
  return *at;
}

// Magnitudes of `count` values spread over x. The places are multiples of a prime, so
// that they follow no row or plane.
std::vector<float> spread(const float* x, int64_t n, int64_t count) {
  std::vector<float> sample(count);
  for (int64_t i = 0; i < count; ++i)
    sample[i] = magnitude(x[count == n ? i : i * INT64_C(2147483647) % n]);
  return sample;
}

// Count magnitudes above `high`, append those from `low` to `high`.
int64_t between(const float* x, int64_t n, float low, float high,
                std::vector<float>& found) {
  int64_t above = 0, count = 0, i = 0;
  found.resize(n + 16);
  float* out = found.data();
#if defined(ELISION_AVX512)
  __m512 top = _mm512_set1_ps(high), bottom = _mm512_set1_ps(low);
  for (; i + 16 <= n; i += 16) {
    __m512 v = _mm512_abs_ps(_mm512_loadu_ps(x + i));
    __mmask16 over = _mm512_cmp_ps_mask(v, top, _CMP_NLE_UQ);
    __mmask16 in = _mm512_cmp_ps_mask(v, bottom, _CMP_GE_OQ) & ~over;
    above += __builtin_popcount(over);
    if (in == 0) continue;
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
  found.resize(count);
  return above;
}

// The k-th largest magnitude of all of x.
float kth(const float* x, int64_t n, int64_t k, int threads) {
  if (n > 4 * SAMPLE) {
    std::vector<float> sample = spread(x, n, SAMPLE);
    double share = static_cast<double>(k) / n;
    double rank = share * SAMPLE;
    double margin = DEVIATIONS * std::sqrt(rank * (1 - share)) + 2;
    float low = largest(sample, static_cast<int64_t>(rank + margin));
    float high = largest(sample, static_cast<int64_t>(rank - margin));
    int chunks = static_cast<int>((n + CHUNK - 1) / CHUNK);
    std::vector<std::vector<float>> found(chunks);
    std::vector<int64_t> above(chunks);
    parallel(chunks, threads, [&](int task) {
      int64_t begin = task * CHUNK;
      static thread_local std::vector<float> room;
      above[task] = between(x + begin, std::min(CHUNK, n - begin), low, high, room);
      found[task].assign(room.begin(), room.end());
    });
    int64_t rest = k - 1;
    for (int64_t count : above) rest -= count;
    std::vector<float> candidates;
    for (auto& part : found)
      candidates.insert(candidates.end(), part.begin(), part.end());
    if (rest >= 0 && rest < static_cast<int64_t>(candidates.size()))
      return largest(candidates, rest);
  }
  std::vector<float> all = spread(x, n, n);
  return largest(all, k - 1);
}

}  // namespace

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
      level = largest(sample, k - 1);
    } else {
      level = kth(x, n, std::max<int64_t>(1, std::min(k, n)), threads);
    }
    return level > 0 ? std::nextafter(level, 0.0f) : -1.0f;
  } catch (const std::bad_alloc&) {
    return NAN;
  }
}
