// The LSTM and the GRU of bfloat16, on CPUs with tiles.
#include "bf16_recurrent.hpp"
#include "flushing.hpp"

#if defined(__AMX_TILE__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

using namespace elision;

namespace {

// Linux gives a process the memory for tiles on request.
bool has_tiles() {
#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__linux__)
  constexpr long REQUEST = 0x1023, TILE_DATA = 18;  // arch/x86/include/uapi/asm/prctl.h
  static const bool granted = syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
  return granted;
#elif defined(ELISION_TILES) && !defined(__AMX_TILE__)
  return true;
#else
  return false;
#endif
}

#if defined(ELISION_TILES)
template <typename Cell>
int run(const Bf16Layer& layer, bool back) {
  Flushing small;
  try {
    Bf16Recurrence<Cell> recurrence(layer);
    back ? recurrence.backward() : recurrence.forward();
    return 0;
  } catch (const std::bad_alloc&) {
    return -1;
  }
}
#else
template <typename Cell>
int run(const Bf16Layer&, bool) {
  return -1;
}
#endif

}  // namespace

// Whether the functions below compute; the others are not to be called.
extern "C" int elision_multiplies_tiles() { return has_tiles(); }

// 0, or -1 where memory runs out.
extern "C" int elision_bf16_lstm_forward(const Bf16Layer* layer) {
  return run<Lstm>(*layer, false);
}
extern "C" int elision_bf16_lstm_backward(const Bf16Layer* layer) {
  return run<Lstm>(*layer, true);
}
extern "C" int elision_bf16_gru_forward(const Bf16Layer* layer) {
  return run<Gru>(*layer, false);
}
extern "C" int elision_bf16_gru_backward(const Bf16Layer* layer) {
  return run<Gru>(*layer, true);
}
