// Places of the values whose magnitude exceeds a level, in one pass.

#include <cmath>
#include <cstdint>

#include "vec.hpp"

using namespace elision;

// Writes the rising places of the values with |x| > level, at most `room`, and returns how
// many such values there are. NaN exceeds every level. Sixteen places more than `room` may
// be written over.
extern "C" int64_t elision_places_above(const float* x, int64_t n, float level,
                                        int64_t* places, int64_t room) {
  int64_t count = 0, i = 0;
#if defined(ELISION_AVX512)
  const __m512 bound = _mm512_set1_ps(level);
  const __m512i lanes = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7);
  const __m512i half = _mm512_set1_epi64(8);
  for (; i + 16 <= n && count <= room; i += 16) {
    __m512 v = _mm512_abs_ps(_mm512_loadu_ps(x + i));
    __mmask16 over = _mm512_cmp_ps_mask(v, bound, _CMP_NLE_UQ);
    if (!over) continue;
    __m512i at = _mm512_add_epi64(lanes, _mm512_set1_epi64(i));
    __mmask8 low = static_cast<__mmask8>(over), high = static_cast<__mmask8>(over >> 8);
    _mm512_storeu_si512(places + count, _mm512_maskz_compress_epi64(low, at));
    count += __builtin_popcount(low);
    _mm512_storeu_si512(places + count,
                        _mm512_maskz_compress_epi64(high, _mm512_add_epi64(at, half)));
    count += __builtin_popcount(high);
  }
#endif
  for (; i < n; ++i) {
    if (std::fabs(x[i]) <= level) continue;
    if (count < room) places[count] = i;
    ++count;
  }
  return count;
}
