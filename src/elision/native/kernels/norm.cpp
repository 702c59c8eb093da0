// Batch normalisation, residual sum and ReLU in one pass over the blocked layout, and the
// pass back. Statistics count the images that exist; lanes behind them are written as 0.

#include <algorithm>
#include <cmath>

#include "flushing.hpp"
#include "pool.hpp"
#include "vec.hpp"

using namespace elision;

namespace {

constexpr int CHAIN = 64;  // pixels summed in float before the sum moves on to double
constexpr int PARTS = LANES / WIDTH;

// 1 in the lanes whose image exists, 0 behind them.
void live_lanes(int images, int block, float* mask) {
  for (int i = 0; i < LANES; ++i) mask[i] = block * LANES + i < images ? 1.0f : 0.0f;
}

// Sum over all images and pixels of a channel; term(offset, mask) is a vector of values.
template <int SUMS, typename Term>
void sum_channel(int images, int channels, int plane, int c, double* out, Term term) {
  for (int s = 0; s < SUMS; ++s) out[s] = 0;
  for (int block = 0; block * LANES < images; ++block) {
    alignas(64) float mask[LANES];
    live_lanes(images, block, mask);
    size_t base = (static_cast<size_t>(block) * channels + c) * plane * LANES;
    for (int p = 0; p < plane; p += CHAIN) {
      vf sum[SUMS][PARTS] = {};
      for (int q = p; q < std::min(plane, p + CHAIN); ++q) {
#pragma GCC unroll 4
        for (int part = 0; part < PARTS; ++part) {
          vf terms[SUMS];
          term(base + static_cast<size_t>(q) * LANES + part * WIDTH,
               load(mask + part * WIDTH), terms);
#pragma GCC unroll 2
          for (int s = 0; s < SUMS; ++s) sum[s][part] += terms[s];
        }
      }
      for (int s = 0; s < SUMS; ++s)
        for (int part = 0; part < PARTS; ++part)
          for (int i = 0; i < WIDTH; ++i) out[s] += sum[s][part][i];
    }
  }
}

template <typename Work>
void each_vector(int images, int channels, int plane, int c, Work work) {
  for (int block = 0; block * LANES < images; ++block) {
    alignas(64) float mask[LANES];
    live_lanes(images, block, mask);
    size_t base = (static_cast<size_t>(block) * channels + c) * plane * LANES;
    for (int i = 0; i < plane * LANES; i += WIDTH)
      work(base + i, load(mask + i % LANES));
  }
}

// Torch's ReLU passes the gradient of a NaN.
vf zero_unless(vf value, vf condition) { return condition <= 0 ? vf{} : value; }
vf relu_of(vf value) { return value < 0 ? vf{} : value; }  // a NaN stays

// The affine map of a channel. Forward and backward compute it by the same expression,
// so that they agree about the sign of every value.
struct Affine {
  vf slope, offset;
  Affine(const float* affine, int channels, int c)
      : slope(splat(affine[c])), offset(splat(affine[channels + c])) {}
  vf operator()(vf x) const { return x * slope + offset; }
};

}  // namespace

// The affine map that normalises every channel of x: slopes, then offsets, such that
// (x - mean) * inverse_std * scale + shift = x * slope + offset. With `train` the
// statistics are those of x and are written to mean and variance (biased), else read;
// inverse_std is always written.
extern "C" void elision_norm_statistics(const float* x, const float* scale,
                                        const float* shift, float* mean, float* variance,
                                        float* inverse_std, float* affine, int images,
                                        int channels, int plane, float eps, int train,
                                        int threads) {
  Flushing small;
  double count = static_cast<double>(images) * plane;
  parallel(channels, threads, [&](int c) {
    if (train) {
      double sum[1];
      sum_channel<1>(images, channels, plane, c, sum,
                     [&](size_t i, vf mask, vf* term) { term[0] = load(x + i) * mask; });
      mean[c] = static_cast<float>(sum[0] / count);
      vf middle = splat(mean[c]);
      sum_channel<1>(images, channels, plane, c, sum, [&](size_t i, vf mask, vf* term) {
        vf d = (load(x + i) - middle) * mask;
        term[0] = d * d;
      });
      variance[c] = static_cast<float>(sum[0] / count);
    }
    inverse_std[c] = 1.0f / std::sqrt(variance[c] + eps);
    affine[c] = inverse_std[c] * (scale ? scale[c] : 1.0f);
    affine[channels + c] = (shift ? shift[c] : 0.0f) - mean[c] * affine[c];
  });
}

// y = [ReLU](x * slope + offset [+ residual]); the same bits at every call.
extern "C" void elision_norm_apply(const float* x, const float* residual,
                                   const float* affine, float* y, int images,
                                   int channels, int plane, int relu, int threads) {
  Flushing small;
  parallel(channels, threads, [&](int c) {
    Affine normalised(affine, channels, c);
    each_vector(images, channels, plane, c, [&](size_t i, vf mask) {
      vf value = normalised(load(x + i));
      if (residual) value += load(residual + i);
      store(y + i, (relu ? relu_of(value) : value) * mask);
    });
  });
}

// From dL/dy = g [+ g_more]: dx, and where the pointers are given the gradients of residual, scale
// and shift. With `relu` a ReLU made the output, which is `y`; without y, `affine` tells
// where it was zero. With `train` the statistics depended on x.
extern "C" void elision_norm_backward(const float* g, const float* g_more,
                                      const float* x, const float* y,
                                      const float* affine, const float* mean,
                                      const float* inverse_std, float* dx,
                                      float* dresidual, float* dscale, float* dshift,
                                      int images, int channels, int plane, int relu,
                                      int train, int threads) {
  Flushing small;
  double count = static_cast<double>(images) * plane;
  auto channel = [&](int c, auto gradient, auto passed) {  // passed(i, x) <= 0: g does not
    float inverse = inverse_std[c], slope = affine[c];
    vf middle = splat(mean[c]);
    double sum[2];
    sum_channel<2>(images, channels, plane, c, sum, [&](size_t i, vf mask, vf* term) {
      vf value = load(x + i);
      term[0] = zero_unless(gradient(i) * mask, passed(i, value));
      term[1] = term[0] * (value - middle);
    });
    if (dscale) dscale[c] = static_cast<float>(sum[1] * inverse);
    if (dshift) dshift[c] = static_cast<float>(sum[0]);
    vf a = splat(slope), b{}, k{};
    if (train) {
      b = splat(static_cast<float>(sum[0] / count) * slope);
      k = splat(static_cast<float>(sum[1] / count) * inverse * inverse * slope);
    }
    each_vector(images, channels, plane, c, [&](size_t i, vf mask) {
      vf value = load(x + i);
      vf before = zero_unless(gradient(i) * mask, passed(i, value));
      if (dresidual) store(dresidual + i, before);
      store(dx + i, (before * a - b - (value - middle) * k) * mask);
    });
  };
  auto with = [&](int c, auto gradient) {
    if (!relu)
      channel(c, gradient, [](size_t, vf) { return splat(1.0f); });
    else if (y)
      channel(c, gradient, [=](size_t i, vf) { return load(y + i); });
    else
      channel(c, gradient, [normalised = Affine(affine, channels, c)](size_t, vf value) {
        return normalised(value);
      });
  };
  parallel(channels, threads, [&](int c) {
    if (g_more)
      with(c, [=](size_t i) { return load(g + i) + load(g_more + i); });
    else
      with(c, [=](size_t i) { return load(g + i); });
  });
}
