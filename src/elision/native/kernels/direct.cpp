#include "direct.hpp"
#include "flushing.hpp"

#include <utility>
#include <vector>

using namespace elision;

namespace {

// Rows of B that strips meet one after another: 576 KiB of an L2 of 1 MiB (measured: 512
// is slower by a tenth in 3x3 convolutions). Floats that the fills rule counts as near.
constexpr int64_t DEPTH = 2304;
constexpr int64_t NEAR = 96 * 1024;
// Pixels of a gradient that are packed and summed over at a time.
constexpr int64_t DEPTH_PIXELS = 192;
// Rows of C that meet them; a step of packed rows is no power of two, for which all pixels
// would share a few sets of the cache.
constexpr int64_t ROW_BLOCK = 256, LEFT_STEP = ROW_BLOCK + LANES;
// Pixels of one unit of work: a whole number of strips of either height; rows of fewer than
// SHORT are joined with those of other images.
constexpr int UNIT = 96, SHORT = 40;

// Where the columns of a block of C lie: `side` side by side, `step` floats to the next.
struct Columns {
  int count;
  ptrdiff_t side, step;

  ptrdiff_t at(int column) const { return column / side * step + column % side; }
};

// One strip of C: at most wide_rows rows and 64 columns, which may end within a register
// or, in blocks narrower than a register, lie apart.
template <typename F>
void run_strip(int rows, F f, bool add, float* c, ptrdiff_t c_row, const Columns& columns,
               const Post* post) {
  int most = registers_of(BLOCK) * WIDTH;
  for (int column = 0; column < columns.count; column += most) {
    int count = std::min(columns.count - column, most);
    int registers = registers_for(count);
    Post own = post ? post->from(column) : Post{};
    const Post* after = post ? &own : nullptr;
    bool flat = columns.side >= columns.count || columns.side >= registers * WIDTH;
    bool even = columns.side % WIDTH == 0 && (flat || columns.side == WIDTH);
    if (count == registers * WIDTH && (flat || even)) {
      run_registers(registers, rows, f, add, c + columns.at(column), c_row,
                    flat ? WIDTH : columns.step, after);
    } else {
      float part[8 * BLOCK];
      F inside = f;
      auto c_at = [&](int i, int j) {
        ptrdiff_t at = columns.at(column + j);
        if constexpr (F::SCATTERED) return at + f.to[i];
        return at + i * c_row;
      };
      for (int i = 0; i < rows; ++i) {
        if constexpr (F::SCATTERED) inside.to[i] = i * BLOCK;
        for (int j = 0; add && j < count; ++j) part[i * BLOCK + j] = c[c_at(i, j)];
      }
      run_registers(registers, rows, inside, add, part, BLOCK, WIDTH, after);
      for (int i = 0; i < rows; ++i)
        for (int j = 0; j < count; ++j) c[c_at(i, j)] = part[i * BLOCK + j];
    }
    f.skip_columns(most);
  }
}

// One correlation: taps at given places of an input that holds all that they reach.
struct Window {
  Plane in;
  std::vector<int64_t> rows, columns;  // of the taps, in the input, in order of packing
  int64_t live[2];                     // rows of the input that are not all zeros
  int64_t step[2];                     // input pixels from one output pixel to the next
  int64_t images, size[2];             // output pixels
  int64_t channels;                    // of the output
  float* out;
  ptrdiff_t image, row, pixel;         // of the output
  Columns side;                        // of the output's channels; `count` is unused
  const float* packed;                 // [block of 64][depth][64]
  Post post;

  int64_t taps() const { return static_cast<int64_t>(rows.size() * columns.size()); }
  int64_t depth() const { return taps() * in.blocks * in.side; }
};

// The reduction as pieces, cut into chunks whose part of B stays near. Of a row of pixels
// that meets rows of padding, the pieces that would be multiplied by zeros are left out.
struct Chunks {
  std::vector<Piece> pieces;
  std::vector<int> ends;
};

Chunks chunks_of(const Window& w, int64_t row) {
  Chunks made;
  bool whole = w.in.pixel == w.in.side;  // taps side by side are one piece
  for (size_t i = 1; i < w.columns.size(); ++i)
    whole = whole && w.columns[i] == w.columns[i - 1] + 1;
  int64_t runs = whole ? 1 : static_cast<int64_t>(w.columns.size());
  int64_t run = static_cast<int64_t>(w.columns.size()) / runs * w.in.side;
  int64_t depth = w.depth(), parts = ceil_of(depth, DEPTH);
  int64_t most = ceil_of(depth, parts), filled = 0, at = 0;
  for (int block = 0; block < w.in.blocks; ++block)
    for (int64_t tap : w.rows)
      for (int64_t c = 0; c < runs; ++c) {
        ptrdiff_t a = block * w.in.block + tap * w.in.row + w.columns[c] * w.in.pixel;
        int64_t place = row * w.step[0] + tap;
        bool meets = w.live[0] <= place && place < w.live[1];
        for (int64_t left = run; left > 0;) {
          int64_t length = std::min(left, most - filled);
          if (meets)
            made.pieces.push_back({a, static_cast<ptrdiff_t>(at * BLOCK),
                                   static_cast<int>(length)});
          a += length, at += length, filled += length, left -= length;
          if (filled == most) {
            made.ends.push_back(static_cast<int>(made.pieces.size()));
            filled = 0;
          }
        }
      }
  if (filled) made.ends.push_back(static_cast<int>(made.pieces.size()));
  return made;
}

template <bool PAIRS>
void correlate(const Window& given, int threads) {
  Window w = given;
  // Rows that lie one behind the other are one long row.
  if (w.taps() == 1 && w.step[0] == 1 && w.step[1] == 1 &&
      w.in.row == w.size[1] * w.in.pixel && w.row == w.size[1] * w.pixel) {
    w.size[1] *= w.size[0], w.size[0] = 1;
    w.live[0] = w.rows[0], w.live[1] = w.rows[0] + 1;
  }
  int64_t panels = ceil_of(w.channels, BLOCK), depth = w.depth();
  if (depth == 0) {
    // No tap reaches these pixels: what is left is the sum of nothing.
    parallel(static_cast<int>(w.images * w.size[0]), threads, [&](int line) {
      float* to = w.out + line / w.size[0] * w.image + line % w.size[0] * w.row;
      for (int64_t x = 0; x < w.size[1]; ++x)
        for (int64_t c = 0; c < w.channels; ++c)
          to[x * w.pixel + w.side.at(static_cast<int>(c))] = 0.0f;
    });
    return;
  }
  std::vector<Chunks> chunks;
  for (int64_t row = 0; row < w.size[0]; ++row) chunks.push_back(chunks_of(w, row));
  // A unit is a part of one row of pixels of a few images, so that strips are full where
  // rows are short: of `wide` pixels, `segments` units.
  int64_t together = std::clamp<int64_t>(ceil_of(SHORT, w.size[1]), 1, w.images);
  int64_t bundles = ceil_of(w.images, together);
  int64_t segments = ceil_of(together * w.size[1], UNIT);
  int64_t units = bundles * w.size[0] * segments;
  // The fills rule: words that come to the cores with either loop outside. What fits near
  // is filled once.
  int64_t input = w.images * w.size[0] * w.size[1] *
                  std::min(depth, w.in.side * w.in.blocks * w.step[0] * w.step[1]);
  int64_t weights = panels * BLOCK * depth;
  int64_t block = std::clamp<int64_t>(NEAR * units / input, 1, units);
  int64_t outside_pixels = input + (weights <= NEAR ? 1 : ceil_of(units, block)) * weights;
  int64_t outside_panels = (input <= NEAR ? 1 : panels) * input + weights;
  int64_t group = panels;
  if (outside_panels < outside_pixels) group = 1, block = units;
  // Enough tasks for all threads, of nearly equal size.
  int64_t groups = ceil_of(panels, group), wanted = threads > 1 ? 4 * threads : 1;
  if (groups * ceil_of(units, block) < wanted)
    block = std::max<int64_t>(1, units / ceil_of(wanted, groups));
  int64_t blocks = ceil_of(units, block);
  block = ceil_of(units, blocks);
  bool any = w.post.scale || w.post.shift || w.post.relu;
  parallel(static_cast<int>(groups * blocks), threads, [&](int task) {
    int64_t begin = task % blocks * block, end = std::min(units, begin + block);
    int64_t low = task / blocks * group, high = std::min(panels, low + group);
    for (int64_t panel = low; panel < high; ++panel) {
      Columns columns = w.side;
      columns.count = static_cast<int>(std::min<int64_t>(BLOCK, w.channels - panel * BLOCK));
      float* c = w.out + w.side.at(static_cast<int>(panel * BLOCK));
      Post post = w.post.from(static_cast<int>(panel * BLOCK));
      size_t parts = chunks[0].ends.size();
      for (size_t part = 0; part < parts; ++part) {
        const Post* after = part + 1 == parts && any ? &post : nullptr;
        for (int64_t unit = begin; unit < end; ++unit) {
          int64_t segment = unit % segments, line = unit / segments;
          int64_t row = line % w.size[0], image = line / w.size[0] * together;
          int64_t wide = std::min(together, w.images - image) * w.size[1];
          const Chunks& own = chunks[row];
          int first = part ? own.ends[part - 1] : 0;
          Pixels<PAIRS> f{w.in.at + image * w.in.image + row * w.step[0] * w.in.row,
                   w.packed + panel * depth * BLOCK, own.pieces.data() + first,
                   own.ends[part] - first, {}, {}};
          in_rows(static_cast<int>(wide * segment / segments),
                  static_cast<int>(wide * (segment + 1) / segments),
                  most_rows(columns.count), [&](int at, int rows) {
            int64_t n = at / w.size[1], x = at % w.size[1];
            for (int i = 0; i < rows; ++i) {
              f.from[i] = n * w.in.image + x * w.step[1] * w.in.pixel;
              f.to[i] = n * w.image + x * w.pixel;
              if (++x == w.size[1]) ++n, x = 0;
            }
            run_strip(rows, f, part > 0, c + image * w.image + row * w.row, 0, columns,
                      after);
          });
        }
      }
    }
  });
}

// For the input gradient: blocks of 64 input channels, [channel block of K][row][column][K]
// [64], of the taps named, in their order.
Memory packed_backward(const DirectShape& v, const float* w, const std::vector<int>& rows,
                       const std::vector<int>& columns, int threads) {
  int64_t taps = v.taps[0] * v.taps[1], own = static_cast<int64_t>(rows.size()) *
                                              static_cast<int64_t>(columns.size());
  int64_t panels = ceil_of(v.c, BLOCK), depth = v.k * own;
  Memory packed(PACKED, static_cast<size_t>(panels * depth * BLOCK));
  parallel(static_cast<int>(panels), threads, [&](int panel) {
    float* to = packed.get() + panel * depth * BLOCK;
    int64_t live = std::min<int64_t>(BLOCK, v.c - panel * BLOCK);
    for (int64_t k = 0; k < v.k; ++k) {
      const float* from = w + (k * v.c + panel * BLOCK) * taps;
      int64_t tap = 0;
      for (int r : rows)
        for (int s : columns) {
          float* at = to + ((k / v.k_block * own + tap++) * v.k_block + k % v.k_block) *
                               BLOCK;
          const float* one = from + r * v.taps[1] + s;
          if (taps == 1)
            std::copy_n(one, live, at);
          else
            for (int64_t c = 0; c < live; ++c) at[c] = one[c * taps];
          std::fill(at + live, at + BLOCK, 0.0f);
        }
    }
  });
  return packed;
}

template <bool PAIRS>
void forward(const DirectShape& v, const float* x, const float* w, float* y,
             const Post& post, int threads) {
  Memory packed = packed_forward(v, w, threads);
  int64_t size[2] = {v.height, v.width}, low[2], high[2];
  std::vector<int64_t> at[2];
  for (int axis = 0; axis < 2; ++axis) {
    low[axis] = -v.padding[axis];
    high[axis] = low[axis] + (v.out(axis) - 1) * v.stride[axis] +
                 v.dilation[axis] * (v.taps[axis] - 1) + 1;
    for (int64_t tap = 0; tap < v.taps[axis]; ++tap)
      at[axis].push_back(tap * v.dilation[axis]);
  }
  Padded padded(Plane(x, v.c, v.c_block, v.height, v.width), v.images, size, low, high,
                threads);
  Plane out(y, v.k, v.k_block, v.out(0), v.out(1));
  correlate<PAIRS>({padded.plane(), at[0], at[1], {-low[0], v.height - low[0]}, {v.stride[0], v.stride[1]}, v.images,
             {v.out(0), v.out(1)}, v.k, y, out.image, out.row, out.pixel,
             {0, out.side, out.block}, packed.get(), post},
            threads);
}

// Pixels of the input with one remainder modulo the stride: the taps that they meet, in
// order of the output pixels, and where those are for the first pixel.
struct Phase {
  std::vector<int> taps;
  std::vector<int64_t> places;
  int64_t count;
};

Phase phase_of(const DirectShape& v, int axis, int64_t phase) {
  Phase made;
  made.count = phase < v.in(axis) ? ceil_of(v.in(axis) - phase, v.stride[axis]) : 0;
  for (int64_t tap = v.taps[axis] - 1; tap >= 0; --tap) {
    int64_t at = phase + v.padding[axis] - tap * v.dilation[axis];
    if (at % v.stride[axis]) continue;
    made.taps.push_back(static_cast<int>(tap));
    made.places.push_back(at / v.stride[axis]);
  }
  return made;
}

template <bool PAIRS>
void input_grad(const DirectShape& v, const float* g, const float* w, float* dx,
                int threads) {
  std::vector<Phase> phases[2];
  int64_t size[2] = {v.out(0), v.out(1)}, low[2] = {0, 0}, high[2] = {1, 1};
  for (int axis = 0; axis < 2; ++axis)
    for (int64_t p = 0; p < std::min(v.stride[axis], v.in(axis)); ++p) {
      Phase phase = phase_of(v, axis, p);
      for (int64_t place : phase.places) {
        low[axis] = std::min(low[axis], place);
        high[axis] = std::max(high[axis], place + phase.count);
      }
      phases[axis].push_back(std::move(phase));
    }
  Padded padded(Plane(g, v.k, v.k_block, size[0], size[1]), v.images, size, low, high,
                threads);
  Plane out(dx, v.c, v.c_block, v.height, v.width);
  for (size_t p = 0; p < phases[0].size(); ++p)
    for (size_t q = 0; q < phases[1].size(); ++q) {
      const Phase &rows = phases[0][p], &columns = phases[1][q];
      Memory packed = packed_backward(v, w, rows.taps, columns.taps, threads);
      std::vector<int64_t> at[2] = {rows.places, columns.places};
      for (int axis = 0; axis < 2; ++axis)
        for (int64_t& place : at[axis]) place -= low[axis];
      correlate<PAIRS>({padded.plane(), at[0], at[1], {-low[0], size[0] - low[0]}, {1, 1}, v.images,
                 {rows.count, columns.count}, v.c,
                 dx + p * out.row + q * out.pixel, out.image,
                 static_cast<ptrdiff_t>(out.row * v.stride[0]),
                 static_cast<ptrdiff_t>(out.pixel * v.stride[1]),
                 {0, out.side, out.block}, packed.get(), {}},
                threads);
    }
}

// dW, the reduction over pixels: C = Σ Aᵀ · B with A's channels as rows, B's as columns.
struct Reduction {
  Plane rows, columns;   // the operands
  int64_t step[2];       // pixels of `rows` from one pixel of `columns` to the next
  int64_t images, size[2];
  int64_t height, width;  // of C
  std::vector<std::pair<int64_t, int64_t>> taps;  // float offset in `rows`, in C
  float* c;
  ptrdiff_t c_row, c_panel;  // from a row to the next, from a block of 64 to the next
};

// Channels [low, high) of `count` pixels, `step` apart, as rows of `to_row` floats.
void pack(const Plane& plane, ptrdiff_t at, int64_t step, int count, int64_t low,
          int64_t high, float* to, ptrdiff_t to_row) {
  for (int64_t channel = low; channel < high;) {  // blocks of channels side by side
    int64_t inside = channel % plane.side;
    int64_t length = std::min(high - channel, plane.side - inside);
    const float* from = plane.at + at + channel / plane.side * plane.block + inside;
    for (int x = 0; x < count; ++x)
      std::copy_n(from + x * step * plane.pixel, length, to + x * to_row + (channel - low));
    channel += length;
  }
}

template <bool PAIRS>
void reduce(const Reduction& given, int threads) {
  Reduction w = given;
  if (w.step[0] == 1 && w.step[1] == 1 && w.taps.size() == 1 &&
      w.rows.row == w.size[1] * w.rows.pixel) {
    w.size[1] *= w.size[0], w.size[0] = 1;
    if (w.rows.image == w.size[1] * w.rows.pixel && w.rows.blocks == 1 &&
        w.columns.blocks == 1)
      w.size[1] *= w.images, w.images = 1;
  }
  // Segments of pixels that lie one step apart, at most a block's depth each.
  struct Segment {
    ptrdiff_t a, b;
    int length;
  };
  std::vector<Segment> segments;
  for (int64_t image = 0; image < w.images; ++image)
    for (int64_t row = 0; row < w.size[0]; ++row) {
      int64_t parts = ceil_of(w.size[1], DEPTH_PIXELS);
      for (int64_t part = 0; part < parts; ++part) {
        int64_t x = w.size[1] * part / parts, end = w.size[1] * (part + 1) / parts;
        segments.push_back({image * w.rows.image + row * w.step[0] * w.rows.row +
                                x * w.step[1] * w.rows.pixel,
                            image * w.columns.image + row * w.columns.row +
                                x * w.columns.pixel,
                            static_cast<int>(end - x)});
      }
    }
  // Blocks of segments, and where each lies in what is packed.
  std::vector<Piece> pieces;
  std::vector<size_t> ends;
  for (size_t i = 0, filled = 0; i < segments.size(); ++i) {
    if (filled && filled + segments[i].length > DEPTH_PIXELS) ends.push_back(i), filled = 0;
    pieces.push_back({segments[i].a, static_cast<ptrdiff_t>(filled), segments[i].length});
    filled += segments[i].length;
  }
  ends.push_back(segments.size());
  // With one tap every value of A meets the columns once, from far apart; it is packed.
  bool packs = w.taps.size() == 1;
  int64_t panels = ceil_of(w.width, BLOCK), groups = 1, splits = 1;
  if (threads > 1) {
    groups = std::min<int64_t>(panels, 4 * threads);
    splits = std::clamp<int64_t>(2 * threads / panels, 1, ceil_of(w.height, 8));
  }
  parallel(static_cast<int>(groups * splits), threads, [&](int task) {
    int64_t group = task / splits, split = task % splits;
    int64_t first_panel = panels * group / groups, last_panel = panels * (group + 1) / groups;
    int64_t low = w.height * split / splits, high = w.height * (split + 1) / splits;
    // What is packed of B, and of A.
    float* right = scratch(0, (DEPTH_PIXELS + 1) * (BLOCK + ROW_BLOCK + LANES));
    float* left = right + (DEPTH_PIXELS + 1) * BLOCK;
    std::vector<Piece> own;
    for (int64_t begin = low, end; begin < high; begin = end) {
      end = std::min(high, begin + ROW_BLOCK);
      for (size_t block = 0, first = 0; block < ends.size(); first = ends[block++]) {
        own.assign(pieces.begin() + first, pieces.begin() + ends[block]);
        if (packs)
          for (size_t i = 0; i < own.size(); ++i) {
            pack(w.rows, segments[first + i].a + w.taps[0].first, w.step[1],
                 segments[first + i].length, begin, end, left + own[i].b * LEFT_STEP,
                 LEFT_STEP);
            own[i].a = own[i].b * LEFT_STEP;
          }
        for (Piece& piece : own) piece.b *= BLOCK;
        for (int64_t panel = first_panel; panel < last_panel; ++panel) {
          int64_t column = panel * BLOCK, last = std::min(w.width, column + BLOCK);
          int live = static_cast<int>(last - column);
          for (size_t i = 0; i < own.size(); ++i) {
            float* to = right + own[i].b;
            pack(w.columns, segments[first + i].b, 1, own[i].length, column, last, to,
                 BLOCK);
            for (int x = 0; live < BLOCK && x < own[i].length; ++x)
              std::fill(to + x * BLOCK + live, to + (x + 1) * BLOCK, 0.0f);
          }
          Columns side{live, BLOCK, 0};
          for (auto [offset, at] : w.taps) {
            float* c = w.c + at + panel * w.c_panel;
            for (int64_t from = begin, to; from < end; from = to) {
              to = packs ? end : std::min(end, from / w.rows.side * w.rows.side + w.rows.side);
              const float* a = packs ? left
                                     : w.rows.at + offset + from / w.rows.side * w.rows.block +
                                           from % w.rows.side;
              ptrdiff_t step = packs ? LEFT_STEP : w.step[1] * w.rows.pixel;
              in_rows(0, static_cast<int>(to - from), most_rows(live), [&](int row, int count) {
                Channels<PAIRS> f{a + row, right, step, own.data(), static_cast<int>(own.size())};
                run_strip(count, f, block > 0, c + (from + row) * w.c_row, w.c_row, side,
                          nullptr);
              });
            }
          }
        }
      }
    }
  });
}

template <bool PAIRS>
void weight_grad(const DirectShape& v, const float* g, const float* x, float* dw,
                 int threads) {
  int64_t size[2] = {v.height, v.width}, low[2], high[2];
  for (int axis = 0; axis < 2; ++axis) {
    low[axis] = -v.padding[axis];
    high[axis] = low[axis] + (v.out(axis) - 1) * v.stride[axis] +
                 v.dilation[axis] * (v.taps[axis] - 1) + 1;
  }
  Padded padded(Plane(x, v.c, v.c_block, v.height, v.width), v.images, size, low, high,
                threads);
  const Plane& in = padded.plane();
  Plane out(g, v.k, v.k_block, v.out(0), v.out(1));
  int64_t taps = v.taps[0] * v.taps[1];
  if (taps == 1 && v.stride[0] == 1 && v.stride[1] == 1) {  // dW[K][C] as it comes
    reduce<PAIRS>({out, in, {1, 1}, v.images, {v.out(0), v.out(1)}, v.k, v.c, {{0, 0}}, dw,
            static_cast<ptrdiff_t>(v.c), BLOCK},
           threads);
    return;
  }
  // [block of K][tap][C][64], turned round at the end.
  int64_t panels = ceil_of(v.k, BLOCK);
  Memory made(MADE, static_cast<size_t>(panels * taps * v.c * BLOCK));
  std::vector<std::pair<int64_t, int64_t>> places;
  for (int64_t r = 0; r < v.taps[0]; ++r)
    for (int64_t s = 0; s < v.taps[1]; ++s)
      places.push_back({r * v.dilation[0] * in.row + s * v.dilation[1] * in.pixel,
                        (r * v.taps[1] + s) * v.c * BLOCK});
  reduce<PAIRS>({in, out, {v.stride[0], v.stride[1]}, v.images, {v.out(0), v.out(1)}, v.c, v.k,
          places, made.get(), BLOCK, static_cast<ptrdiff_t>(taps * v.c * BLOCK)},
         threads);
  parallel(static_cast<int>(panels), threads, [&](int panel) {
    const float* from = made.get() + panel * taps * v.c * BLOCK;
    int64_t live = std::min<int64_t>(BLOCK, v.k - panel * BLOCK);
    for (int64_t k = 0; k < live; k += 16)
      for (int64_t c = 0; c < v.c; c += 16)
        for (int64_t tap = 0; tap < taps; ++tap) {
          const float* square = from + (tap * v.c + c) * BLOCK + k;
          float turned[16 * 16];
          int64_t across = std::min<int64_t>(16, v.c - c), down = std::min<int64_t>(16, live - k);
          if (across == 16) {
            transpose16(square, BLOCK, turned, 16);
          } else {
            for (int64_t i = 0; i < down; ++i)
              for (int64_t j = 0; j < across; ++j)
                turned[16 * i + j] = square[j * BLOCK + i];
          }
          float* to = dw + ((panel * BLOCK + k) * v.c + c) * taps + tap;
          for (int64_t i = 0; i < down; ++i)
            for (int64_t j = 0; j < across; ++j)
              to[(i * v.c + j) * taps] = turned[16 * i + j];
        }
  });
}

}  // namespace

extern "C" {

// With `pairs`, each word of both operands is two values of bfloat16 that lie side by side
// along what is summed over: channels of the input (forward), of the output (input
// gradient), or images (weight gradient); the shape counts words. Sums are floats.
// `scale` and `shift` are null or have as many floats as K rounded up to 64.
int elision_multiplies_pairs() { return multiplies_pairs(); }

int elision_direct_forward(const int64_t* shape, int pairs, const float* x, const float* w,
                           const float* scale, const float* shift, int relu, float* y,
                           int threads) {
  Flushing small;
  const auto& v = *reinterpret_cast<const DirectShape*>(shape);
  auto work = pairs ? forward<true> : forward<false>;
  return guarded([&] { work(v, x, w, y, {scale, shift, relu != 0}, threads); });
}

int elision_direct_input_grad(const int64_t* shape, int pairs, const float* g, const float* w,
                              float* dx, int threads) {
  Flushing small;
  const auto& v = *reinterpret_cast<const DirectShape*>(shape);
  auto work = pairs ? input_grad<true> : input_grad<false>;
  return guarded([&] { work(v, g, w, dx, threads); });
}

int elision_direct_weight_grad(const int64_t* shape, int pairs, const float* g, const float* x,
                               float* dw, int threads) {
  Flushing small;
  const auto& v = *reinterpret_cast<const DirectShape*>(shape);
  auto work = pairs ? weight_grad<true> : weight_grad<false>;
  return guarded([&] { work(v, g, x, dw, threads); });
}

}  // extern "C"
