#include "flushing.hpp"
#include "sparse_recurrent.hpp"

using namespace elision;

namespace {

template <typename Cell, int REGS>
void run(const SparseLayer& layer, bool back) {
  SparseRecurrence<Cell, REGS> recurrence(layer);
  back ? recurrence.backward() : recurrence.forward();
}

// Lanes of a block: 16, 32 or 64.
template <typename Cell>
int run(const SparseLayer& layer, bool back) {
  Flushing small;
  try {
    if (layer.lanes == 16)
      run<Cell, 16 / WIDTH>(layer, back);
    else if (layer.lanes == 32)
      run<Cell, 32 / WIDTH>(layer, back);
    else
      run<Cell, 64 / WIDTH>(layer, back);
    return 0;
  } catch (const std::bad_alloc&) {
    return -1;
  }
}

}  // namespace

// 0, or -1 where memory runs out.
extern "C" int elision_sparse_lstm_forward(const SparseLayer* layer) {
  return run<Lstm>(*layer, false);
}
extern "C" int elision_sparse_lstm_backward(const SparseLayer* layer) {
  return run<Lstm>(*layer, true);
}
extern "C" int elision_sparse_gru_forward(const SparseLayer* layer) {
  return run<Gru>(*layer, false);
}
extern "C" int elision_sparse_gru_backward(const SparseLayer* layer) {
  return run<Gru>(*layer, true);
}
