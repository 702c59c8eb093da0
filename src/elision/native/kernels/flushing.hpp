// Numbers below the smallest normal one, 1.2e-38, as zero: for the time of a kernel only.
//
// x86 takes a detour of some hundred cycles for each operation that reads or makes such a
// number; it made products tens of times slower (benchmarks/denormals.py). The program's
// own setting is back when the kernel returns. Other CPUs keep theirs.
#pragma once

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace elision {

// The calling thread computes in a mode while this lives, and in its own after that.
class FloatMode {
 public:
#if defined(__SSE2__)
  explicit FloatMode(unsigned mode) : before_(here()) { _mm_setcsr(mode); }
  ~FloatMode() { _mm_setcsr(before_); }
  static unsigned here() { return _mm_getcsr(); }
#else
  explicit FloatMode(unsigned) {}
  static unsigned here() { return 0; }
#endif
  FloatMode(const FloatMode&) = delete;
  FloatMode& operator=(const FloatMode&) = delete;

 private:
#if defined(__SSE2__)
  unsigned before_;
#endif
};

// Operands (bit 6 of the control word) and results (bit 15) below 1.2e-38 are zero.
class Flushing : FloatMode {
 public:
  Flushing() : FloatMode(here() | 0x8040u) {}
};

}  // namespace elision
