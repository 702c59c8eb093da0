// The GRU cell as in torch.nn.GRU (Cho et al., arXiv 1406.1078, the reset gate behind the
// product with the state).
//
//   h' = (1 - z)·n + z·h,  n = tanh(a + r·b),  r, z = sigmoid of their columns
//
// where a is the input's part and b the state's, each with its bias: the columns are a, r,
// z, b, so that both parts are neighbours. And back, with dh the whole gradient of h':
//
//   da = dh·(1-z)·(1-n²),  dr = da·b·r(1-r),  dz = dh·(h-n)·z(1-z),  db = da·r,
//   and z·dh goes on.
#include "gates.hpp"
#include "recurrent.hpp"

using namespace elision;

namespace {

struct Gru {
  static constexpr int GATES = 3, X_COLUMNS = 48, H_FIRST = 16, H_COLUMNS = 48;
  static constexpr int X_GATES[] = {16, 32, 0}, H_GATES[] = {16, 32, 48};

  static void forward(float* gates, const float* before, const float*, float* h, float*) {
    for (int j = 0; j < UNITS; j += WIDTH, gates += WIDTH) {
      vf r = sigmoid(load(gates + 16)), z = sigmoid(load(gates + 32));
      vf n = tanh(load(gates) + r * load(gates + 48));
      store(h + j, n + z * (load(before + j) - n));
      store(gates, n);
      store(gates + 16, r);
      store(gates + 32, z);
    }
  }

  static void backward(float* gates, const float* before, const float*, const float*,
                       const float* dy, float* dh, float*) {
    const vf one = splat(1.0f);
    for (int j = 0; j < UNITS; j += WIDTH, gates += WIDTH) {
      vf n = load(gates), r = load(gates + 16), z = load(gates + 32), b = load(gates + 48);
      vf d = load(dy + j) + load(dh + j);
      vf a = d * (one - z) * (one - n * n);
      store(gates, a);
      store(gates + 16, a * b * (r * (one - r)));
      store(gates + 32, d * (load(before + j) - n) * (z * (one - z)));
      store(gates + 48, a * r);
      store(dh + j, d * z);
    }
  }
};

}  // namespace

extern "C" int elision_gru_forward(const Layer* layer) {
  return run_recurrence<Gru>(*layer, false);
}

extern "C" int elision_gru_backward(const Layer* layer) {
  return run_recurrence<Gru>(*layer, true);
}
