// The magnitude that a given share of a tensor exceeds, from a sample or exactly.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <new>
#include <vector>

// Of `count` values spread over x (all of them if count >= n), the k-th largest
// magnitude, k = density * count: about `density` of x is above it. Positions follow the
// golden ratio, so that no stride divides a row or a plane. Returns -1 (keep all) for a
// density of 1, and NaN if there is not memory enough.
extern "C" float elision_threshold(const float* x, int64_t n, double density,
                                   int64_t count) {
  if (density >= 1 || n == 0) return -1.0f;
  try {
    count = std::min(count, n);
    static thread_local std::vector<float> sample;
    sample.resize(count);
    if (count == n) {
      for (int64_t i = 0; i < n; ++i) sample[i] = std::fabs(x[i]);
    } else {
      double golden = 0.6180339887498949, at = 0.5;
      for (int64_t i = 0; i < count; ++i) {
        sample[i] = std::fabs(x[static_cast<int64_t>(at * n)]);
        at += golden;
        at -= at >= 1;
      }
    }
    for (float& value : sample)  // NaN orders nothing; it counts as the largest
      if (std::isnan(value)) value = INFINITY;
    // Above the threshold are those before it in descending order.
    int64_t keep = std::min(count - 1, static_cast<int64_t>(std::llround(density * count)));
    std::nth_element(sample.begin(), sample.begin() + keep, sample.end(),
                     [](float a, float b) { return a > b; });
    return sample[keep];
  } catch (const std::bad_alloc&) {
    return NAN;
  }
}
