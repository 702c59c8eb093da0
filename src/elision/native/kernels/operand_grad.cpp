// Weight gradient from one sparse operand (SWAT: the input; ReSprop: the gradient), dense
// result: every survivor of the sparse operand is multiplied with the pixels that it
// meets in all channels of the dense one, which therefore lie side by side.
//
// The sparse plane is cut into bands of own pixels. Within a band the survivors of one
// channel form one list per group of images: a part of a block of 16 where planes are
// large, several blocks where they are small. The dense pixels of the band, for one group
// of channels, are turned to [image][row][column][channel] and stay in cache while the
// lists run over them. The results of one (channel, tap) group live in registers.

#include <algorithm>
#include <vector>

#include "meeting.hpp"
#include "flushing.hpp"
#include "pool.hpp"
#include "room.hpp"
#include "vec.hpp"

using namespace elision;

namespace {

// Dense pixels of one list. Above one L1 on purpose: survivors come in order of their
// place, so a list slides over its block, and longer lists pay (measured: 32 to 80 KiB).
constexpr int CACHE_FLOATS = 16 * 1024;
constexpr int RESULT_FLOATS = 64 * 1024;  // 256 KiB of results stay in L2 beside them
constexpr int MAX_TAPS = 9;               // accumulated together

struct Band {
  int phase, y, x, rows, cols;  // own pixels, in the phase's own indices
};

struct Plan {
  Meeting meeting;
  int images, image_blocks;
  int wide;              // dense channels of one group, a multiple of LANES
  int rows, cols;        // own pixels of a whole band
  int dense_rows, dense_cols;
  int group;             // images whose dense pixels fit the cache together, <= LANES
  int blocks;            // of LANES images in one unit; above 1 only if group == LANES
  std::vector<Band> bands;

  int units() const { return (image_blocks + blocks - 1) / blocks; }
  int groups() const { return LANES / group; }
  int dense_groups() const { return (meeting.partner_c + wide - 1) / wide; }
  int image_floats() const { return dense_rows * dense_cols * wide; }
  int64_t region() const {  // survivors of one (unit, band, group), at most
    return static_cast<int64_t>(meeting.own_c) * group * blocks * rows * cols + 16;
  }
  size_t lists() const {
    return static_cast<size_t>(units()) * bands.size() * groups() * meeting.own_c;
  }
  size_t list(int unit, size_t band, int g, int c) const {
    return ((unit * bands.size() + band) * groups() + g) * meeting.own_c + c;
  }
};

Plan make_plan(const Conv& conv, bool sparse_input) {
  Plan plan{};
  plan.meeting = sparse_input ? from_input(conv) : from_output(conv);
  const Meeting& m = plan.meeting;
  plan.images = conv.n;
  plan.image_blocks = (conv.n + LANES - 1) / LANES;
  size_t taps = 1;
  int span_y = 0, span_x = 0;
  for (const Phase& phase : m.phases) {
    taps = std::max(taps, phase.taps.size());
    plan.rows = std::max(plan.rows, phase.rows);
    plan.cols = std::max(plan.cols, phase.cols);
    span_y = std::max(span_y, phase.max_dy - phase.min_dy);
    span_x = std::max(span_x, phase.max_dx - phase.min_dx);
  }
  // Few taps leave registers for more channels.
  int together = static_cast<int>(std::min<size_t>(taps, MAX_TAPS));
  plan.wide = 2 * LANES;
  while (plan.wide < 8 * LANES && plan.wide < m.partner_c &&
         together * 2 * plan.wide <= REGISTERS * WIDTH)
    plan.wide *= 2;
  plan.wide = std::min(plan.wide, (m.partner_c + LANES - 1) / LANES * LANES);
  if (plan.wide == 3 * LANES) plan.wide = 4 * LANES;
  if (plan.wide > 4 * LANES) plan.wide = 8 * LANES;
  auto measure = [&] {
    plan.dense_rows = (plan.rows - 1) * m.step_y + span_y + 1;
    plan.dense_cols = (plan.cols - 1) * m.step_x + span_x + 1;
  };
  measure();
  while (plan.image_floats() > CACHE_FLOATS && plan.rows * plan.cols > 16) {
    (plan.rows > 4 || plan.cols <= 8 ? plan.rows : plan.cols) =
        ((plan.rows > 4 || plan.cols <= 8 ? plan.rows : plan.cols) + 1) / 2;
    measure();
  }
  plan.group = LANES;
  while (plan.group > 1 && plan.group * plan.image_floats() > CACHE_FLOATS)
    plan.group /= 2;
  plan.blocks = 1;
  if (plan.group == LANES)
    plan.blocks = std::max(
        1, std::min(plan.image_blocks, CACHE_FLOATS / (LANES * plan.image_floats())));
  for (size_t p = 0; p < m.phases.size(); ++p) {
    const Phase& phase = m.phases[p];
    if (phase.taps.empty()) continue;
    for (int y = 0; y < phase.rows; y += plan.rows)
      for (int x = 0; x < phase.cols; x += plan.cols)
        plan.bands.push_back({static_cast<int>(p), y, x,
                              std::min(plan.rows, phase.rows - y),
                              std::min(plan.cols, phase.cols - x)});
  }
  return plan;
}

struct Lists {
  Room<float> value;
  Room<int32_t> offset;
  std::vector<int64_t> begin;
  std::vector<int32_t> length;
};

// Lists of one (unit, band). Where a group is large, the 16 images of a pixel are packed
// as they lie; where it is small, 16 pixels are turned first, so that a vector holds 16
// pixels of one image.
void compress(const Plan& plan, const float* sparse, float threshold, int unit,
              size_t band_index, Lists& lists) {
  const Meeting& m = plan.meeting;
  const Band& band = plan.bands[band_index];
  const Phase& phase = m.phases[band.phase];
  int pixels = band.rows * band.cols, image_floats = plan.image_floats();
  std::vector<size_t> source(pixels);
  std::vector<int32_t> offset(pixels + 16);
  for (int p = 0; p < pixels; ++p) {
    int row = p / band.cols, col = p % band.cols;
    size_t y = phase.first_y + static_cast<size_t>(band.y + row) * m.own_step_y;
    size_t x = phase.first_x + static_cast<size_t>(band.x + col) * m.own_step_x;
    source[p] = (y * m.own_w + x) * LANES;
    offset[p] = (row * m.step_y * plan.dense_cols + col * m.step_x) * plan.wide;
  }
  alignas(64) int32_t image_offset[2 * LANES] = {};
  for (int i = 0; i < LANES; ++i) image_offset[i] = i % plan.group * image_floats;
  size_t plane = static_cast<size_t>(m.own_h) * m.own_w * LANES;
  int first = unit * plan.blocks;
  int last = std::min(plan.image_blocks, first + plan.blocks);
  std::vector<int64_t> next(plan.groups());
  for (int g = 0; g < plan.groups(); ++g)
    next[g] = plan.region() * ((unit * plan.bands.size() + band_index) * plan.groups() + g);
  alignas(64) float seen[16 * LANES] = {}, turned[16 * LANES];
  auto append = [&](int g, const float* values, const int32_t* tags, int32_t shift,
                    int live) {
    next[g] += append16(values, tags, shift, threshold, live, lists.value.get() + next[g],
                        lists.offset.get() + next[g]);
  };
  for (int c = 0; c < m.own_c; ++c) {
    for (int g = 0; g < plan.groups(); ++g)
      lists.begin[plan.list(unit, band_index, g, c)] = next[g];
    for (int block = first; block < last; ++block) {
      const float* base = sparse + (static_cast<size_t>(block) * m.own_c + c) * plane;
      int images = std::min(LANES, plan.images - block * LANES);
      int32_t shift = (block - first) * LANES * image_floats;
      if (plan.group == LANES) {
        for (int p = 0; p < pixels; ++p)
          append(0, base + source[p], image_offset, shift + offset[p], images);
        continue;
      }
      for (int p = 0; p < pixels; p += 16) {
        int live = std::min(16, pixels - p);
        const float* from = base + source[p];
        if (live < 16 || source[p + 15] - source[p] != 15 * LANES) {
          for (int i = 0; i < live; ++i) copy_lanes(seen + i * LANES, base + source[p + i]);
          from = seen;
        }
        transpose16(from, LANES, turned, 16);
        for (int image = 0; image < images; ++image)
          append(image / plan.group, turned + image * 16, offset.data() + p,
                 image % plan.group * image_floats, live);
      }
    }
    for (int g = 0; g < plan.groups(); ++g) {
      size_t list = plan.list(unit, band_index, g, c);
      lists.length[list] = static_cast<int32_t>(next[g] - lists.begin[list]);
    }
  }
}

// Turn the dense pixels that a band meets, for the channels from `first` on, to
// [image][row][column][wide]; what is outside the plane, or behind the last channel, is 0.
void turn_dense(const Plan& plan, const Band& band, const float* dense, int block,
                int first, float* out) {
  const Meeting& m = plan.meeting;
  const Phase& phase = m.phases[band.phase];
  size_t plane = static_cast<size_t>(m.partner_h) * m.partner_w * LANES;
  const float* base = dense + (static_cast<size_t>(block) * m.partner_c + first) * plane;
  int channels = std::min(plan.wide, m.partner_c - first), image = plan.image_floats();
  for (int row = 0; row < plan.dense_rows; ++row) {
    int y = band.y * m.step_y + phase.min_dy + row;
    for (int col = 0; col < plan.dense_cols; ++col, out += plan.wide) {
      int x = band.x * m.step_x + phase.min_dx + col;
      bool inside = y >= 0 && y < m.partner_h && x >= 0 && x < m.partner_w;
      const float* pixel = base + (static_cast<size_t>(y) * m.partner_w + x) * LANES;
      for (int c = 0; c < plan.wide; c += LANES) {
        if (inside && c + LANES <= channels) {
          transpose16(pixel + c * plane, plane, out + c, image);
          continue;
        }
        for (int i = 0; i < LANES; ++i) clear_lanes(out + i * image + c);
        for (int k = c; inside && k < std::min(channels, c + LANES); ++k)
          for (int i = 0; i < LANES; ++i) out[i * image + k] = pixel[k * plane + i];
      }
    }
  }
}

// Add value x dense[offset + tap] to TAPS x VECTORS sums, over one list.
template <int TAPS, int VECTORS>
void walk(const float* const* tap, const int32_t* offset, const float* value, int length,
          float* const* result) {
  vf sum[TAPS][VECTORS];
#pragma GCC unroll 9
  for (int t = 0; t < TAPS; ++t)
#pragma GCC unroll 16
    for (int j = 0; j < VECTORS; ++j) sum[t][j] = load(result[t] + j * WIDTH);
  const float* from[TAPS];
#pragma GCC unroll 9
  for (int t = 0; t < TAPS; ++t) from[t] = tap[t];
  for (int n = 0; n < length; ++n) {
    vf v = splat(value[n]);
    ptrdiff_t o = offset[n];
#pragma GCC unroll 9
    for (int t = 0; t < TAPS; ++t)
#pragma GCC unroll 16
      for (int j = 0; j < VECTORS; ++j) sum[t][j] += v * load(from[t] + o + j * WIDTH);
  }
#pragma GCC unroll 9
  for (int t = 0; t < TAPS; ++t)
#pragma GCC unroll 16
    for (int j = 0; j < VECTORS; ++j) store(result[t] + j * WIDTH, sum[t][j]);
}

using Walk = void (*)(const float* const*, const int32_t*, const float*, int,
                      float* const*);

template <int VECTORS, int TAPS = REGISTERS / VECTORS < MAX_TAPS ? REGISTERS / VECTORS
                                                                 : MAX_TAPS>
Walk walk_of(int taps) {
  if constexpr (TAPS == 0) {
    return nullptr;
  } else {
    return taps == TAPS ? walk<TAPS, VECTORS> : walk_of<VECTORS, TAPS - 1>(taps);
  }
}

// Vectors of a group that are accumulated together, and taps beside them.
int vectors_together(const Plan& plan) {
  int vectors = plan.wide / WIDTH;
  while (vectors > REGISTERS || (vectors > 4 && WIDTH < LANES)) vectors /= 2;
  return vectors;
}

Walk find_walk(int vectors, int taps) {
  switch (vectors) {
    case 1: return walk_of<1>(taps);
    case 2: return walk_of<2>(taps);
    case 4: return walk_of<4>(taps);
    default: return walk_of<8>(taps);
  }
}

// All lists of one group of dense channels and a range of sparse channels.
void one_group(const Plan& plan, const Lists& lists, const float* dense, int group,
               int c_begin, int c_end, int taps_in_all, float* result) {
  const Meeting& m = plan.meeting;
  size_t block_floats = static_cast<size_t>(LANES) * plan.image_floats();
  float* turned = scratch(2, plan.blocks * block_floats);
  int vectors = vectors_together(plan);
  int most_taps = std::min(MAX_TAPS, REGISTERS / vectors);
  for (int unit = 0; unit < plan.units(); ++unit) {
    for (size_t b = 0; b < plan.bands.size(); ++b) {
      const Phase& phase = m.phases[plan.bands[b].phase];
      int first = unit * plan.blocks;
      for (int i = 0; i < std::min(plan.blocks, plan.image_blocks - first); ++i)
        turn_dense(plan, plan.bands[b], dense, first + i, group * plan.wide,
                   turned + i * block_floats);
      for (int g = 0; g < plan.groups(); ++g) {
        const float* images =
            turned + static_cast<size_t>(g) * plan.group * plan.image_floats();
        for (size_t t0 = 0; t0 < phase.taps.size(); t0 += most_taps) {
          int taps = std::min<int>(most_taps, static_cast<int>(phase.taps.size() - t0));
          Walk walk_list = find_walk(vectors, taps);
          for (int part = 0; part < plan.wide; part += vectors * WIDTH) {
            const float* from[MAX_TAPS];
            float* to[MAX_TAPS];
            for (int t = 0; t < taps; ++t) {
              const Tap& tap = phase.taps[t0 + t];
              int dy = tap.dy - phase.min_dy, dx = tap.dx - phase.min_dx;
              from[t] = images + (dy * plan.dense_cols + dx) * plan.wide + part;
            }
            for (int c = c_begin; c < c_end; ++c) {
              size_t list = plan.list(unit, b, g, c);
              if (lists.length[list] == 0) continue;
              for (int t = 0; t < taps; ++t)
                to[t] = result + part +
                        (static_cast<size_t>(c - c_begin) * taps_in_all +
                         phase.taps[t0 + t].index) *
                            plan.wide;
              walk_list(from, lists.offset.get() + lists.begin[list],
                        lists.value.get() + lists.begin[list], lists.length[list], to);
            }
          }
        }
      }
    }
  }
}

// [own channel of the cut][tap][wide] -> the weight's own order, for one range of own channels.
void deliver(const Conv& conv, const Plan& plan, bool sparse_input, int group,
             int c_begin, int c_end, const float* result, float* dw) {
  int taps = conv.taps(), first = group * plan.wide;
  int channels = std::min(plan.wide, plan.meeting.partner_c - first);
  if (!sparse_input) {  // own = output channel, wide = input channels
    for (int k = c_begin; k < c_end; ++k)
      for (int c = 0; c < channels; ++c)
        for (int t = 0; t < taps; ++t)
          dw[(static_cast<size_t>(k) * conv.c + first + c) * taps + t] =
              result[(static_cast<size_t>(k - c_begin) * taps + t) * plan.wide + c];
    return;
  }
  size_t row = static_cast<size_t>(conv.c) * taps;
  for (int k = 0; k < channels; k += LANES) {
    size_t i = 0, end = static_cast<size_t>(c_end - c_begin) * taps;
    float* to = dw + static_cast<size_t>(first + k) * row + static_cast<size_t>(c_begin) * taps;
    for (; k + LANES <= channels && i + 16 <= end; i += 16)
      transpose16(result + i * plan.wide + k, plan.wide, to + i, row);
    for (; i < end; ++i)
      for (int j = 0; j < std::min(LANES, channels - k); ++j)
        to[j * row + i] = result[i * plan.wide + k + j];
  }
}

}  // namespace

// dw [K][C][R][S] = sum over images of sparse x dense, both blocked. `sparse_input`: the
// sparse operand is the input and the dense one the gradient of the output, or the other
// way round. Values of magnitude <= threshold are left out (below 0: none is).
// Returns the number of survivors, or -1 if there is not memory enough.
extern "C" int64_t elision_weight_grad(const int* geometry, int sparse_input,
                                       const float* sparse, const float* dense,
                                       float threshold, float* dw, int threads) {
  Flushing small;
  try {
    Conv conv;
    std::memcpy(&conv, geometry, sizeof(Conv));
    Plan plan = make_plan(conv, sparse_input != 0);
    int bands = static_cast<int>(plan.bands.size()), own_c = plan.meeting.own_c;
    static thread_local Lists lists;
    size_t room = plan.region() * plan.units() * bands * plan.groups() + 16;
    lists.value.reserve(room);
    lists.offset.reserve(room);
    lists.begin.assign(plan.lists(), 0);
    lists.length.assign(plan.lists(), 0);
    Lists& mine = lists;
    parallel(plan.units() * bands, threads, [&](int task) {
      compress(plan, sparse, threshold, task / bands, task % bands, mine);
    });
    // Cut the sparse channels where the results would not stay in cache or the threads
    // would run out of work; each cut turns the dense pixels again.
    int groups = plan.dense_groups(), per_channel = conv.taps() * plan.wide;
    int cuts = std::max((own_c * per_channel + RESULT_FLOATS - 1) / RESULT_FLOATS,
                        (threads + groups - 1) / groups);
    cuts = std::min(own_c, cuts);
    int per_cut = (own_c + cuts - 1) / cuts;
    parallel(groups * cuts, threads, [&](int task) {
      int begin = std::min(own_c, task % cuts * per_cut);
      int end = std::min(own_c, begin + per_cut);
      float* result = scratch(3, static_cast<size_t>(per_cut) * per_channel);
      std::fill_n(result, static_cast<size_t>(end - begin) * per_channel, 0.0f);
      one_group(plan, mine, dense, task / cuts, begin, end, conv.taps(), result);
      deliver(conv, plan, sparse_input != 0, task / cuts, begin, end, result, dw);
    });
    int64_t total = 0;
    for (int32_t length : lists.length) total += length;
    return total;
  } catch (const std::bad_alloc&) {
    return -1;
  }
}
