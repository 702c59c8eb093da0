// The dense kernels over small random shapes, in memory of exactly their size, against plain
// loops. Part of native_driver.cpp.

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

using Values = std::vector<float>;

extern "C" {
int elision_direct_forward(const int64_t*, int, const float*, const float*, const float*,
                           const float*, int, float*, int);
int elision_direct_input_grad(const int64_t*, int, const float*, const float*, float*, int);
int elision_direct_weight_grad(const int64_t*, int, const float*, const float*, float*, int);
int elision_winograd_forward(const int64_t*, int, const float*, const float*, const float*,
                             const float*, int, float*, int);
int64_t elision_multiply_adds(int64_t, float, int, float*);
void elision_triad(float*, const float*, const float*, float, int64_t, int);
int64_t elision_chase(const int64_t*, int64_t);
}

static std::mt19937 engine(3);
static int failures = 0;

static int pick(int low, int high) {
  return std::uniform_int_distribution<int>(low, high)(engine);
}
static Values random_values(size_t n) {
  std::uniform_real_distribution<float> values(-1, 1);
  Values x(n);
  for (float& v : x) v = values(engine);
  return x;
}
static void compare(const char* name, const Values& found, const Values& expected) {
  for (size_t i = 0; i < found.size(); ++i)
    if (!(std::fabs(found[i] - expected[i]) <= 1e-3f)) {
      std::printf("%s: %g, not %g, at %zu\n", name, found[i], expected[i], i);
      ++failures;
      return;
    }
}

// N, C, H, W, K, R, S, strides, paddings, dilations, channels side by side (in, out).
static void convolution(const std::vector<int64_t>& v, bool winograd) {
  int64_t n = v[0], c = v[1], h = v[2], w = v[3], k = v[4], r = v[5], s = v[6];
  int64_t p = (h + 2 * v[9] - v[11] * (r - 1) - 1) / v[7] + 1;
  int64_t q = (w + 2 * v[10] - v[12] * (s - 1) - 1) / v[8] + 1;
  Values x = random_values(n * c * h * w), weight = random_values(k * c * r * s);
  Values g = random_values(n * k * p * q), shift = random_values((k + 63) / 64 * 64);
  Values y(g.size(), 0), dx(x.size(), 0), dw(weight.size(), 0);
  auto at = [](int64_t image, int64_t channel, int64_t row, int64_t column, int64_t channels,
               int64_t side, int64_t rows, int64_t columns) {
    return (((image * (channels / side) + channel / side) * rows + row) * columns + column) *
               side +
           channel % side;
  };
  for (int64_t i = 0; i < n; ++i)
    for (int64_t o = 0; o < k; ++o)
      for (int64_t a = 0; a < p; ++a)
        for (int64_t b = 0; b < q; ++b) {
          int64_t to = at(i, o, a, b, k, v[14], p, q);
          for (int64_t d = 0; d < c; ++d)
            for (int64_t e = 0; e < r; ++e)
              for (int64_t f = 0; f < s; ++f) {
                int64_t row = a * v[7] - v[9] + e * v[11];
                int64_t column = b * v[8] - v[10] + f * v[12];
                if (row < 0 || row >= h || column < 0 || column >= w) continue;
                int64_t from = at(i, d, row, column, c, v[13], h, w);
                int64_t one = ((o * c + d) * r + e) * s + f;
                y[to] += x[from] * weight[one];
                dx[from] += g[to] * weight[one];
                dw[one] += g[to] * x[from];
              }
          y[to] = std::fmax(0.0f, y[to] + shift[o]);
        }
  int threads = pick(1, 3);
  Values found(y.size(), NAN);
  if (winograd) {
    for (int m : {2, 4}) {
      elision_winograd_forward(v.data(), m, x.data(), weight.data(), nullptr, shift.data(), 1,
                               found.data(), threads);
      compare("winograd", found, y);
    }
    return;
  }
  elision_direct_forward(v.data(), 0, x.data(), weight.data(), nullptr, shift.data(), 1,
                         found.data(), threads);
  compare("forward", found, y);
  found.assign(dx.size(), NAN);
  elision_direct_input_grad(v.data(), 0, g.data(), weight.data(), found.data(), threads);
  compare("input_grad", found, dx);
  found.assign(dw.size(), NAN);
  elision_direct_weight_grad(v.data(), 0, g.data(), x.data(), found.data(), threads);
  compare("weight_grad", found, dw);
}

int direct_failures() {
  for (int i = 0; i < 40; ++i) {
    int64_t r = pick(1, 4), s = pick(1, 3), dr = pick(1, 2), ds = pick(1, 2);
    int64_t ph = pick(0, 2), pw = pick(0, 2), side = i % 2 ? 8 : 1;
    int64_t c = side * pick(1, 10), k = side * pick(1, 18);
    convolution({pick(1, 4), c, dr * (r - 1) + pick(1, 6), ds * (s - 1) + pick(1, 9), k, r, s,
                 pick(1, 3), pick(1, 3), ph, pw, dr, ds, i % 2 ? side : c, i % 2 ? side : k},
                false);
  }
  for (int i = 0; i < 10; ++i) {
    int64_t c = 16 * pick(1, 3), k = 16 * pick(1, 5);
    convolution({pick(1, 3), c, pick(3, 9), pick(3, 9), k, 3, 3, 1, 1, pick(0, 2), pick(0, 2),
                 1, 1, c, k},
                true);
  }
  Values a(100), b = random_values(100), c = random_values(100), sum(3);
  elision_triad(a.data(), b.data(), c.data(), 0.5f, 100, 3);
  for (int i = 0; i < 100; ++i) failures += std::fabs(a[i] - b[i] - 0.5f * c[i]) > 1e-6f;
  failures += elision_multiply_adds(10, 0.5f, 3, sum.data()) <= 0;
  int64_t next[] = {2, 0, 1};
  failures += elision_chase(next, 4) != 2;
  return failures;
}
