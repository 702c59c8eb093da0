// The recurrent kernels over small random shapes: dense weights against plain loops, sparse
// ones against dense ones. Part of native_driver.cpp.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "sparse_recurrent.hpp"

using elision::Layer;
using elision::Lists;
using elision::SparseLayer;
using Values = std::vector<float>;

extern "C" {
int elision_lstm_forward(const Layer*);
int elision_lstm_backward(const Layer*);
int elision_gru_forward(const Layer*);
int elision_gru_backward(const Layer*);
int elision_sparse_lstm_forward(const SparseLayer*);
int elision_sparse_lstm_backward(const SparseLayer*);
int elision_sparse_gru_forward(const SparseLayer*);
int elision_sparse_gru_backward(const SparseLayer*);
}

static std::mt19937 engine(1);
static int failures = 0;

static int pick(int low, int high) {
  return std::uniform_int_distribution<int>(low, high)(engine);
}
static Values random_values(size_t n) {
  std::uniform_real_distribution<float> values(-1, 1);
  Values x(n);
  for (float& v : x) v = values(engine);
  return x;
}
static void compare(const char* name, const Values& found, const Values& expected) {
  for (size_t i = 0; i < found.size(); ++i)
    if (!(std::fabs(found[i] - expected[i]) <= 2e-4f)) {
      std::printf("%s: %g instead of %g at %zu\n", name, found[i], expected[i], i);
      ++failures;
      return;
    }
}
static float sigmoid_of(float x) { return 1 / (1 + std::exp(-x)); }

// The weights that are not zero; `shift` as of the state's lists of a GRU.
struct Kept {
  std::vector<int32_t> row_start{0}, row_place, column_start{0}, column_place;
  Values rows, columns;
  Lists lists;

  Kept(const Values& w, int height, int width, int shift_from, int units) {
    for (int r = 0; r < height; ++r) {
      for (int c = 0; c < width; ++c)
        if (w[r * width + c] != 0) row_place.push_back(c), rows.push_back(w[r * width + c]);
      row_start.push_back(static_cast<int32_t>(rows.size()));
    }
    for (int c = 0; c < width; ++c) {
      for (int r = 0; r < height; ++r)
        if (w[r * width + c] != 0) {
          column_place.push_back(r >= shift_from ? r + units : r);
          columns.push_back(w[r * width + c]);
        }
      column_start.push_back(static_cast<int32_t>(columns.size()));
    }
    lists = {height,           width,         row_start.data(), row_place.data(),
             column_start.data(), column_place.data(), rows.data(),   columns.data()};
  }
};

static void layer(bool lstm, bool reverse) {
  int steps = pick(1, 5), inputs = pick(1, 40), units = pick(1, 40), gates = lstm ? 4 : 3;
  std::vector<int64_t> sizes{pick(1, 40)};
  for (int t = 1; t < steps; ++t) sizes.push_back(pick(1, static_cast<int>(sizes.back())));
  int tokens = 0, sequences = static_cast<int>(sizes[0]);
  std::vector<int> first;
  for (int64_t size : sizes) first.push_back(tokens), tokens += static_cast<int>(size);
  size_t state = static_cast<size_t>(sequences) * units;
  Values x = random_values(static_cast<size_t>(tokens) * inputs);
  Values w_ih = random_values(static_cast<size_t>(gates) * units * inputs);
  Values w_hh = random_values(static_cast<size_t>(gates) * units * units);
  for (Values* w : {&w_ih, &w_hh})
    for (float& v : *w) v = pick(0, 2) == 0 ? 0.3f * v : 0;
  Values b_ih = random_values(gates * units), b_hh = random_values(gates * units);
  Values h0 = random_values(state), c0 = random_values(state);
  if (pick(0, 2) == 0) std::fill(h0.begin(), h0.end(), 0.0f);
  Values dy = random_values(static_cast<size_t>(tokens) * units);
  Values dhn = random_values(state), dcn = random_values(state);

  struct Run {
    Values y, hn, cn, dh, dc, dx, dw_ih, dw_hh, db_ih, db_hh;
  };
  auto fresh = [&] {
    return Run{Values(dy.size()), Values(state), Values(state), dhn, dcn, Values(x.size()),
               Values(w_ih.size()), Values(w_hh.size()), Values(b_ih.size()),
               Values(b_hh.size())};
  };
  auto layer_of = [&](Run& run) {
    Layer v{};
    v.steps = steps, v.inputs = inputs, v.units = units, v.reverse = reverse;
    v.threads = pick(1, 3), v.wants_first = true;
    v.sizes = sizes.data(), v.x = x.data(), v.w_ih = w_ih.data(), v.w_hh = w_hh.data();
    v.b_ih = b_ih.data(), v.b_hh = b_hh.data(), v.h0 = h0.data();
    v.c0 = lstm ? c0.data() : nullptr;
    v.y = run.y.data(), v.hn = run.hn.data(), v.cn = lstm ? run.cn.data() : nullptr;
    v.dy = dy.data(), v.dh = run.dh.data(), v.dc = lstm ? run.dc.data() : nullptr;
    v.dx = run.dx.data(), v.dw_ih = run.dw_ih.data(), v.dw_hh = run.dw_hh.data();
    v.db_ih = run.db_ih.data(), v.db_hh = run.db_hh.data();
    return v;
  };

  Run dense = fresh(), sparse = fresh();
  size_t blocks = (units + 15) / 16;
  Values pre(blocks * tokens * 64), cells(blocks * (tokens + sequences) * 16);
  Layer v = layer_of(dense);
  v.gates = pre.data(), v.cells = lstm ? cells.data() : nullptr;
  (lstm ? elision_lstm_forward : elision_gru_forward)(&v);

  Values expected(dy.size());
  for (int n = 0; n < sequences; ++n) {
    Values h(&h0[n * units], &h0[n * units] + units), c(&c0[n * units], &c0[n * units] + units);
    for (int s = 0; s < steps; ++s) {
      int t = reverse ? steps - 1 - s : s;
      if (n >= sizes[t]) continue;
      Values a(gates * units), b(gates * units), before = h;
      for (int r = 0; r < gates * units; ++r) {
        a[r] = b_ih[r], b[r] = b_hh[r];
        for (int i = 0; i < inputs; ++i)
          a[r] += w_ih[r * inputs + i] * x[(first[t] + n) * inputs + i];
        for (int i = 0; i < units; ++i) b[r] += w_hh[r * units + i] * before[i];
      }
      for (int u = 0; u < units; ++u) {
        auto sum = [&](int gate) { return a[gate * units + u] + b[gate * units + u]; };
        if (lstm) {
          c[u] = sigmoid_of(sum(1)) * c[u] + sigmoid_of(sum(0)) * std::tanh(sum(2));
          h[u] = sigmoid_of(sum(3)) * std::tanh(c[u]);
        } else {
          float z = sigmoid_of(sum(1));
          float made = std::tanh(a[2 * units + u] + sigmoid_of(sum(0)) * b[2 * units + u]);
          h[u] = (1 - z) * made + z * before[u];
        }
        expected[(first[t] + n) * units + u] = h[u];
      }
    }
  }
  compare("recurrent outputs", dense.y, expected);
  (lstm ? elision_lstm_backward : elision_gru_backward)(&v);

  int64_t lanes = 16 << pick(0, 2);
  size_t groups = (sequences + lanes - 1) / lanes, rows = groups * lanes;
  Kept input(w_ih, gates * units, inputs, 4 * units, units);
  Kept hidden(w_hh, gates * units, units, lstm ? 4 * units : 2 * units, units);
  Values xs(steps * rows * inputs), all(steps * rows * 4 * units);
  Values states((steps + 1) * rows * units), kept(lstm ? states.size() : 0);
  Values dw_input(input.rows.size()), dw_hidden(hidden.rows.size());
  Layer w = layer_of(sparse);
  SparseLayer lists{&w,        &input.lists, &hidden.lists, lanes,           xs.data(),
                    all.data(), states.data(), kept.data(),   dw_input.data(), dw_hidden.data()};
  (lstm ? elision_sparse_lstm_forward : elision_sparse_gru_forward)(&lists);
  (lstm ? elision_sparse_lstm_backward : elision_sparse_gru_backward)(&lists);
  compare("sparse outputs", sparse.y, dense.y);
  compare("sparse last states", sparse.hn, dense.hn);
  compare("sparse last cells", sparse.cn, dense.cn);
  compare("sparse dx", sparse.dx, dense.dx);
  compare("sparse dh", sparse.dh, dense.dh);
  compare("sparse dc", sparse.dc, dense.dc);
  compare("sparse biases", sparse.db_ih, dense.db_ih);
  compare("sparse biases of the state", sparse.db_hh, dense.db_hh);
  auto taken = [](const Values& gradient, const Values& weight) {
    Values found;
    for (size_t i = 0; i < weight.size(); ++i)
      if (weight[i] != 0) found.push_back(gradient[i]);
    return found;
  };
  compare("sparse weights", dw_input, taken(dense.dw_ih, w_ih));
  compare("sparse weights of the state", dw_hidden, taken(dense.dw_hh, w_hh));
}

int recurrent_failures() {
  for (int i = 0; i < 24; ++i) layer(i % 2 == 0, i / 2 % 2 == 0);
  return failures;
}
