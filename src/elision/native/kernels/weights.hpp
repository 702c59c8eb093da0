// A weight [K][C][R][S] as lists of its non-zeros, in the order the kernels read them.
#pragma once

#include <vector>

#include "room.hpp"
#include "tile.hpp"

namespace elision {

// What the kernels read of a list: entry n says "add value[n] times the window at
// offset[n]"; place[n] is its index in the weight. These are needed for one product at a
// time, so one room for them goes from weight to weight (see borrow and give_back).
struct Entries {
  Room<float> value;
  Room<int32_t> offset, place;
};

// One list for every phase, block of partner channels and own channel.
struct Lists : Entries {
  Meeting meeting;
  Tile tile;
  int blocks;  // of tile.channels partner channels each
  std::vector<int64_t> begin;
  std::vector<int32_t> length;
  // What stays while the places do: for each entry the partner channel, within its block,
  // times the taps of the phase, plus which of them. Empty otherwise.
  std::vector<uint16_t> pattern;

  size_t list(int phase, int block, int own) const {
    return (static_cast<size_t>(phase) * blocks + block) * meeting.own_c + own;
  }
  int64_t end(size_t list) const { return begin[list] + length[list]; }
};

struct Weights {
  Conv conv;
  Lists forward;     // own = output, partner = input
  Lists input_grad;  // own = input, partner = output
};

}  // namespace elision
