// The LSTM cell (Hochreiter, Schmidhuber, 1997, with forget gates as in torch.nn.LSTM).
//
//   c' = f·c + i·g,  h' = o·tanh(c'),  i, f, o = sigmoid, g = tanh of their columns
//
// and back, with dh the whole gradient of h':
//
//   dc = dh·o·(1 - tanh(c')²) + dc',  gates: dc·g·i(1-i), dc·c·f(1-f), dc·i·(1-g²),
//   dh·tanh(c')·o(1-o),  and f·dc goes on.
#include "gates.hpp"
#include "recurrent.hpp"

using namespace elision;

namespace {

struct Lstm {
  static constexpr int GATES = 4, X_COLUMNS = 64, H_FIRST = 0, H_COLUMNS = 64;
  static constexpr int X_GATES[] = {0, 16, 32, 48}, H_GATES[] = {0, 16, 32, 48};

  static void forward(float* gates, const float*, const float* c, float* h, float* cell) {
    for (int j = 0; j < UNITS; j += WIDTH, gates += WIDTH) {
      vf i = sigmoid(load(gates)), f = sigmoid(load(gates + 16));
      vf g = tanh(load(gates + 32)), o = sigmoid(load(gates + 48));
      vf now = f * load(c + j) + i * g;
      store(cell + j, now);
      store(h + j, o * tanh(now));
      store(gates, i);
      store(gates + 16, f);
      store(gates + 32, g);
      store(gates + 48, o);
    }
  }

  static void backward(float* gates, const float*, const float* c, const float* cell,
                       const float* dy, float* dh, float* dc) {
    const vf one = splat(1.0f);
    for (int j = 0; j < UNITS; j += WIDTH, gates += WIDTH) {
      vf i = load(gates), f = load(gates + 16), g = load(gates + 32), o = load(gates + 48);
      vf t = tanh(load(cell + j)), d = load(dy + j) + load(dh + j);
      vf e = d * o * (one - t * t) + load(dc + j);
      store(gates, e * g * (i * (one - i)));
      store(gates + 16, e * load(c + j) * (f * (one - f)));
      store(gates + 32, e * i * (one - g * g));
      store(gates + 48, d * t * (o * (one - o)));
      store(dc + j, e * f);
      store(dh + j, vf{});
    }
  }
};

}  // namespace

extern "C" int elision_lstm_forward(const Layer* layer) {
  return run_recurrence<Lstm>(*layer, false);
}

extern "C" int elision_lstm_backward(const Layer* layer) {
  return run_recurrence<Lstm>(*layer, true);
}
