// A weight [K][C][R][S] as lists of its non-zeros, in the order the kernels read them.
#pragma once

#include <vector>

#include "room.hpp"
#include "tile.hpp"

namespace elision {

// For every phase, block of partner channels and own channel, one list: entry n says
// "add value[n] times the window at offset[n]"; place[n] is its index in the weight.
struct Lists {
  Meeting meeting;
  Tile tile;
  int blocks;  // of tile.channels partner channels each
  std::vector<int64_t> begin;
  std::vector<int32_t> length;
  Room<float> value;
  Room<int32_t> offset, place;

  size_t list(int phase, int block, int own) const {
    return (static_cast<size_t>(phase) * blocks + block) * meeting.own_c + own;
  }
};

struct Weights {
  Conv conv;
  Lists forward;     // own = output, partner = input
  Lists input_grad;  // own = input, partner = output
  bool has_input_grad = false;
};

}  // namespace elision
