// The LSTM of dense weights.
#include "recurrent.hpp"

using namespace elision;

// 0, or -1 where memory runs out.
extern "C" int elision_lstm_forward(const Layer* layer) {
  return run_recurrence<Lstm>(*layer, false);
}

extern "C" int elision_lstm_backward(const Layer* layer) {
  return run_recurrence<Lstm>(*layer, true);
}
