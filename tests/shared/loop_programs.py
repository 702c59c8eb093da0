"""Programs that the tests of the room verify, and wrong versions of them."""

MATMUL = """
for i in range(M):
    for j in range(N):
        C[i, j] = 0
        for k in range(K):
            C[i, j] += A[i, k] * B[k, j]
"""

INTERCHANGED = """
for (int i = 0; i < M; ++i)
  for (int j = 0; j < N; ++j)
    C[i][j] = 0;
for (int k = 0; k < K; ++k)
  for (int j = 0; j < N; ++j)
    for (int i = 0; i < M; ++i)
      C[i][j] = C[i][j] + B[k][j] * A[i][k];
"""

TILED = """
for (int i = 0; i < M; ++i)
  for (int j = 0; j < N; ++j)
    C[i][j] = 0;
for (int io = 0; io < M; io += 4)
  for (int jo = 0; jo < N; jo += 4)
    for (int ko = 0; ko < K; ko += 8)
      for (int ii = 0; ii < 4; ++ii)
        for (int jj = 0; jj < 4; ++jj)
          for (int kk = 0; kk < 8; ++kk) {
            int i = io + ii, j = jo + jj, k = ko + kk;
            if (i < M && j < N && k < K)
              C[i][j] += A[i][k] * B[k][j];
          }
"""

#: W stays: elements (k, n), time m + n + k.
WEIGHT_STATIONARY = """
for i in range(M):
    for n in range(N):
        C[i, n] = 0
for t in range(M + N + K - 2):
    for k in range(K):
        for n in range(N):
            m = t - k - n
            if 0 <= m < M:
                C[m, n] += A[m, k] * B[k, n]
"""

#: All three move: elements (i + k, j + k), whose projection vector is (1, 1, -1).
HEXAGONAL = """
for i in range(M):
    for j in range(N):
        C[i, j] = 0
for t in range(M + N + K - 2):
    for x in range(M + K - 1):
        for y in range(N + K - 1):
            k = x + y - t
            i = x - k
            j = y - k
            if 0 <= i < M and 0 <= j < N and 0 <= k < K:
                C[i, j] += A[i, k] * B[k, j]
"""

#: A moves along j, B along i, the sums stay: every value is handed on.
RECURRENCES = """
for i in range(M):
    for j in range(N):
        for k in range(K):
            if j == 0:
                X[i, j, k] = A[i, k]
            if j > 0:
                X[i, j, k] = X[i, j - 1, k]
            if i == 0:
                Y[i, j, k] = B[k, j]
            if i > 0:
                Y[i, j, k] = Y[i - 1, j, k]
            if k == 0:
                Z[i, j, k] = X[i, j, k] * Y[i, j, k]
            if k > 0:
                Z[i, j, k] = Z[i, j, k - 1] + X[i, j, k] * Y[i, j, k]
            if k == K - 1:
                C[i, j] = Z[i, j, k]
"""

#: A direct convolution of stride 2 as it is defined.
DIRECT = """
for (int n = 0; n < N; ++n)
  for (int k = 0; k < K; ++k)
    for (int p = 0; p < P; ++p)
      for (int q = 0; q < Q; ++q) {
        O[n][k][p][q] = 0;
        for (int c = 0; c < C; ++c)
          for (int r = 0; r < R; ++r)
            for (int s = 0; s < S; ++s)
              O[n][k][p][q] += I[n][c][2 * p + r][2 * q + s] * W[k][c][r][s];
      }
"""

#: The same over channels in blocks of the vector's length.
CHANNEL_BLOCKED = """
#define VLEN 4
assume(K % VLEN == 0);
assume(C % VLEN == 0);
for (int n = 0; n < N; ++n)
  for (int k = 0; k < K; ++k)
    for (int p = 0; p < P; ++p)
      for (int q = 0; q < Q; ++q)
        O[n][k][p][q] = 0;
for (int n = 0; n < N; ++n)
  for (int kb = 0; kb < K / VLEN; ++kb)
    for (int cb = 0; cb < C / VLEN; ++cb)
      for (int oj = 0; oj < P; ++oj)
        for (int oi = 0; oi < Q; ++oi)
          for (int r = 0; r < R; ++r)
            for (int s = 0; s < S; ++s)
              for (int k = 0; k < VLEN; ++k)
                for (int c = 0; c < VLEN; ++c)
                  O[n][kb * VLEN + k][oj][oi] +=
                      I[n][cb * VLEN + c][2 * oj + r][2 * oi + s]
                    * W[kb * VLEN + k][cb * VLEN + c][r][s];
"""

#: The same with the tensors laid out in such blocks: packed before, unpacked after.
LAID_OUT = """
#define VLEN 4
assume(K % VLEN == 0);
assume(C % VLEN == 0);
for (int n = 0; n < N; ++n)
  for (int cb = 0; cb < C / VLEN; ++cb)
    for (int h = 0; h < 2 * (P - 1) + R; ++h)
      for (int w = 0; w < 2 * (Q - 1) + S; ++w)
        for (int c = 0; c < VLEN; ++c)
          Ib[n][cb][h][w][c] = I[n][cb * VLEN + c][h][w];
for (int kb = 0; kb < K / VLEN; ++kb)
  for (int cb = 0; cb < C / VLEN; ++cb)
    for (int r = 0; r < R; ++r)
      for (int s = 0; s < S; ++s)
        for (int c = 0; c < VLEN; ++c)
          for (int k = 0; k < VLEN; ++k)
            Wb[kb][cb][r][s][c][k] = W[kb * VLEN + k][cb * VLEN + c][r][s];
for (int n = 0; n < N; ++n)
  for (int kb = 0; kb < K / VLEN; ++kb)
    for (int oj = 0; oj < P; ++oj)
      for (int oi = 0; oi < Q; ++oi)
        for (int k = 0; k < VLEN; ++k)
          Ob[n][kb][oj][oi][k] = 0;
for (int n = 0; n < N; ++n)
  for (int kb = 0; kb < K / VLEN; ++kb)
    for (int cb = 0; cb < C / VLEN; ++cb)
      for (int oj = 0; oj < P; ++oj)
        for (int oi = 0; oi < Q; ++oi)
          for (int r = 0; r < R; ++r)
            for (int s = 0; s < S; ++s)
              for (int k = 0; k < VLEN; ++k)
                for (int c = 0; c < VLEN; ++c)
                  Ob[n][kb][oj][oi][k] +=
                      Ib[n][cb][2 * oj + r][2 * oi + s][c] * Wb[kb][cb][r][s][c][k];
for (int n = 0; n < N; ++n)
  for (int k = 0; k < K; ++k)
    for (int p = 0; p < P; ++p)
      for (int q = 0; q < Q; ++q)
        O[n][k][p][q] = Ob[n][k / VLEN][p][q][k % VLEN];
"""

#: And with blocks of output pixels that stay in registers.
REGISTER_BLOCKED = """
#define VLEN 4
#define RBP 2
#define RBQ 3
for (int n = 0; n < N; ++n)
  for (int k = 0; k < K; ++k)
    for (int p = 0; p < P; ++p)
      for (int q = 0; q < Q; ++q)
        O[n][k][p][q] = 0;
for (int n = 0; n < N; ++n)
  for (int kb = 0; kb < K; kb += VLEN)
    for (int cb = 0; cb < C; cb += VLEN)
      for (int oj = 0; oj < P; oj += RBP)
        for (int oi = 0; oi < Q; oi += RBQ)
          for (int r = 0; r < R; ++r)
            for (int s = 0; s < S; ++s)
              for (int p = 0; p < RBP; ++p)
                for (int q = 0; q < RBQ; ++q)
                  for (int k = 0; k < VLEN; ++k)
                    for (int c = 0; c < VLEN; ++c)
                      if (oj + p < P && oi + q < Q && kb + k < K && cb + c < C)
                        O[n][kb + k][oj + p][oi + q] +=
                            I[n][cb + c][2 * (oj + p) + r][2 * (oi + q) + s]
                          * W[kb + k][cb + c][r][s];
"""

#: dX of a layer of stride T and padding 1, as products are scattered.
SCATTERED = """
assume H >= 3
for h in range(H):
    X[h] = 0
for p in range((H + 2 - 3) // T + 1):
    for r in range(3):
        h = T * p + r - 1
        if 0 <= h < H:
            X[h] += G[p] * W[r]
"""

#: The same as a convolution of the dilated G with the rotated filter.
GATHERED = """
for h in range(H):
    X[h] = 0
    for u in range(3):
        a = h + u - 1
        if a % T == 0 and 0 <= a // T <= (H - 1) // T:
            X[h] += G[a // T] * W[2 - u]
"""

#: Memory is read one period before the values are used.
DOUBLE_BUFFER = """
for t in range(T + 1):
    for x in range(X):
        if t < T:
            half[t % 2, x] = A[t, x]
        if t >= 1:
            C[t - 1, x] = half[(t - 1) % 2, x]
"""

COPY = """
for t in range(T):
    for x in range(X):
        C[t, x] = A[t, x]
"""

#: relu(x·W + b), the function applied behind the last block of channels.
FUSED = """
for i in range(M):
    Y[i] = 0
for cb in range(Cb):
    for i in range(M):
        for c in range(4):
            Y[i] += X[4 * cb + c] * W[i, 4 * cb + c]
        if cb == Cb - 1:
            Y[i] = relu(Y[i] + b[i])
"""

UNFUSED = """
for i in range(M):
    acc = 0
    for c in range(4 * Cb):
        acc += X[c] * W[i, c]
    Y[i] = relu(acc + b[i])
"""


def convolution(taps: int, stride: int, dilation: int, padding: int) -> str:
    """A 2-D convolution; P and Q follow from H and V, the image's rows and columns."""
    span = dilation * (taps - 1) + 1
    return f"""
assume H + {2 * padding} >= {span} and V + {2 * padding} >= {span}
assume P == (H + {2 * padding - span}) // {stride} + 1
assume Q == (V + {2 * padding - span}) // {stride} + 1
for n in range(N):
    for k in range(K):
        for p in range(P):
            for q in range(Q):
                Y[n, k, p, q] = 0
                for c in range(C):
                    for r in range({taps}):
                        for s in range({taps}):
                            h = {stride} * p + {dilation} * r - {padding}
                            v = {stride} * q + {dilation} * s - {padding}
                            if 0 <= h < H and 0 <= v < V:
                                Y[n, k, p, q] += X[n, c, h, v] * W[k, c, r, s]
"""


def blocked(taps: int, stride: int, dilation: int, padding: int) -> str:
    """The same in blocks of 16 channels, 16 filters and 7 pixels."""
    return f"""
for n in range(N):
    for k in range(K):
        for p in range(P):
            for q in range(Q):
                Y[n, k, p, q] = 0
for n in range(N):
    for kb in range(0, K, 16):
        for cb in range(0, C, 16):
            for p in range(P):
                for qb in range(0, Q, 7):
                    for r in range({taps}):
                        for s in range({taps}):
                            for q in range(qb, min(qb + 7, Q)):
                                for k in range(kb, min(kb + 16, K)):
                                    for c in range(cb, min(cb + 16, C)):
                                        h = {stride} * p + {dilation} * r - {padding}
                                        v = {stride} * q + {dilation} * s - {padding}
                                        if 0 <= h < H and 0 <= v < V:
                                            Y[n, k, p, q] += X[n, c, h, v] * W[k, c, r, s]
"""


def scattered(taps: int, stride: int, dilation: int, padding: int) -> str:
    """dX of the same layer, every product added where it belongs."""
    forward = convolution(taps, stride, dilation, padding)
    head = "\n".join(x for x in forward.splitlines() if x.startswith("assume"))
    return f"""
{head}
for n in range(N):
    for c in range(C):
        for h in range(H):
            for v in range(V):
                X[n, c, h, v] = 0
for n in range(N):
    for k in range(K):
        for p in range(P):
            for q in range(Q):
                for c in range(C):
                    for r in range({taps}):
                        for s in range({taps}):
                            h = {stride} * p + {dilation} * r - {padding}
                            v = {stride} * q + {dilation} * s - {padding}
                            if 0 <= h < H and 0 <= v < V:
                                X[n, c, h, v] += G[n, k, p, q] * W[k, c, r, s]
"""


def gathered(taps: int, stride: int, dilation: int, padding: int) -> str:
    """dX of the same layer, pixel by pixel."""
    return f"""
for n in range(N):
    for c in range(C):
        for h in range(H):
            for v in range(V):
                X[n, c, h, v] = 0
                for k in range(K):
                    for r in range({taps}):
                        for s in range({taps}):
                            a = h + {padding} - {dilation} * r
                            b = v + {padding} - {dilation} * s
                            p = a // {stride}
                            q = b // {stride}
                            if a % {stride} == 0 and b % {stride} == 0:
                                if 0 <= p < P and 0 <= q < Q:
                                    X[n, c, h, v] += G[n, k, p, q] * W[k, c, r, s]
"""


#: Two layers, the first with a bias and a function.
LAYERS = """
for i in range(M):
    for j in range(N):
        acc = 0
        for k in range(K):
            acc += X[i, k] * W[j, k]
        H[i, j] = relu(acc + b[j])
for i in range(M):
    for o in range(O):
        Y[i, o] = 0
        for j in range(N):
            Y[i, o] += H[i, j] * V[o, j]
"""

#: The same, hidden values in blocks of four that go on to the second layer at once.
LAYERS_FUSED = """
for i in range(M):
    for o in range(O):
        Y[i, o] = 0
for i in range(M):
    for jb in range(0, N, 4):
        for j in range(jb, min(jb + 4, N)):
            t[j - jb] = 0
            for kb in range(0, K, 8):
                for k in range(kb, min(kb + 8, K)):
                    t[j - jb] += W[j, k] * X[i, k]
            t[j - jb] = relu(t[j - jb] + b[j])
            for o in range(O):
                Y[i, o] += t[j - jb] * V[o, j]
"""

#: The elementwise part of an LSTM cell.
CELL = """
for h in range(H):
    i[h] = sigmoid(a[0, h])
    f[h] = sigmoid(a[1, h])
    g[h] = tanh(a[2, h])
    c1[h] = f[h] * c0[h] + i[h] * g[h]
    h1[h] = sigmoid(a[3, h]) * tanh(c1[h])
"""

CELL_IN_TWO_PASSES = """
for h in range(H):
    c1[h] = sigmoid(a[0, h]) * tanh(a[2, h]) + c0[h] * sigmoid(a[1, h])
for h in range(H):
    h1[h] = tanh(c1[h]) * sigmoid(a[3, h])
"""
