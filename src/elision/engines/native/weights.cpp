// Building and refreshing the lists of a sparse weight.

#include "weights.hpp"

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "pool.hpp"

using namespace elision;

namespace {

void lay_out(Lists& lists, Meeting meeting, int images) {
  lists.meeting = std::move(meeting);
  lists.tile = choose_tile(lists.meeting, images);
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
      table[i * taps + tap.index] = i * lists.tile.channel_floats() +
                                    lists.tile.offset(lists.meeting, phase, tap);
  return table;
}

// For one output channel the weights of a block of input channels are contiguous, so the
// survivors are packed 16 weights at a time. Each block has a region of its own.
int64_t compress(const Conv& conv, Lists& lists, const float* w, float threshold,
                 bool places, int threads) {
  const Phase& phase = lists.meeting.phases[0];
  int taps = conv.taps(), per_block = lists.tile.channels * taps;
  int64_t row = static_cast<int64_t>(conv.c) * taps;
  int64_t region = static_cast<int64_t>(conv.k) * per_block + 16;
  lists.value.reserve(region * lists.blocks);
  lists.offset.reserve(region * lists.blocks);
  if (places) lists.place.reserve(region * lists.blocks);
  std::vector<int32_t> table = offsets(lists, phase, taps), index(per_block + 16);
  for (int i = 0; i < per_block + 16; ++i) index[i] = i;
  std::atomic<int64_t> total{0};
  parallel(lists.blocks, threads, [&](int block) {
    int64_t n = region * block;
    int count = std::min<int64_t>(per_block, row - static_cast<int64_t>(block) * per_block);
    alignas(64) float unused[32];
    for (int k = 0; k < conv.k; ++k) {
      int64_t first = k * row + static_cast<int64_t>(block) * per_block;
      size_t list = lists.list(0, block, k);
      lists.begin[list] = n;
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
    total += n - region * block;
  });
  return total.load();
}

// The lists of the input gradient where it is one phase of few taps: straight from the
// weight, a vector for each pair of channels.
void compress_back(const Conv& conv, Lists& lists, const float* w, float threshold,
                   int threads) {
  int taps = conv.taps(), per_block = lists.tile.channels;
  int64_t region = static_cast<int64_t>(conv.c) * per_block * taps + 16;
  int64_t all = static_cast<int64_t>(conv.k) * conv.c * taps;
  lists.value.reserve(region * lists.blocks);
  lists.offset.reserve(region * lists.blocks);
  std::vector<int32_t> table = offsets(lists, lists.meeting.phases[0], taps);
  parallel(lists.blocks, threads, [&](int block) {
    int64_t n = region * block;
    int first = block * per_block, count = std::min(per_block, conv.k - first);
    for (int c = 0; c < conv.c; ++c) {
      size_t list = lists.list(0, block, c);
      lists.begin[list] = n;
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
  });
}

// The same non-zeros, sorted for the input gradient: counted, then placed. Blocks of
// input channels fill different lists, so both passes run in parallel over them; within
// a list the order is that of the output channels, whatever the threads.
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
  for (auto* room : {&to.offset, &to.place})
    if (room->count() < static_cast<size_t>(total)) room->reserve(total + total / 8 + 16);
  if (to.value.count() < static_cast<size_t>(total)) to.value.reserve(total + total / 8 + 16);
  std::vector<int64_t> next = to.begin;
  parallel(from.blocks, threads, [&](int block) {
    each(block, [&](size_t list, int64_t n, int phase, int entry) {
      int64_t at = next[list]++;
      to.value.get()[at] = from.value.get()[n];
      to.offset.get()[at] = table[phase][entry];
      to.place.get()[at] = from.place.get()[n];
    });
  });
}

void refresh(Lists& lists, const float* w, int threads) {
  size_t per_task = 64;
  int tasks = static_cast<int>((lists.begin.size() + per_task - 1) / per_task);
  parallel(tasks, threads, [&](int task) {
    size_t end = std::min(lists.begin.size(), (task + 1) * per_task);
    for (size_t list = task * per_task; list < end; ++list)
      for (int64_t n = lists.begin[list]; n < lists.begin[list] + lists.length[list]; ++n)
        lists.value.get()[n] = w[lists.place.get()[n]];
  });
}

}  // namespace

extern "C" Weights* elision_weights_new(const int* geometry) {
  try {
    auto* made = new Weights;
    std::memcpy(&made->conv, geometry, sizeof(Conv));
    lay_out(made->forward, from_output(made->conv), made->conv.n);
    lay_out(made->input_grad, from_input(made->conv), made->conv.n);
    return made;
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

extern "C" void elision_weights_free(Weights* weights) { delete weights; }

// Take the weights with magnitude above the threshold; returns how many, or -1 if there
// is not memory enough. Only with `places` may the weights be refreshed, or a gradient be
// asked for at them, later.
extern "C" int64_t elision_weights_compress(Weights* weights, const float* w,
                                            float threshold, int input_grad, int places,
                                            int threads) {
  try {
    const Conv& conv = weights->conv;
    Lists &forward = weights->forward, &back = weights->input_grad;
    // A plane smaller than the stride is one phase, too, but not of all taps.
    bool all_taps = back.meeting.phases[0].taps.size() == static_cast<size_t>(conv.taps());
    bool direct = !places && all_taps && conv.taps() >= 4 && conv.taps() <= 16;
    bool keep_places = places || (input_grad && !direct);
    int64_t total = compress(conv, forward, w, threshold, keep_places, threads);
    weights->has_input_grad = input_grad != 0;
    if (input_grad && direct) compress_back(conv, back, w, threshold, threads);
    if (input_grad && !direct) transpose(conv, forward, back, total, threads);
    return total;
  } catch (const std::bad_alloc&) {
    return -1;
  }
}

// New values at the places that were taken before: the mask stands, the weights moved.
extern "C" void elision_weights_refresh(Weights* weights, const float* w, int threads) {
  refresh(weights->forward, w, threads);
  if (weights->has_input_grad) refresh(weights->input_grad, w, threads);
}
