// The magnitude that a given share of a tensor exceeds, from a sample or exactly.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <new>
#include <vector>

// Of `count` values spread over x (all of them if count >= n), the k-th largest
// magnitude, lowered by one step, so that "above" keeps it and its equals. The positions
// are multiples of a prime, so that they follow no row or plane. Below 0: keep all.
// NaN if there is not memory enough.
extern "C" float elision_threshold(const float* x, int64_t n, int64_t k, int64_t count) {
  if (n == 0) return -1.0f;
  try {
    count = std::min(count, n);
    static thread_local std::vector<float> sample;
    sample.resize(count);
    if (count == n) {
      for (int64_t i = 0; i < n; ++i) sample[i] = std::fabs(x[i]);
    } else {
      for (int64_t i = 0; i < count; ++i)
        sample[i] = std::fabs(x[i * INT64_C(2147483647) % n]);
    }
    for (float& value : sample)  // NaN orders nothing; it counts as the largest
      if (std::isnan(value)) value = INFINITY;
    int64_t at = std::max<int64_t>(0, std::min(k, count) - 1);
    std::nth_element(sample.begin(), sample.begin() + at, sample.end(),
                     [](float a, float b) { return a > b; });
    return sample[at] > 0 ? std::nextafter(sample[at], 0.0f) : -1.0f;
  } catch (const std::bad_alloc&) {
    return NAN;
  }
}
