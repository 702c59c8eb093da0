// The equations of an LSTM's and a GRU's cell, forward and back, on values side by side.
//
// `gates` are four rows of `count` values, a multiple of 16, in torch's order; both passes
// overwrite them: their pre-activations by their values, those by their gradients. A GRU's
// fourth row is the state's part of the third gate.
//
// dh and dc come as what later steps want of the state and leave as what the state before
// it owes directly; what it owes through the gates is a product.
#pragma once

#include "gates.hpp"

namespace elision {

// c' = f·c + i·g,  h' = o·tanh(c'); i, f, o sigmoids, g a tanh.
//
// Back, with d the whole gradient of h' and e of c': e = d·o·(1 - tanh(c')²) + dc, the gates'
// e·g·i(1-i), e·c·f(1-f), e·i·(1-g²), d·tanh(c')·o(1-o), and dc = e·f.
struct Lstm {
  static constexpr int GATES = 4;
  static constexpr bool HAS_CELLS = true;
  // In the dense kernel's block of 64 columns; see recurrent.hpp.
  static constexpr int X_COLUMNS = 64, H_FIRST = 0, H_COLUMNS = 64;
  static constexpr int X_GATES[] = {0, 16, 32, 48}, H_GATES[] = {0, 16, 32, 48};
  static constexpr int ROWS[] = {0, 16, 32, 48};

  static void forward(float* const* gates, int count, const float*, const float* c, float* h,
                      float* cell) {
    float *pi = gates[0], *pf = gates[1], *pg = gates[2], *po = gates[3];
    for (int j = 0; j < count; j += WIDTH) {
      vf i = sigmoid(load(pi + j)), f = sigmoid(load(pf + j));
      vf g = tanh(load(pg + j)), o = sigmoid(load(po + j));
      vf now = f * load(c + j) + i * g;
      store(cell + j, now);
      store(h + j, o * tanh(now));
      store(pi + j, i);
      store(pf + j, f);
      store(pg + j, g);
      store(po + j, o);
    }
  }

  static void backward(float* const* gates, int count, const float*, const float* c,
                       const float* cell, const float* dy, float* dh, float* dc) {
    float *pi = gates[0], *pf = gates[1], *pg = gates[2], *po = gates[3];
    const vf one = splat(1.0f);
    for (int j = 0; j < count; j += WIDTH) {
      vf i = load(pi + j), f = load(pf + j), g = load(pg + j), o = load(po + j);
      vf t = tanh(load(cell + j)), d = load(dy + j) + load(dh + j);
      vf e = d * o * (one - t * t) + load(dc + j);
      store(pi + j, e * g * (i * (one - i)));
      store(pf + j, e * load(c + j) * (f * (one - f)));
      store(pg + j, e * i * (one - g * g));
      store(po + j, d * t * (o * (one - o)));
      store(dc + j, e * f);
      store(dh + j, vf{});
    }
  }
};

// h' = (1 - z)·n + z·h,  n = tanh(a + r·b); r, z sigmoids, a the input's part, b the state's,
// each with its bias (the reset gate stands behind the product, as in torch.nn.GRU).
//
// Back, with d the whole gradient of h': da = d·(1-z)·(1-n²), dr = da·b·r(1-r),
// dz = d·(h-n)·z(1-z), db = da·r, and dh = d·z.
struct Gru {
  static constexpr int GATES = 3;
  static constexpr bool HAS_CELLS = false;
  // The columns are a, r, z, b: the input's and the state's parts are neighbours.
  static constexpr int X_COLUMNS = 48, H_FIRST = 16, H_COLUMNS = 48;
  static constexpr int X_GATES[] = {16, 32, 0}, H_GATES[] = {16, 32, 48};
  static constexpr int ROWS[] = {16, 32, 0, 48};

  static void forward(float* const* gates, int count, const float* before, const float*,
                      float* h, float*) {
    float *pr = gates[0], *pz = gates[1], *pn = gates[2], *pb = gates[3];
    for (int j = 0; j < count; j += WIDTH) {
      vf r = sigmoid(load(pr + j)), z = sigmoid(load(pz + j));
      vf n = tanh(load(pn + j) + r * load(pb + j));
      store(h + j, n + z * (load(before + j) - n));
      store(pr + j, r);
      store(pz + j, z);
      store(pn + j, n);
    }
  }

  static void backward(float* const* gates, int count, const float* before, const float*,
                       const float*, const float* dy, float* dh, float*) {
    float *pr = gates[0], *pz = gates[1], *pn = gates[2], *pb = gates[3];
    const vf one = splat(1.0f);
    for (int j = 0; j < count; j += WIDTH) {
      vf r = load(pr + j), z = load(pz + j), n = load(pn + j), b = load(pb + j);
      vf d = load(dy + j) + load(dh + j);
      vf a = d * (one - z) * (one - n * n);
      store(pn + j, a);
      store(pr + j, a * b * (r * (one - r)));
      store(pz + j, d * (load(before + j) - n) * (z * (one - z)));
      store(pb + j, a * r);
      store(dh + j, d * z);
    }
  }
};

}  // namespace elision
