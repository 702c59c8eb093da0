// Runs every kernel over small random shapes and compares with plain loops. Built with
// AddressSanitizer and UndefinedBehaviorSanitizer by test_native_sanitizers.py, for every
// variant; all buffers have their exact size, so that one float too far is an error.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <random>
#include <tuple>
#include <vector>

#include "meeting.hpp"
#include "ordered_sum.hpp"
#include "rounding.hpp"

using elision::Conv;
using Floats = std::vector<float>;

struct Weights;
extern "C" {
int elision_to_blocked(const float*, float*, int, int64_t, int);
void elision_from_blocked(const float*, float*, int, int64_t, int);
int elision_keep_largest(const float*, float*, const int64_t*, const int64_t*, int64_t, int64_t,
                         int);
int elision_rows_weight_grad(const float*, int64_t, int64_t, const float*, int64_t, int64_t,
                             int64_t, int, float*, int);
float elision_threshold(const float*, int64_t, int64_t, int64_t, int);
int elision_multiplies_halves();
void* elision_weights_new(const int*, int);
void elision_weights_free(void*);
int64_t elision_weights_compress(void*, const float*, float, int, int, int);
int64_t elision_weights_follow(void*, const float*, int);
int elision_weights_fill(void*, const float*, int, int);
void elision_weights_release(void*);
int elision_forward(const void*, const float*, float*, int);
int elision_input_grad(const void*, const float*, float*, int);
int elision_masked_grad(const void*, const float*, const float*, float*, int);
int64_t elision_weight_grad(const int*, int, const float*, const float*, float, float*,
                            int);
int elision_sparse_input_grad(const int*, const float*, const float*, float*, int);
void elision_norm_statistics(const float*, const float*, const float*, float*, float*,
                             float*, float*, int, int, int, float, int, int);
void elision_norm_apply(const float*, const float*, const float*, float*, int, int, int,
                        int, int);
void elision_norm_backward(const float*, const float*, const float*, const float*,
                           const float*, const float*, const float*, float*, float*, float*,
                           float*, int, int, int, int, int, int);
void elision_round(const float*, float*, int64_t, const elision::Element*, int, uint32_t,
                   float, int);
int elision_round_scaled(const float*, float*, int64_t, int64_t, int64_t, int64_t,
                         const elision::Element*, const void*, int, uint32_t, int);
int elision_ternary_quantise(const float*, int8_t*, const int*, float, int, int);
int elision_ternary_forward(const int*, const int8_t*, const uint8_t*, const float*,
                            const int32_t*, const uint8_t*, const float*, float, float*, int);
int elision_ternary_planes(const float*, int16_t*, const int*, float, int, int);
int elision_ternary_sums(const int*, const int16_t*, const int16_t*, const int32_t*,
                         const float*, const int32_t*, const uint8_t*, const int32_t*,
                         const float*, float, float*, int);
int elision_integers_of(const float*, int64_t, double, int, void*);
int elision_multiplies_bytes();
int elision_integer_sums(const void*, const void*, float*, const elision::Sum*, int64_t,
                         double, int64_t, int, int);
int elision_narrow(const float*, const float*, uint16_t*, float*, int64_t, int, float, int);
void elision_widen(const uint16_t*, float*, int64_t, int, float, int);
void elision_max_pool_forward(const int*, const float*, float*, int);
void elision_max_pool_backward(const int*, const float*, const float*, float*, int);
}

static std::mt19937 engine(0);
static int pick(int low, int high) {
  return std::uniform_int_distribution<int>(low, high)(engine);
}
static Floats random_floats(size_t n, double density) {
  std::normal_distribution<float> normal;
  std::bernoulli_distribution keep(density);
  Floats values(n);
  for (float& v : values) v = keep(engine) ? normal(engine) : 0.0f;
  return values;
}
static int failures = 0;
static void compare(const char* what, const Floats& found, const Floats& expected) {
  for (size_t i = 0; i < found.size(); ++i) {
    if (!(std::fabs(found[i] - expected[i]) < 1e-3f * (1 + std::fabs(expected[i])))) {
      std::printf("%s: %g instead of %g at %zu\n", what, found[i], expected[i], i);
      ++failures;
      return;
    }
  }
}
static Floats blocked(const Floats& x, int n) {
  size_t length = x.size() / n;
  Floats y((n + 15) / 16 * 16 * length);
  elision_to_blocked(x.data(), y.data(), n, length, 2);
  return y;
}
static Floats plain(const Floats& y, int n, size_t length) {
  Floats x(n * length);
  elision_from_blocked(y.data(), x.data(), n, length, 2);
  return x;
}

static Floats random_integers(size_t n, double density) {
  Floats values = random_floats(n, density);
  for (float& v : values) v = std::round(2 * v);
  return values;
}

// Of small integers, where the kernels read halves: their sums are exact.
static void convolution(double density, bool halves) {
  auto random = halves ? random_integers : random_floats;
  Conv v{};
  v.n = pick(1, 34), v.c = pick(1, 20), v.k = pick(1, 40);
  v.r = pick(1, 4), v.s = pick(1, 4);
  v.stride_y = pick(1, 3), v.stride_x = pick(1, 2);
  v.pad_y = pick(0, 2), v.pad_x = pick(0, 2), v.dil_y = pick(1, 2), v.dil_x = pick(1, 2);
  v.h = pick(1, 9) + v.dil_y * (v.r - 1), v.w = pick(1, 9) + v.dil_x * (v.s - 1);
  int p = v.out_h(), q = v.out_w();
  Floats x = random(static_cast<size_t>(v.n) * v.c * v.h * v.w, density);
  Floats w = random(static_cast<size_t>(v.k) * v.c * v.r * v.s, density);
  Floats g = random(static_cast<size_t>(v.n) * v.k * p * q, density);
  Floats y(g.size()), dx(x.size()), dw(w.size());
  for (int n = 0; n < v.n; ++n)
    for (int k = 0; k < v.k; ++k)
      for (int c = 0; c < v.c; ++c)
        for (int oy = 0; oy < p; ++oy)
          for (int ox = 0; ox < q; ++ox)
            for (int r = 0; r < v.r; ++r)
              for (int s = 0; s < v.s; ++s) {
                int iy = oy * v.stride_y - v.pad_y + r * v.dil_y;
                int ix = ox * v.stride_x - v.pad_x + s * v.dil_x;
                if (iy < 0 || iy >= v.h || ix < 0 || ix >= v.w) continue;
                size_t o = ((static_cast<size_t>(n) * v.k + k) * p + oy) * q + ox;
                size_t i = ((static_cast<size_t>(n) * v.c + c) * v.h + iy) * v.w + ix;
                size_t t = ((static_cast<size_t>(k) * v.c + c) * v.r + r) * v.s + s;
                y[o] += x[i] * w[t], dx[i] += g[o] * w[t], dw[t] += g[o] * x[i];
              }
  const int* geometry = &v.n;
  Floats xb = blocked(x, v.n), gb = blocked(g, v.n), yb(gb.size()), dxb(xb.size());
  Floats found(w.size()), masked(w.size());
  void* weights = elision_weights_new(geometry, halves);
  auto forward = [&](const char* what) {
    elision_forward(weights, xb.data(), yb.data(), 2);
    compare(what, plain(yb, v.n, g.size() / v.n), y);
  };
  auto input_grad = [&](const char* what) {
    elision_input_grad(weights, gb.data(), dxb.data(), 2);
    compare(what, plain(dxb, v.n, x.size() / v.n), dx);
  };
  elision_weights_compress(weights, w.data(), 0.0f, 1, 1, 2);
  forward("forward"), input_grad("input_grad");
  elision_weights_release(weights);
  elision_weights_compress(weights, w.data(), 0.0f, 0, 1, 2);
  input_grad("input_grad alone");
  elision_weights_release(weights);
  elision_weights_follow(weights, w.data(), 1);
  elision_weights_fill(weights, w.data(), 1, 2);
  forward("forward of places");
  elision_weights_fill(weights, nullptr, 1, 2);
  elision_masked_grad(weights, xb.data(), gb.data(), masked.data(), 2);
  elision_weights_fill(weights, w.data(), 0, 2);
  input_grad("input_grad of places");
  elision_sparse_input_grad(geometry, gb.data(), w.data(), dxb.data(), 2);
  compare("input_grad from gradient", plain(dxb, v.n, x.size() / v.n), dx);
  elision_weight_grad(geometry, 1, xb.data(), gb.data(), 0.0f, found.data(), 2);
  compare("weight_grad from input", found, dw);
  elision_weight_grad(geometry, 0, gb.data(), xb.data(), 0.0f, found.data(), 2);
  compare("weight_grad from gradient", found, dw);
  for (size_t i = 0; i < w.size(); ++i) dw[i] = w[i] == 0 ? 0 : dw[i];
  compare("masked_grad", masked, dw);
  elision_weights_free(weights);
}

// One sparse operand and one dense, tokens in rows: the sums of their products.
static void gradient_of_rows() {
  int64_t tokens = pick(1, 300), columns = pick(1, 150), others = pick(1, 300);
  int64_t own_step = columns + pick(0, 3), step = others + pick(0, 3);
  Floats own = random_floats(tokens * own_step, 0.2), dense = random_floats(tokens * step, 1);
  Floats sums(columns * others), turned(columns * others), found(columns * others);
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t c = 0; c < columns; ++c)
      for (int64_t k = 0; k < others; ++k)
        sums[c * others + k] += own[t * own_step + c] * dense[t * step + k];
  for (int64_t c = 0; c < columns; ++c)
    for (int64_t k = 0; k < others; ++k) turned[k * columns + c] = sums[c * others + k];
  for (int turn : {0, 1}) {
    elision_rows_weight_grad(own.data(), own_step, columns, dense.data(), step, others, tokens,
                             turn, found.data(), 2);
    compare("weight_grad of rows", found, turn ? turned : sums);
  }
}

static void largest_of_runs() {
  std::vector<int64_t> sizes, ranks;
  int64_t total = 0;
  for (int run = pick(1, 9); run > 0; --run) {
    sizes.push_back(pick(1, 3000));
    ranks.push_back(pick(1, static_cast<int>(sizes.back())));
    total += sizes.back();
  }
  Floats x = random_floats(total, 0.7), y(total), expected(total);
  for (size_t run = 0, first = 0; run < sizes.size(); first += sizes[run++]) {
    Floats ordered(x.begin() + first, x.begin() + first + sizes[run]);
    for (float& v : ordered) v = std::fabs(v);
    std::sort(ordered.begin(), ordered.end(), std::greater<float>());
    for (int64_t i = 0; i < sizes[run]; ++i)
      expected[first + i] =
          std::fabs(x[first + i]) >= ordered[ranks[run] - 1] ? x[first + i] : 0;
  }
  int64_t runs = static_cast<int64_t>(sizes.size());
  elision_keep_largest(x.data(), y.data(), sizes.data(), ranks.data(), runs, total, 2);
  failures += y != expected;
  elision_keep_largest(x.data(), y.data(), sizes.data(), std::vector<int64_t>(runs, 1).data(),
                       runs, 100, 2);
}

static void normalisation() {
  int n = pick(1, 20), c = pick(1, 5), plane = pick(1, 70);
  size_t size = static_cast<size_t>(n) * c * plane;
  Floats x = blocked(random_floats(size, 1), n), r = blocked(random_floats(size, 1), n);
  Floats g = blocked(random_floats(size, 1), n), y(x.size()), dx(x.size()), dr(x.size());
  Floats scale = random_floats(c, 1), shift = random_floats(c, 1);
  Floats mean(c), variance(c), inverse(c), affine(2 * c), dscale(c), dshift(c);
  elision_norm_statistics(x.data(), scale.data(), shift.data(), mean.data(),
                          variance.data(), inverse.data(), affine.data(), n, c, plane,
                          1e-5f, 1, 2);
  elision_norm_apply(x.data(), r.data(), affine.data(), y.data(), n, c, plane, 1, 2);
  elision_norm_backward(g.data(), nullptr, x.data(), y.data(), affine.data(), mean.data(),
                        inverse.data(), dx.data(), dr.data(), dscale.data(),
                        dshift.data(), n, c, plane, 1, 1, 2);
  for (float v : y) failures += !(v >= 0);
  elision_norm_apply(x.data(), nullptr, affine.data(), y.data(), n, c, plane, 1, 2);
  Floats kept(x.size()), half(g);
  for (float& v : half) v /= 2;
  // The affine map tells the zeros of a ReLU as the output does, and a gradient may come
  // in two parts.
  const float* none = nullptr;
  for (auto [first, more, told] : {std::tuple(g.data(), none, (const float*)y.data()),
                                   std::tuple(g.data(), none, none),
                                   std::tuple(half.data(), (const float*)half.data(), none)}) {
    elision_norm_backward(first, more, x.data(), told, affine.data(), mean.data(),
                          inverse.data(), dx.data(), nullptr, dscale.data(),
                          dshift.data(), n, c, plane, 1, 1, 2);
    failures += told == nullptr && dx != kept;
    kept = dx;
  }
}

static void pooling() {
  int n = pick(1, 20), c = pick(1, 3), window[11] = {0, pick(3, 9), pick(3, 9)};
  window[0] = (n + 15) / 16 * c;
  for (int i = 5; i < 9; ++i) window[i] = pick(1, 3);
  window[9] = window[5] / 2, window[10] = window[6] / 2;
  int oh = window[3] = (window[1] + 2 * window[9] - window[5]) / window[7] + 1;
  int ow = window[4] = (window[2] + 2 * window[10] - window[6]) / window[8] + 1;
  size_t in = static_cast<size_t>(window[0]) * window[1] * window[2] * 16;
  Floats x = random_floats(in, 1), y(static_cast<size_t>(window[0]) * oh * ow * 16);
  Floats dx(in);
  elision_max_pool_forward(window, x.data(), y.data(), 2);
  elision_max_pool_backward(window, y.data(), x.data(), dx.data(), 2);
  for (size_t i = 0; i < in; ++i)  // each gradient lands on the value it came from
    failures += dx[i] != 0 && std::fabs(std::remainder(dx[i], x[i])) > 1e-3f;
}

// As in scaled_rounding.cpp and formats/native_parameters.py.
struct Rule {
  int32_t kind, lead, spreads_nan;
  float largest, whole;
  elision::Element block;
};

// Every kind of format, way of rounding and sharing of scales, on any number of values: a
// value is off by less than the step of its size, and less than that of its group.
static void rounding() {
  using elision::Element;
  const Element e4m3{elision::NARROW, 3, -6, 3, 448, 448, 448, 0, 1, 1};
  const Element bf16{elision::WIDE, 7, -126, 7, 3.3895314e38f, INFINITY, INFINITY, 0, 1, 1};
  const Element int8{elision::FIXED, 0, 0, 0, 127, 0, 0, -128, 0, 0};
  for (const Element& element : {e4m3, bf16, int8}) {
    for (int way = 0; way < 3; ++way) {
      int64_t outer = pick(1, 5), length = pick(1, 70), inner = pick(0, 2) ? pick(1, 40) : 1;
      Floats x = random_floats(outer * length * inner, 0.9), y(x.size());
      float step = way ? 1.001f : 0.5005f;
      elision_round(x.data(), y.data(), x.size(), &element, way, 3, -1, 2);
      for (size_t i = 0; i < x.size(); ++i) {
        float own = std::fmax(std::fabs(x[i]) / 8, 1 / 512.0f);
        if (element.kind == elision::FIXED) own = 1;
        failures += std::fabs(x[i] - y[i]) > step * own;
      }
      elision_round(x.data(), y.data(), x.size(), &element, way, 3, 1, 2);
      for (size_t i = 0; i < x.size(); ++i) failures += std::fabs(x[i]) <= 1 && y[i] != 0;
      int lead = element.kind == elision::FIXED ? 6 : 8;
      for (int kind = 0; kind < 3; ++kind) {
        Rule rule{kind, lead, 1, element.largest, element.largest * 448, e4m3};
        int64_t block = pick(0, 2) * pick(1, 40);
        if (element.kind == elision::WIDE) continue;
        failures += elision_round_scaled(x.data(), y.data(), outer, length, inner, block,
                                         &element, &rule, way, 3, 2);
        float top = 0;
        for (float v : x) top = std::fmax(top, std::fabs(v));
        for (size_t i = 0; i < x.size(); ++i)
          failures += !(std::fabs(x[i] - y[i]) <= 0.15f * top);
      }
    }
  }
}

// Both ternary kernels on one group of a convolution, one term in every block.
static void ternary() {
  int n = pick(1, 3), c = pick(1, 40), side = pick(1, 6), k = pick(1, 35), size = pick(1, 3);
  int stride = pick(1, 2), pad = size / 2, full = side + 2 * pad;
  if (full < size) return;
  int out = (full - size) / stride + 1, columns = size * size * c;
  int block = std::min(columns, pick(1, 64)), blocks = (columns + block - 1) / block;
  int words = (block + 15) / 16, groups = (k + 15) / 16, all = groups * blocks;
  Floats x(static_cast<size_t>(n) * c * side * side), bias = random_floats(k, 1);
  for (float& v : x) v = static_cast<float>(pick(-127, 127));
  std::vector<int> weight(static_cast<size_t>(k) * columns);  // columns (r, s, c)
  for (int& w : weight) w = pick(-1, 1);
  std::vector<uint8_t> codes(static_cast<size_t>(all) * words * 64, 0x55);  // all zero
  std::vector<int32_t> places(all), starts{0}, firsts, begins;
  std::vector<int16_t> entries;
  for (int i = 0; i < all; ++i) places[i] = i;
  for (int b = 0; b < blocks; ++b) {
    begins.push_back(b * block);
    int end = std::min(columns, (b + 1) * block);
    for (int row = 0; row < k; ++row) {
      const int* w = &weight[static_cast<size_t>(row) * columns];
      firsts.push_back(static_cast<int32_t>(firsts.size()));
      for (int j = b * block; j < end; ++j) {
        int at = j - b * block;
        size_t unit = (static_cast<size_t>(row / 16) * blocks + b) * words + at / 16;
        uint8_t& byte = codes[unit * 64 + row % 16 * 4 + at % 4];
        byte ^= (1 ^ (w[j] + 1)) << (at % 16 / 4 * 2);
        // Entries of a pair: a, -a, b, -b; sums of two are those of the Python tests.
        if (w[j]) entries.push_back(1 + at / 2 * 8 + at % 2 * 2 + (w[j] < 0));
      }
      while (entries.size() % 4) entries.push_back(0);
      starts.push_back(static_cast<int32_t>(entries.size()));
    }
  }
  begins.push_back(columns);
  Floats scales(std::max(all * 16, static_cast<int>(firsts.size())), 0.5f);
  std::vector<uint8_t> counts(std::max<size_t>(all, firsts.size()), 1);
  int image[] = {n, c, side, side, pad, pad, full, full};
  size_t values = static_cast<size_t>(n) * full * full * c;
  std::vector<int8_t> bytes(values);
  std::vector<int16_t> shorts(values);
  failures += !elision_ternary_quantise(x.data(), bytes.data(), image, 1, 0, 2);
  failures += !elision_ternary_planes(x.data(), shorts.data(), image, 1, 0, 2);
  int packed[] = {n, full, full, c, 0, c, size, size, stride, stride, 1, 1, out, out,
                  k, 0, k, blocks, block, columns};
  int summed[] = {n, full, full, 0, c, size, size, stride, stride, 1, 1, out, out,
                  k, 0, k, blocks, columns};
  Floats y(static_cast<size_t>(n) * k * out * out), z(y.size()), expected(y.size());
  elision_ternary_forward(packed, bytes.data(), codes.data(), scales.data(), places.data(),
                          counts.data(), bias.data(), 1, y.data(), 2);
  elision_ternary_sums(summed, shorts.data(), entries.data(), starts.data(), scales.data(),
                       firsts.data(), counts.data(), begins.data(), bias.data(), 1, z.data(),
                       2);
  for (size_t i = 0; i < y.size(); ++i) {
    int q = i % out, p = i / out % out, row = i / (out * out) % k, in = i / (out * out) / k;
    float sum = 0;
    for (int j = 0; j < columns; ++j) {
      int channel = j % c, u = p * stride + j / c / size - pad;
      int v = q * stride + j / c % size - pad;
      if (u < 0 || v < 0 || u >= side || v >= side) continue;
      sum += weight[static_cast<size_t>(row) * columns + j] *
             x[((static_cast<size_t>(in) * c + channel) * side + u) * side + v];
    }
    expected[i] = 0.5f * sum + bias[row];
  }
  compare("packed ternary", y, expected);
  compare("summed ternary", z, expected);
}

// a[m, t], whose terms may lie apart, times b[t, n] or b[n, t] of small integers.
template <typename T>
static void integers() {
  int64_t m = pick(1, 20), t = pick(1, 700), n = pick(1, 150), step = pick(1, 2);
  bool turned = pick(0, 1);
  Floats x = random_integers(m * t * step, 1), y = random_integers(t * n, 1);
  std::vector<T> a(x.size()), b(y.size());
  failures += !elision_integers_of(x.data(), x.size(), 1, sizeof(T) == 1, a.data());
  failures += !elision_integers_of(y.data(), y.size(), 1, sizeof(T) == 1, b.data());
  Floats out(m * n);
  elision::Sum sum{1,
                   {{1, 1, m}, {{0, 0, t * step}, {0, 0, n}}},
                   {{1, 1, t}, {{0, 0, step}, {0, 0, turned ? 1 : n}}},
                   {{1, 1, n}, {{0, 0, turned ? t : 1}, {0, 0, 1}}}};
  int64_t chunk = pick(0, 9), largest = sizeof(T) == 1 ? 0 : 100;
  failures += elision_integer_sums(a.data(), b.data(), out.data(), &sum, chunk, 1, largest,
                                   sizeof(T) == 1, pick(1, 3)) != 0;
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      double exact = 0;
      for (int64_t k = 0; k < t; ++k)
        exact += x[(i * t + k) * step] * y[turned ? j * t + k : k * n + j];
      failures += out[i * n + j] != exact;
    }
}

// What is sent and what is left add up, and a value that is not finite is found.
static void halves() {
  size_t n = pick(1, 200);
  Floats x = random_floats(n, 1), memory = random_floats(n, 0.5), left(n), mean(n);
  int half = pick(0, 1), ranks = pick(1, 5);
  bool some = pick(0, 1);
  std::vector<uint16_t> sent(n);
  const float* kept = some ? memory.data() : nullptr;
  failures += !elision_narrow(x.data(), kept, sent.data(), left.data(), n, half, 100, 2);
  elision_widen(sent.data(), mean.data(), n, half, ranks, 2);
  Floats both(n), expected(n);
  for (size_t i = 0; i < n; ++i) {
    both[i] = ranks * mean[i] + left[i];
    expected[i] = x[i] + (some ? memory[i] : 0);
    failures += std::fabs(left[i]) > std::fabs(expected[i]) / (half ? 2048 : 256) + 1e-7f;
  }
  compare("halves", both, expected);
  x[pick(0, n - 1)] = pick(0, 1) ? INFINITY : NAN;
  failures += elision_narrow(x.data(), kept, sent.data(), nullptr, n, half, 100, 2);
}

int recurrent_failures();  // recurrent_driver.cpp
int direct_failures();     // direct_driver.cpp

int main() {
  for (int halves = 0; halves <= elision_multiplies_halves(); ++halves)
    for (int i = 0; i < 24; ++i)
      convolution(i % 4 == 0 ? 1.0 : i % 4 == 1 ? 0.0 : 0.2, halves);
  for (int i = 0; i < 10; ++i) gradient_of_rows(), largest_of_runs(), halves();
  for (int i = 0; i < 10; ++i) normalisation(), pooling(), rounding(), ternary();
  for (int i = 0; i < 20; ++i) integers<int16_t>();
  for (int i = 0; i < 20 && elision_multiplies_bytes(); ++i) integers<int8_t>();
  Floats many = random_floats(70000, 0.5);
  float level = elision_threshold(many.data(), 70000, 7000, 70000, 2);
  int above = 0;
  for (float v : many) above += std::fabs(v) > level;
  failures += above != 7000;
  Floats values = random_floats(1000, 1);
  failures += elision_threshold(values.data(), 1000, 10, 100, 2) <= 0;
  failures += recurrent_failures() + direct_failures();
  std::printf("%d failures\n", failures);
  return failures != 0;
}
