// NCHW <-> the blocked layout [N / 16][C][H][W][16]: images in vector lanes.
//
// With L = C * H * W this is a transpose of [16][L] squares. Lanes behind the last image
// are zero. A Linear layer is the case H = W = 1 with tokens for images.

#include <algorithm>
#include <atomic>

#include "pool.hpp"
#include "vec.hpp"

using namespace elision;

namespace {

constexpr int CHUNK = 4096;  // positions a task turns: 256 KiB, a part of one L2

// Zero unless a value is infinite or NaN; vectors, as a float sum may not be reordered.
bool finite(const float* values, int count) {
  vf zero{};
  for (int i = 0; i < count; i += WIDTH) zero += load(values + i) * 0.0f;
  bool good = true;
  for (int i = 0; i < WIDTH; ++i) good &= zero[i] == 0;
  return good;
}

template <typename Work>
void over_chunks(int n, int64_t length, int threads, Work work) {
  int blocks = (n + LANES - 1) / LANES;
  int chunks = static_cast<int>((length + CHUNK - 1) / CHUNK);
  parallel(blocks * chunks, threads, [&](int task) {
    int64_t begin = static_cast<int64_t>(task % chunks) * CHUNK;
    work(task / chunks, begin, std::min(begin + CHUNK, length));
  });
}

}  // namespace

// Returns 1 if every value is finite, else 0 (the copy is made either way).
extern "C" int elision_to_blocked(const float* x, float* y, int n, int64_t length,
                                  int threads) {
  std::atomic<int> all_finite{1};
  over_chunks(n, length, threads, [&](int block, int64_t begin, int64_t end) {
    const float* from = x + static_cast<int64_t>(block) * LANES * length;
    float* to = y + static_cast<int64_t>(block) * LANES * length;
    int images = std::min(LANES, n - block * LANES);
    bool good = true;
    int64_t p = begin;
    for (; images == LANES && p + 16 <= end; p += 16) {
      transpose16(from + p, length, to + p * LANES, LANES);
      good &= finite(to + p * LANES, 16 * LANES);
    }
    for (; p < end; ++p) {
      float* lane = to + p * LANES;
      for (int i = 0; i < LANES; ++i) lane[i] = i < images ? from[i * length + p] : 0;
      good &= finite(lane, LANES);
    }
    if (!good) all_finite.store(0);
  });
  return all_finite.load();
}

extern "C" void elision_from_blocked(const float* x, float* y, int n, int64_t length,
                                     int threads) {
  over_chunks(n, length, threads, [&](int block, int64_t begin, int64_t end) {
    const float* from = x + static_cast<int64_t>(block) * LANES * length;
    float* to = y + static_cast<int64_t>(block) * LANES * length;
    int images = std::min(LANES, n - block * LANES);
    int64_t p = begin;
    for (; images == LANES && p + 16 <= end; p += 16)
      transpose16(from + p * LANES, LANES, to + p, length);
    for (; p < end; ++p)
      for (int i = 0; i < images; ++i) to[i * length + p] = from[p * LANES + i];
  });
}
