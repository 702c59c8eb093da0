// Which pixels meet: the index arithmetic of a convolution, told from one side.
//
// Input row y, tap r and output row o meet iff y = o * stride - padding + r * dilation.
// A kernel walks over the pixels of one plane ("own") and reads, per tap, the pixel of
// the other plane ("partner") that it meets. Told from the output there is one phase:
// partner = own * stride + (r * dilation - padding). Told from the input, own rows with
// the same remainder modulo the stride share their taps, so there are stride x stride
// phases, each a plain convolution of stride 1 with some of the taps.
#pragma once

#include <algorithm>
#include <vector>

namespace elision {

// As passed from Python: 13 integers in this order.
struct Conv {
  int n, c, h, w, k, r, s, stride_y, stride_x, pad_y, pad_x, dil_y, dil_x;
  int out_h() const { return (h + 2 * pad_y - dil_y * (r - 1) - 1) / stride_y + 1; }
  int out_w() const { return (w + 2 * pad_x - dil_x * (s - 1) - 1) / stride_x + 1; }
  int taps() const { return r * s; }
};

struct Tap {
  int index;   // r * S + s
  int dy, dx;  // partner = own index in the phase * step + (dy, dx)
};

struct Phase {
  int first_y, first_x;  // own pixel of index (0, 0)
  int rows, cols;        // own pixels of this phase
  std::vector<Tap> taps;
  int min_dy = 0, max_dy = 0, min_dx = 0, max_dx = 0;

  void measure() {
    if (taps.empty()) return;
    min_dy = max_dy = taps[0].dy;
    min_dx = max_dx = taps[0].dx;
    for (const Tap& t : taps) {
      min_dy = std::min(min_dy, t.dy);
      max_dy = std::max(max_dy, t.dy);
      min_dx = std::min(min_dx, t.dx);
      max_dx = std::max(max_dx, t.dx);
    }
  }
};

struct Meeting {
  int own_c, own_h, own_w, own_step_y, own_step_x;
  int partner_c, partner_h, partner_w, step_y, step_x;
  std::vector<Phase> phases;
};

inline Meeting from_output(const Conv& v) {
  Meeting m{v.k, v.out_h(), v.out_w(), 1, 1, v.c, v.h, v.w, v.stride_y, v.stride_x, {}};
  Phase phase{0, 0, v.out_h(), v.out_w(), {}};
  for (int r = 0; r < v.r; ++r)
    for (int s = 0; s < v.s; ++s)
      phase.taps.push_back(
          {r * v.s + s, r * v.dil_y - v.pad_y, s * v.dil_x - v.pad_x});
  phase.measure();
  m.phases.push_back(phase);
  return m;
}

inline Meeting from_input(const Conv& v) {
  Meeting m{v.c, v.h, v.w, v.stride_y, v.stride_x, v.k, v.out_h(), v.out_w(), 1, 1, {}};
  for (int y = 0; y < std::min(v.stride_y, v.h); ++y) {
    for (int x = 0; x < std::min(v.stride_x, v.w); ++x) {
      Phase phase{y, x, (v.h - y - 1) / v.stride_y + 1, (v.w - x - 1) / v.stride_x + 1,
                  {}};
      for (int r = 0; r < v.r; ++r) {
        int dy = y + v.pad_y - r * v.dil_y;
        if (dy % v.stride_y != 0) continue;
        for (int s = 0; s < v.s; ++s) {
          int dx = x + v.pad_x - s * v.dil_x;
          if (dx % v.stride_x == 0)
            phase.taps.push_back({r * v.s + s, dy / v.stride_y, dx / v.stride_x});
        }
      }
      phase.measure();
      m.phases.push_back(phase);
    }
  }
  return m;
}

}  // namespace elision
