// K-TanH: tanh on the bit pattern of a bfloat16 by a table of 32 pieces, and its gradient.
//
// Between the thresholds a piece, named by two bits of the exponent and three of the
// fraction M, gives base + (M >> shift). A table of 32 halves of a word is one register of
// AVX-512. AVX2 has tables of 16 bytes and no shift by lane: it takes three tables of 32
// bytes, two shuffles each, and shifts by a product whose upper half is kept.
//
// Floats are rounded to bfloat16 on the way in, to the nearest, ties to even.

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "pool.hpp"
#include "vec.hpp"

#if defined(__AVX512BW__) && defined(ELISION_AVX512)
#define ELISION_WORDS512 1
#elif defined(__AVX2__)
#include <immintrin.h>
#define ELISION_BYTES256 1
#endif

using namespace elision;

namespace {

constexpr int BLOCK = 32;                // values at a time
constexpr int64_t CHUNK = 32 * 1024;     // values of a task
constexpr uint16_t LINEAR_BELOW = 0x3E80, ONE_ABOVE = 0x4070;  // 0.25 and 3.75
constexpr uint16_t ONE = 0x3F80, INFINITE = 0x7F80, MAGNITUDE = 0x7FFF;

struct Table {
  uint16_t base[32];
  uint16_t shift[32];
};

uint16_t rounded(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if ((bits & 0x7FFFFFFF) > 0x7F800000) return 0x7FC0;
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

float widened(uint16_t half) {
  uint32_t bits = static_cast<uint32_t>(half) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

uint16_t one_value(const Table& table, uint16_t x) {
  uint16_t magnitude = x & MAGNITUDE;
  int piece = x >> 4 & 31;
  uint16_t y = table.base[piece] + ((x & 0x7F) >> table.shift[piece]);
  if (magnitude > ONE_ABOVE) y = ONE;
  if (magnitude < LINEAR_BELOW || magnitude > INFINITE) y = magnitude;
  return y | (x & 0x8000);
}

#if defined(ELISION_WORDS512)

struct Pieces {
  __m512i base, shift;
  explicit Pieces(const Table& table)
      : base(_mm512_loadu_si512(table.base)), shift(_mm512_loadu_si512(table.shift)) {}
};

__m512i word(uint16_t value) { return _mm512_set1_epi16(static_cast<int16_t>(value)); }

__m512i block(const Pieces& pieces, __m512i x) {
  __m512i magnitude = _mm512_and_si512(x, word(MAGNITUDE));
  __m512i piece = _mm512_srli_epi16(x, 4);  // a permutation reads the lowest five bits
  __m512i base = _mm512_permutexvar_epi16(piece, pieces.base);
  __m512i shift = _mm512_permutexvar_epi16(piece, pieces.shift);
  __m512i fraction = _mm512_and_si512(x, word(0x7F));
  __m512i y = _mm512_add_epi16(base, _mm512_srlv_epi16(fraction, shift));
  __mmask32 one = _mm512_cmpgt_epu16_mask(magnitude, word(ONE_ABOVE));
  __mmask32 same = _mm512_cmplt_epu16_mask(magnitude, word(LINEAR_BELOW)) |
                   _mm512_cmpgt_epu16_mask(magnitude, word(INFINITE));
  y = _mm512_mask_mov_epi16(y, one, word(ONE));
  y = _mm512_mask_mov_epi16(y, same, magnitude);
  return _mm512_or_si512(y, _mm512_andnot_si512(word(MAGNITUDE), x));
}

void block(const Pieces& pieces, const uint16_t* x, uint16_t* y) {
  _mm512_storeu_si512(y, block(pieces, _mm512_loadu_si512(x)));
}

__m256i rounded16(const float* x) {
  __m512 value = _mm512_loadu_ps(x);
  __m512i bits = _mm512_castps_si512(value);
  __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  bits = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7FFF)), odd);
  __mmask16 nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
  bits = _mm512_mask_mov_epi32(bits, nan, _mm512_set1_epi32(0x7FC00000));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16));
}

void widen16(__m256i half, float* y) {
  __m512i bits = _mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16);
  _mm512_storeu_si512(y, bits);
}

void block(const Pieces& pieces, const float* x, float* y) {
  __m512i halves = _mm512_castsi256_si512(rounded16(x));
  __m512i z = block(pieces, _mm512_inserti64x4(halves, rounded16(x + 16), 1));
  widen16(_mm512_castsi512_si256(z), y);
  widen16(_mm512_extracti64x4_epi64(z, 1), y + 16);
}

#elif defined(ELISION_BYTES256)

struct Pieces {
  __m256i high[2], low[2], times[2];  // of both halves of the table, in both lanes
  explicit Pieces(const Table& table) {
    for (int half = 0; half < 2; ++half) {
      uint8_t bytes[3][16];
      for (int i = 0; i < 16; ++i) {
        uint16_t base = table.base[16 * half + i];
        bytes[0][i] = static_cast<uint8_t>(base >> 8);
        bytes[1][i] = static_cast<uint8_t>(base);
        // 2M · 2^(15 - shift), of which the upper 16 bits are M >> shift: the factor's
        // lower byte is zero.
        bytes[2][i] = static_cast<uint8_t>(1 << (7 - table.shift[16 * half + i]));
      }
      __m256i* into[3] = {&high[half], &low[half], &times[half]};
      for (int i = 0; i < 3; ++i)
        *into[i] = _mm256_broadcastsi128_si256(
            _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes[i])));
    }
  }
};

__m256i word(uint16_t value) { return _mm256_set1_epi16(static_cast<int16_t>(value)); }

__m256i look_up(const __m256i table[2], __m256i piece, __m256i is_upper) {
  return _mm256_blendv_epi8(_mm256_shuffle_epi8(table[0], piece),
                            _mm256_shuffle_epi8(table[1], piece), is_upper);
}

__m256i finished(__m256i x, __m256i base, __m256i times) {
  __m256i magnitude = _mm256_and_si256(x, word(MAGNITUDE));
  __m256i twice = _mm256_and_si256(_mm256_add_epi16(x, x), word(0xFE));
  __m256i y = _mm256_add_epi16(base, _mm256_mulhi_epu16(twice, times));
  __m256i one = _mm256_cmpgt_epi16(magnitude, word(ONE_ABOVE));
  __m256i same = _mm256_or_si256(_mm256_cmpgt_epi16(word(LINEAR_BELOW), magnitude),
                                 _mm256_cmpgt_epi16(magnitude, word(INFINITE)));
  y = _mm256_blendv_epi8(y, word(ONE), one);
  y = _mm256_blendv_epi8(y, magnitude, same);
  return _mm256_or_si256(y, _mm256_andnot_si256(word(MAGNITUDE), x));
}

// Two registers of words. Packing puts their lanes in turns, unpacking undoes it.
void block(const Pieces& pieces, __m256i& a, __m256i& b) {
  __m256i five = word(31), zero = _mm256_setzero_si256();
  __m256i piece = _mm256_packus_epi16(_mm256_and_si256(_mm256_srli_epi16(a, 4), five),
                                      _mm256_and_si256(_mm256_srli_epi16(b, 4), five));
  __m256i is_upper = _mm256_slli_epi16(piece, 3);  // bit 4 of every byte to its sign
  __m256i high = look_up(pieces.high, piece, is_upper);
  __m256i low = look_up(pieces.low, piece, is_upper);
  __m256i times = look_up(pieces.times, piece, is_upper);
  a = finished(a, _mm256_unpacklo_epi8(low, high), _mm256_unpacklo_epi8(zero, times));
  b = finished(b, _mm256_unpackhi_epi8(low, high), _mm256_unpackhi_epi8(zero, times));
}

void block(const Pieces& pieces, const uint16_t* x, uint16_t* y) {
  const __m256i* from = reinterpret_cast<const __m256i*>(x);
  __m256i* to = reinterpret_cast<__m256i*>(y);
  __m256i a = _mm256_loadu_si256(from), b = _mm256_loadu_si256(from + 1);
  block(pieces, a, b);
  _mm256_storeu_si256(to, a);
  _mm256_storeu_si256(to + 1, b);
}

__m256i rounded8(const float* x) {
  __m256 value = _mm256_loadu_ps(x);
  __m256i bits = _mm256_castps_si256(value);
  __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  bits = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7FFF)), odd);
  __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
  bits = _mm256_blendv_epi8(bits, _mm256_set1_epi32(0x7FC00000), nan);
  return _mm256_srli_epi32(bits, 16);
}

void block(const Pieces& pieces, const float* x, float* y) {
  __m256i zero = _mm256_setzero_si256();
  __m256i a = _mm256_packus_epi32(rounded8(x), rounded8(x + 8));
  __m256i b = _mm256_packus_epi32(rounded8(x + 16), rounded8(x + 24));
  block(pieces, a, b);
  __m256i* to = reinterpret_cast<__m256i*>(y);
  _mm256_storeu_si256(to, _mm256_unpacklo_epi16(zero, a));
  _mm256_storeu_si256(to + 1, _mm256_unpackhi_epi16(zero, a));
  _mm256_storeu_si256(to + 2, _mm256_unpacklo_epi16(zero, b));
  _mm256_storeu_si256(to + 3, _mm256_unpackhi_epi16(zero, b));
}

#else

using Pieces = Table;

void block(const Table& table, const uint16_t* x, uint16_t* y) {
  for (int i = 0; i < BLOCK; ++i) y[i] = one_value(table, x[i]);
}

void block(const Table& table, const float* x, float* y) {
  for (int i = 0; i < BLOCK; ++i) y[i] = widened(one_value(table, rounded(x[i])));
}

#endif

float as_float(float value) { return value; }
float as_float(uint16_t value) { return widened(value); }
void put(float& to, float value) { to = value; }
void put(uint16_t& to, float value) { to = rounded(value); }

template <typename Work>
void in_chunks(int64_t n, int threads, const Work& work) {
  int chunks = static_cast<int>((n + CHUNK - 1) / CHUNK);
  parallel(chunks, threads, [&](int task) {
    int64_t begin = task * CHUNK;
    work(begin, std::min(begin + CHUNK, n));
  });
}

template <typename T>
void forward(const Table& table, const T* x, T* y, int64_t n, int threads) {
  Pieces pieces(table);
  in_chunks(n, threads, [&](int64_t begin, int64_t end) {
    int64_t i = begin;
    for (; i + BLOCK <= end; i += BLOCK) block(pieces, x + i, y + i);
    if (i == end) return;
    T rest[BLOCK] = {}, done[BLOCK];
    std::copy(x + i, x + end, rest);
    block(pieces, rest, done);
    std::copy(done, done + (end - i), y + i);
  });
}

// g · (1 - y²). As y is a bfloat16, y² is exact, fused with the difference or not.
template <typename T>
void backward(const T* y, const T* grad, T* out, int64_t n, int threads) {
  in_chunks(n, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float value = as_float(y[i]);
      put(out[i], as_float(grad[i]) * (1.0f - value * value));
    }
  });
}

}  // namespace

// y = K-TanH(x) of n values: floats, or (halves) bfloat16. base and shift: 32 integers.
extern "C" void elision_k_tanh(const int32_t* base, const int32_t* shift, const void* x,
                               void* y, int64_t n, int halves, int threads) {
  Table table;
  for (int i = 0; i < 32; ++i) {
    table.base[i] = static_cast<uint16_t>(base[i]);
    table.shift[i] = static_cast<uint16_t>(shift[i]);
  }
  if (halves)
    forward(table, static_cast<const uint16_t*>(x), static_cast<uint16_t*>(y), n, threads);
  else
    forward(table, static_cast<const float*>(x), static_cast<float*>(y), n, threads);
}

// out = grad · (1 - y²), of the same types.
extern "C" void elision_k_tanh_backward(const void* y, const void* grad, void* out,
                                        int64_t n, int halves, int threads) {
  if (halves)
    backward(static_cast<const uint16_t*>(y), static_cast<const uint16_t*>(grad),
             static_cast<uint16_t*>(out), n, threads);
  else
    backward(static_cast<const float*>(y), static_cast<const float*>(grad),
             static_cast<float*>(out), n, threads);
}
