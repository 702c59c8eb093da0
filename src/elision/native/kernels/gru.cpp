// The GRU of dense weights.
#include "recurrent.hpp"

using namespace elision;

// 0, or -1 where memory runs out.
extern "C" int elision_gru_forward(const Layer* layer) {
  return run_recurrence<Gru>(*layer, false);
}

extern "C" int elision_gru_backward(const Layer* layer) {
  return run_recurrence<Gru>(*layer, true);
}
