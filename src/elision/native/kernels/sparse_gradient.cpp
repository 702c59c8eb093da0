// Input gradient from a sparse gradient of the output (ReSprop, meProp), dense weight.
//
// Every input pixel gathers: the non-zeros of the output pixels that it meets are listed
// per image, and each adds its value times one row of the weight, all input channels side
// by side, to sums that stay in registers. Lists of neighbouring output pixels lie one
// behind the other and the rows of neighbouring taps do too, so that one run of entries
// serves all taps of a kernel row. The weight is cut by output channels so that what is
// read again and again stays in L2.

#include <algorithm>
#include <vector>

#include "meeting.hpp"
#include "flushing.hpp"
#include "pool.hpp"
#include "room.hpp"
#include "vec.hpp"

using namespace elision;

namespace {

constexpr int WEIGHT_FLOATS = 96 * 1024;  // 384 KiB of weight rows stay in L2
constexpr int SUM_FLOATS = 64 * 1024;     // beside 256 KiB of sums

// Neighbouring taps of one row of the kernel: output pixels (dy, dx ... dx + count - 1).
struct Run {
  int dy, dx;
  std::vector<int> taps;  // their indices, by ascending dx
  size_t rows;            // where the rows [k][tap][wide] of this run begin
};

struct Plan {
  Meeting meeting;
  std::vector<std::vector<Run>> runs;  // by phase
  int wide;                            // input channels, padded
  int channels;                        // output channels of one cut
  size_t row_floats = 0;               // all runs together
};

Plan make_plan(const Conv& conv) {
  Plan plan{from_input(conv), {}, (conv.c + LANES - 1) / LANES * LANES, 0};
  for (const Phase& phase : plan.meeting.phases) {
    std::vector<Tap> taps = phase.taps;
    std::sort(taps.begin(), taps.end(), [](const Tap& a, const Tap& b) {
      return a.dy != b.dy ? a.dy < b.dy : a.dx < b.dx;
    });
    std::vector<Run> runs;
    for (const Tap& tap : taps) {
      bool next = !runs.empty() && runs.back().dy == tap.dy &&
                  runs.back().dx + static_cast<int>(runs.back().taps.size()) == tap.dx;
      if (!next) runs.push_back({tap.dy, tap.dx, {}, 0});
      runs.back().taps.push_back(tap.index);
    }
    for (Run& run : runs) {
      run.rows = plan.row_floats;
      plan.row_floats += run.taps.size() * conv.k * plan.wide;
    }
    plan.runs.push_back(runs);
  }
  int per_channel = conv.taps() * plan.wide;
  plan.channels = std::max(16, WEIGHT_FLOATS / per_channel / 16 * 16);
  plan.channels = std::min(plan.channels, (conv.k + 15) / 16 * 16);
  return plan;
}

// The weight [k][c][tap] as rows of input channels, by run.
void turn_weight(const Conv& conv, const Plan& plan, const float* w, float* rows,
                 int threads) {
  int taps = conv.taps();
  parallel(conv.k, threads, [&](int k) {
    for (const auto& runs : plan.runs) {
      for (const Run& run : runs) {
        for (size_t t = 0; t < run.taps.size(); ++t) {
          float* to = rows + run.rows + (k * run.taps.size() + t) * plan.wide;
          const float* from = w + static_cast<size_t>(k) * conv.c * taps + run.taps[t];
          for (int c = 0; c < plan.wide; ++c) to[c] = c < conv.c ? from[c * taps] : 0;
        }
      }
    }
  });
}

// sums[0 ... V) += value x row, over one run of entries. An entry's offset counts rows of
// `wide` floats for a run of one tap; `taps` and `shift` make it a row of this run.
template <int V>
void walk(const float* rows, int wide, int taps, int shift, const int32_t* channel,
          const int32_t* column, const float* value, int64_t count, float* sums) {
  vf sum[V];
#pragma GCC unroll 16
  for (int j = 0; j < V; ++j) sum[j] = load(sums + j * WIDTH);
  for (int64_t n = 0; n < count; ++n) {
    ptrdiff_t row = static_cast<ptrdiff_t>(channel[n]) * taps + column[n] - shift;
    const float* from = rows + row * wide;
    vf v = splat(value[n]);
#pragma GCC unroll 16
    for (int j = 0; j < V; ++j) sum[j] += v * load(from + j * WIDTH);
  }
#pragma GCC unroll 16
  for (int j = 0; j < V; ++j) store(sums + j * WIDTH, sum[j]);
}

using Walk = void (*)(const float*, int, int, int, const int32_t*, const int32_t*,
                      const float*, int64_t, float*);

// The widest walk of at most `floats` sums.
std::pair<Walk, int> widest(int floats) {
  if (REGISTERS >= 16 && floats >= 16 * WIDTH) return {walk<16>, 16 * WIDTH};
  if (floats >= 8 * WIDTH) return {walk<8>, 8 * WIDTH};
  if (floats >= 4 * WIDTH) return {walk<4>, 4 * WIDTH};
  if (floats >= 2 * WIDTH) return {walk<2>, 2 * WIDTH};
  return {walk<1>, WIDTH};
}

// Non-zeros of some rows of output pixels, by row, image and column.
struct Lists {
  Room<float> value;
  Room<int32_t> channel, column;
  std::vector<int64_t> begin;  // [row][image][column], and one behind each row's last
};

// List rows [top, top + count) of one block of images, output channels [k0, k1).
void list_rows(const Plan& plan, const float* g, int block, int top, int count, int k0,
               int k1, Lists& lists) {
  const Meeting& m = plan.meeting;
  int columns = m.partner_w;
  size_t plane = static_cast<size_t>(m.partner_h) * columns * LANES;
  int64_t region = static_cast<int64_t>(columns) * (k1 - k0) + 32;
  lists.value.reserve(region * count * LANES);
  lists.channel.reserve(region * count * LANES);
  lists.column.reserve(region * count * LANES);
  lists.begin.assign(static_cast<size_t>(count) * LANES * (columns + 1), 0);
  alignas(64) float seen[16 * LANES] = {}, turned[16 * LANES];
  alignas(64) int32_t index[16];
  for (int row = 0; row < count; ++row) {
    int y = top + row;
    int64_t next[LANES];
    for (int i = 0; i < LANES; ++i) next[i] = region * (row * LANES + i);
    for (int x = 0; x < columns; ++x) {
      for (int i = 0; i < LANES; ++i)
        lists.begin[(static_cast<size_t>(row) * LANES + i) * (columns + 1) + x] = next[i];
      if (y < 0 || y >= m.partner_h) continue;
      for (int k = k0; k < k1; k += 16) {
        int live = std::min(16, k1 - k);
        const float* from = g + (static_cast<size_t>(block) * m.partner_c + k) * plane +
                            (static_cast<size_t>(y) * columns + x) * LANES;
        if (live == 16) {
          transpose16(from, plane, turned, 16);
        } else {
          for (int j = 0; j < live; ++j) copy_lanes(seen + j * LANES, from + j * plane);
          transpose16(seen, LANES, turned, 16);
        }
        for (int j = 0; j < 16; ++j) index[j] = k + j;
        for (int i = 0; i < LANES; ++i) {
          int found = append16(turned + i * 16, index, 0, 0.0f, live,
                               lists.value.get() + next[i], lists.channel.get() + next[i]);
          std::fill_n(lists.column.get() + next[i], found, x);
          next[i] += found;
        }
      }
    }
    for (int i = 0; i < LANES; ++i)
      lists.begin[(static_cast<size_t>(row) * LANES + i) * (columns + 1) + columns] = next[i];
  }
}

// One band of own rows of one phase, for 16 images.
void one_band(const Plan& plan, const float* rows, const float* g, int block, int phase_index,
              int first, int count, float* dx) {
  const Meeting& m = plan.meeting;
  const Phase& phase = m.phases[phase_index];
  const auto& runs = plan.runs[phase_index];
  size_t pixel_floats = static_cast<size_t>(LANES) * plan.wide;
  size_t floats = static_cast<size_t>(count) * phase.cols * pixel_floats;
  float* sums = scratch(2, floats);
  std::fill_n(sums, floats, 0.0f);
  static thread_local Lists lists;
  int top = first + phase.min_dy, height = count + phase.max_dy - phase.min_dy;
  int columns = m.partner_w;
  for (int k0 = 0; k0 < m.partner_c && !runs.empty(); k0 += plan.channels) {
    int k1 = std::min(m.partner_c, k0 + plan.channels);
    list_rows(plan, g, block, top, height, k0, k1, lists);
    for (int y = 0; y < count; ++y) {
      for (int x = 0; x < phase.cols; ++x) {
        float* pixel = sums + (static_cast<size_t>(y) * phase.cols + x) * pixel_floats;
        for (const Run& run : runs) {
          int taps = static_cast<int>(run.taps.size());
          int left = std::clamp(x + run.dx, 0, columns);
          int right = std::clamp(x + run.dx + taps, 0, columns);
          int row = first + y + run.dy - top;
          for (int i = 0; i < LANES; ++i) {
            const int64_t* begin =
                lists.begin.data() + (static_cast<size_t>(row) * LANES + i) * (columns + 1);
            int64_t from = begin[left], entries = begin[right] - from;
            if (entries == 0) continue;
            for (int c = 0; c < plan.wide;) {
              auto [walk_run, width] = widest(plan.wide - c);
              walk_run(rows + run.rows + c, plan.wide, taps, x + run.dx,
                       lists.channel.get() + from, lists.column.get() + from,
                       lists.value.get() + from, entries,
                       pixel + static_cast<size_t>(i) * plan.wide + c);
              c += width;
            }
          }
        }
      }
    }
  }
  size_t plane = static_cast<size_t>(m.own_h) * m.own_w * LANES;
  for (int y = 0; y < count; ++y) {
    for (int x = 0; x < phase.cols; ++x) {
      const float* pixel = sums + (static_cast<size_t>(y) * phase.cols + x) * pixel_floats;
      size_t at = static_cast<size_t>(phase.first_y + (first + y) * m.own_step_y) * m.own_w +
                  phase.first_x + x * m.own_step_x;
      float* to = dx + static_cast<size_t>(block) * m.own_c * plane + at * LANES;
      for (int c = 0; c < m.own_c; c += LANES) {
        if (c + LANES <= m.own_c) {
          transpose16(pixel + c, plan.wide, to + c * plane, plane);
          continue;
        }
        for (int j = c; j < m.own_c; ++j)
          for (int i = 0; i < LANES; ++i) to[j * plane + i] = pixel[i * plan.wide + j];
      }
    }
  }
}

}  // namespace

// Blocked sparse gradient of the output, weight [K][C][R][S] -> blocked gradient of the
// input. Returns 0, or -1 if there is not memory enough.
extern "C" int elision_sparse_input_grad(const int* geometry, const float* g, const float* w,
                                         float* dx, int threads) {
  Flushing small;
  try {
    Conv conv;
    std::memcpy(&conv, geometry, sizeof(Conv));
    Plan plan = make_plan(conv);
    static thread_local Room<float> turned;
    turned.reserve(plan.row_floats + LANES);
    float* rows = turned.get();
    turn_weight(conv, plan, w, rows, threads);
    struct Task {
      int block, phase, first, count;
    };
    std::vector<Task> tasks;
    for (int block = 0; block * LANES < conv.n; ++block) {
      for (size_t p = 0; p < plan.meeting.phases.size(); ++p) {
        const Phase& phase = plan.meeting.phases[p];
        int per_row = phase.cols * LANES * plan.wide;
        int band = std::clamp(SUM_FLOATS / per_row, 1, phase.rows);
        for (int y = 0; y < phase.rows; y += band)
          tasks.push_back({block, static_cast<int>(p), y, std::min(band, phase.rows - y)});
      }
    }
    parallel(static_cast<int>(tasks.size()), threads, [&](int task) {
      const Task& t = tasks[task];
      one_band(plan, rows, g, t.block, t.phase, t.first, t.count, dx);
    });
    return 0;
  } catch (const std::bad_alloc&) {
    return -1;
  }
}
