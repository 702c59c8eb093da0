// Building the lists of a sparse weight: from its values, or from a pattern that stands.
//
// Lists lie one behind the other in as many runs as there are threads, so that little
// memory is touched of the room for the densest case.

#include "weights.hpp"

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "pool.hpp"

using namespace elision;

namespace {

constexpr int AHEAD = 8;  // lists whose part of the weight is asked for early

void lay_out(Lists& lists, Meeting meeting, int images, bool halves) {
  lists.meeting = std::move(meeting);
  lists.tile = choose_tile(lists.meeting, images, halves);
  int partner = lists.meeting.partner_c;
  lists.blocks = (partner + lists.tile.channels - 1) / lists.tile.channels;
  size_t count = lists.list(static_cast<int>(lists.meeting.phases.size()), 0, 0);
  lists.begin.assign(count, 0);
  lists.length.assign(count, 0);
}

// Window offset of every (channel of a block, tap); -1 for a tap of another phase.
std::vector<int32_t> offsets(const Lists& lists, const Phase& phase, int taps) {
  std::vector<int32_t> table(static_cast<size_t>(lists.tile.channels) * taps + 16, -1);
  for (int i = 0; i < lists.tile.channels; ++i)
    for (const Tap& tap : phase.taps)
      table[i * taps + tap.index] = i * lists.tile.channel_numbers() +
                                    lists.tile.offset(lists.meeting, phase, tap);
  return table;
}

thread_local Entries spare;

// Use the room of this thread for the entries of lists, until it is given back.
void borrow(Lists& lists, int64_t values, int64_t places) {
  if (lists.value.count() == 0) std::swap(static_cast<Entries&>(lists), spare);
  lists.value.reserve(values);
  lists.offset.reserve(values);
  lists.place.reserve(places);
}

void give_back(Lists& lists) {
  if (lists.value.count() > spare.value.count())
    std::swap(static_cast<Entries&>(lists), spare);
  static_cast<Entries&>(lists) = Entries{};
}

// Fill runs of blocks with fill(block, n), which writes the lists of a block from entry n
// on, `most` entries of them at most, and returns where they end. With one thread, `room`
// may say how many entries there are in all.
template <typename Fill>
int64_t in_runs(Lists& lists, int64_t most, int64_t room, bool places, int threads,
                Fill fill) {
  int runs = std::min(threads, lists.blocks);
  room = std::min(room, most * lists.blocks) + 16 * runs;
  borrow(lists, room, places ? room : 0);
  std::atomic<int64_t> total{0};
  parallel(runs, threads, [&](int run) {
    int first = lists.blocks * run / runs, last = lists.blocks * (run + 1) / runs;
    int64_t begin = most * first + 16 * run, n = begin;
    for (int block = first; block < last; ++block) n = fill(block, n);
    total += n - begin;
  });
  return total.load();
}

// For one output channel the weights of a block of input channels are contiguous, so the
// survivors are packed 16 weights at a time.
int64_t compress(const Conv& conv, Lists& lists, const float* w, float threshold,
                 bool places, int threads, int64_t room = INT64_MAX) {
  const Phase& phase = lists.meeting.phases[0];
  int taps = conv.taps(), per_block = lists.tile.channels * taps;
  int64_t row = static_cast<int64_t>(conv.c) * taps;
  std::vector<int32_t> table = offsets(lists, phase, taps), index(per_block + 16);
  for (int i = 0; i < per_block + 16; ++i) index[i] = i;
  int64_t most = static_cast<int64_t>(conv.k) * per_block;
  return in_runs(lists, most, room, places, threads, [&](int block, int64_t n) {
    int count = std::min<int64_t>(per_block, row - static_cast<int64_t>(block) * per_block);
    alignas(64) float unused[32];
    for (int k = 0; k < conv.k; ++k) {
      int64_t first = k * row + static_cast<int64_t>(block) * per_block;
      size_t list = lists.list(0, block, k);
      lists.begin[list] = n;
      if (k + AHEAD < conv.k)
        for (int i = 0; i < count; i += 16) __builtin_prefetch(w + first + AHEAD * row + i);
      for (int i = 0; i < count; i += 16) {
        int live = std::min(16, count - i);
        alignas(64) float tail[16] = {};
        const float* from = w + first + i;
        if (live < 16) {
          for (int j = 0; j < live; ++j) tail[j] = from[j];
          from = tail;
        }
        if (places)
          append16(from, index.data() + i, static_cast<int32_t>(first), threshold, live,
                   unused, lists.place.get() + n);
        n += append16(from, table.data() + i, 0, threshold, live, lists.value.get() + n,
                      lists.offset.get() + n);
      }
      lists.length[list] = static_cast<int32_t>(n - lists.begin[list]);
    }
    return n;
  });
}

// The lists of the input gradient where it is one phase of few taps: straight from the
// weight, a vector for each pair of channels.
int64_t compress_back(const Conv& conv, Lists& lists, const float* w, float threshold,
                      int threads) {
  int taps = conv.taps(), per_block = lists.tile.channels;
  int64_t most = static_cast<int64_t>(conv.c) * per_block * taps;
  int64_t all = static_cast<int64_t>(conv.k) * conv.c * taps;
  std::vector<int32_t> table = offsets(lists, lists.meeting.phases[0], taps);
  return in_runs(lists, most, INT64_MAX, false, threads, [&](int block, int64_t n) {
    int first = block * per_block, count = std::min(per_block, conv.k - first);
    for (int c = 0; c < conv.c; ++c) {
      size_t list = lists.list(0, block, c);
      lists.begin[list] = n;
      if (c + AHEAD < conv.c)
        for (int k = 0; k < count; ++k)
          __builtin_prefetch(w + ((first + k) * int64_t{conv.c} + c + AHEAD) * taps);
      for (int k = 0; k < count; ++k) {
        int64_t at = (static_cast<int64_t>(first + k) * conv.c + c) * taps;
        const float* from = w + at;
        alignas(64) float tail[16] = {};
        if (at + 16 > all) {
          std::copy(from, from + taps, tail);
          from = tail;
        }
        n += append16(from, table.data() + k * taps, 0, threshold, taps,
                      lists.value.get() + n, lists.offset.get() + n);
      }
      lists.length[list] = static_cast<int32_t>(n - lists.begin[list]);
    }
    return n;
  });
}

// The same non-zeros, sorted for the input gradient: counted, then placed. Blocks of
// input channels fill different lists, so both passes run in parallel over them; within
// a list the order is that of the output channels, whatever the threads. What is written
// as an entry's place is its output channel within the block, times taps, plus the tap.
void transpose(const Conv& conv, const Lists& from, Lists& to, int64_t total,
               int threads) {
  int taps = conv.taps();
  int64_t row = static_cast<int64_t>(conv.c) * taps;
  std::vector<int> phase_of(taps, -1), channel_of(row), tap_of(row);
  std::vector<std::vector<int32_t>> table;
  for (size_t p = 0; p < to.meeting.phases.size(); ++p) {
    for (const Tap& tap : to.meeting.phases[p].taps) phase_of[tap.index] = p;
    table.push_back(offsets(to, to.meeting.phases[p], taps));
  }
  for (int64_t i = 0; i < row; ++i) {
    channel_of[i] = static_cast<int>(i / taps);
    tap_of[i] = static_cast<int>(i % taps);
  }
  auto each = [&](int block, auto&& work) {
    for (int k = 0; k < conv.k; ++k) {
      size_t list = from.list(0, block, k);
      int k_block = k / to.tile.channels, k_rest = k % to.tile.channels;
      for (int64_t n = from.begin[list]; n < from.begin[list] + from.length[list]; ++n) {
        int64_t rest = from.place.get()[n] - k * row;
        int tap = tap_of[rest], phase = phase_of[tap];
        if (phase < 0) continue;  // a tap that lies on padding at every output pixel
        work(to.list(phase, k_block, channel_of[rest]), n, phase, k_rest * taps + tap);
      }
    }
  };
  std::fill(to.length.begin(), to.length.end(), 0);
  parallel(from.blocks, threads, [&](int block) {
    each(block, [&](size_t list, int64_t, int, int) { ++to.length[list]; });
  });
  int64_t sum = 0;
  for (size_t i = 0; i < to.begin.size(); ++i) {
    to.begin[i] = sum;
    sum += to.length[i];
  }
  borrow(to, total + 16, total + 16);
  std::vector<int64_t> next = to.begin;
  parallel(from.blocks, threads, [&](int block) {
    each(block, [&](size_t list, int64_t n, int phase, int entry) {
      int64_t at = next[list]++;
      to.value.get()[at] = from.value.get()[n];
      to.offset.get()[at] = table[phase][entry];
      to.place.get()[at] = entry;
    });
  });
}

// Where the kernels read halves: in each value's place its half, twice.
void halve(Lists& lists, int threads) {
#if defined(ELISION_HALF)
  if (!lists.tile.halves) return;
  int own_c = lists.meeting.own_c;
  parallel(static_cast<int>(lists.begin.size()) / own_c, threads, [&](int part) {
    for (size_t list = static_cast<size_t>(part) * own_c, i = 0; i < own_c; ++list, ++i)
      for (int64_t n = lists.begin[list]; n < lists.end(list); ++n)
        lists.value.get()[n] = twice(lists.value.get()[n]);
  });
#endif
}

// Keep the places of the lists, as small as they can be said.
template <typename Tell>
void keep_pattern(Lists& lists, int taps, int64_t total, Tell tell) {
  lists.pattern.assign(total, 0);
  for (size_t p = 0; p < lists.meeting.phases.size(); ++p) {
    const std::vector<Tap>& known = lists.meeting.phases[p].taps;
    std::vector<int> which(taps);
    for (size_t t = 0; t < known.size(); ++t) which[known[t].index] = static_cast<int>(t);
    for (int block = 0; block < lists.blocks; ++block) {
      for (int own = 0; own < lists.meeting.own_c; ++own) {
        size_t list = lists.list(static_cast<int>(p), block, own);
        for (int64_t n = lists.begin[list]; n < lists.end(list); ++n) {
          int64_t entry = tell(block, own, lists.place.get()[n]);
          lists.pattern[n] = static_cast<uint16_t>(entry / taps * known.size() +
                                                   which[entry % taps]);
        }
      }
    }
  }
}

// What a product needs to know of the entries of a pattern.
enum class Need { VALUES, PLACES };

// The offsets of a pattern's entries, and the values that the weight has there now or
// their places.
template <Need NEED>
void fill(const Conv& conv, Lists& lists, bool forward, const float* w, int threads) {
  int taps = conv.taps(), own_c = lists.meeting.own_c;
  int64_t row = static_cast<int64_t>(conv.c) * taps;
  int64_t own_step = forward ? row : taps, partner_step = forward ? taps : row;
  int64_t room = static_cast<int64_t>(lists.pattern.size()) + 16;
  borrow(lists, room, NEED == Need::PLACES ? room : 0);
  float* value = lists.value.get();
  int32_t *offset = lists.offset.get(), *place = lists.place.get();
  for (size_t p = 0; p < lists.meeting.phases.size(); ++p) {
    const Phase& phase = lists.meeting.phases[p];
    std::vector<int32_t> window, beyond;  // of an entry: its offset, its place in the block
    for (int i = 0; i < lists.tile.channels; ++i) {
      for (const Tap& tap : phase.taps) {
        window.push_back(i * lists.tile.channel_numbers() +
                         lists.tile.offset(lists.meeting, phase, tap));
        beyond.push_back(static_cast<int32_t>(i * partner_step + tap.index));
      }
    }
    parallel(lists.blocks, threads, [&](int block) {
      int64_t first = block * lists.tile.channels * partner_step;
      int channels = std::min(lists.tile.channels,
                              lists.meeting.partner_c - block * lists.tile.channels);
      for (int own = 0; own < own_c; ++own, first += own_step) {
        if (NEED == Need::VALUES && own + AHEAD < own_c)
          for (int i = 0; i < channels; ++i)
            __builtin_prefetch(w + first + AHEAD * own_step + i * partner_step);
        size_t list = lists.list(static_cast<int>(p), block, own);
        for (int64_t n = lists.begin[list]; n < lists.end(list); ++n) {
          int entry = lists.pattern[n];
          offset[n] = window[entry];
          if constexpr (NEED == Need::VALUES)
            value[n] = w[first + beyond[entry]];
          else
            place[n] = static_cast<int32_t>(first + beyond[entry]);
        }
      }
    });
  }
}

}  // namespace

// Whether kernels read halves here.
extern "C" int elision_multiplies_halves() {
#if defined(ELISION_HALF)
  return 1;
#else
  return 0;
#endif
}

// With `halves`, the lists are for kernels that read operands as halves.
extern "C" Weights* elision_weights_new(const int* geometry, int halves) {
  try {
    auto* made = new Weights;
    std::memcpy(&made->conv, geometry, sizeof(Conv));
    const Conv& conv = made->conv;
    lay_out(made->forward, from_output(conv), conv.n, halves != 0);
    lay_out(made->input_grad, from_input(conv), conv.n, halves != 0);
    return made;
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

extern "C" void elision_weights_free(Weights* weights) { delete weights; }

// Take the weights with magnitude above the threshold, for forward or input gradient or
// both; returns how many, or -1 if there is not memory enough.
extern "C" int64_t elision_weights_compress(Weights* weights, const float* w,
                                            float threshold, int forward, int input_grad,
                                            int threads) {
  try {
    const Conv& conv = weights->conv;
    Lists& back = weights->input_grad;
    // A plane smaller than the stride is one phase, too, but not of all taps.
    bool all_taps = back.meeting.phases[0].taps.size() == static_cast<size_t>(conv.taps());
    bool direct = all_taps && conv.taps() >= 4 && conv.taps() <= 16;
    if (input_grad && direct) {
      int64_t total = compress_back(conv, back, w, threshold, threads);
      halve(back, threads);
      if (!forward) return total;
    }
    bool sorted = input_grad && !direct;
    int64_t total = compress(conv, weights->forward, w, threshold, sorted, threads);
    if (sorted) {
      transpose(conv, weights->forward, back, total, threads);
      halve(back, threads);
    }
    if (forward)
      halve(weights->forward, threads);
    else
      give_back(weights->forward);
    return total;
  } catch (const std::bad_alloc&) {
    return -1;
  }
}

// Keep the places where w is not zero, and if asked for in the order of the input
// gradient, too; returns how many there are, or -1 if there is not memory enough.
extern "C" int64_t elision_weights_follow(Weights* weights, const float* w,
                                          int input_grad) {
  try {
    const Conv& conv = weights->conv;
    Lists &forward = weights->forward, &back = weights->input_grad;
    int taps = conv.taps();
    int64_t row = static_cast<int64_t>(conv.c) * taps;
    int64_t total = row * conv.k - std::count(w, w + row * conv.k, 0.0f);
    compress(conv, forward, w, 0.0f, true, 1, total);
    if (input_grad) transpose(conv, forward, back, total, 1);
    keep_pattern(forward, taps, total, [&](int block, int own, int32_t place) {
      return place - own * row - static_cast<int64_t>(block) * forward.tile.channels * taps;
    });
    if (input_grad)
      keep_pattern(back, taps, total, [](int, int, int32_t entry) { return entry; });
    give_back(forward);
    give_back(back);
    return total;
  } catch (const std::bad_alloc&) {
    return -1;
  }
}

// Make the lists of the places that are followed: for a product, with the values that w
// has there, or without w for the masked gradient. Returns 0, or -1 if there is not memory
// enough.
extern "C" int elision_weights_fill(Weights* weights, const float* w, int forward,
                                    int threads) {
  try {
    Lists& lists = forward ? weights->forward : weights->input_grad;
    auto fill_them = w ? fill<Need::VALUES> : fill<Need::PLACES>;
    fill_them(weights->conv, lists, forward != 0, w, threads);
    if (w) halve(lists, threads);
    return 0;
  } catch (const std::bad_alloc&) {
    return -1;
  }
}

// Let other weights use the memory of what was compressed or filled.
extern "C" void elision_weights_release(Weights* weights) {
  give_back(weights->forward);
  give_back(weights->input_grad);
}
