"""Pairs of loop programs: those that are equal for all sizes, and those that are not."""

import loop_programs as programs

#: Taps, stride, dilation and padding of convolutions.
LAYERS = [(3, 1, 1, 1), (3, 2, 1, 1), (1, 2, 1, 0), (7, 2, 1, 3), (3, 1, 2, 2)]

SAME, REAL = "same", "real numbers only"

#: program, specification, sizes that are given, order of the sums.
PROVED = {
    "matmul": (programs.MATMUL, programs.MATMUL, {}, SAME),
    "interchanged": (programs.INTERCHANGED, programs.MATMUL, {}, SAME),
    "tiled": (programs.TILED, programs.MATMUL, {}, SAME),
    "k backwards": (
        programs.MATMUL.replace("range(K)", "range(K - 1, -1, -1)"),
        programs.MATMUL, {}, REAL,
    ),
    "weight stationary": (programs.WEIGHT_STATIONARY, programs.MATMUL, {}, SAME),
    "hexagonal": (programs.HEXAGONAL, programs.MATMUL, {}, SAME),
    "recurrences": (programs.RECURRENCES, programs.MATMUL, {}, SAME),
    "channels in blocks": (programs.CHANNEL_BLOCKED, programs.DIRECT, {}, REAL),
    "tensors laid out in blocks": (programs.LAID_OUT, programs.DIRECT, {}, REAL),
    "pixels in registers": (programs.REGISTER_BLOCKED, programs.DIRECT, {}, REAL),
    "both blocked forms": (programs.REGISTER_BLOCKED, programs.CHANNEL_BLOCKED, {}, SAME),
    **{
        f"dX stride {t}": (programs.GATHERED, programs.SCATTERED, {"T": t}, SAME)
        for t in (1, 2, 3)
    },
    "floor at stride 1": (
        programs.GATHERED.replace("a % T == 0 and ", ""),
        programs.SCATTERED, {"T": 1}, SAME,
    ),
    **{
        f"blocked {layer}": (
            programs.blocked(*layer), programs.convolution(*layer), {},
            SAME if layer[0] == 1 else REAL,
        )
        for layer in LAYERS
    },
    **{
        f"gathered {layer}": (
            programs.gathered(*layer), programs.scattered(*layer), {},
            SAME if layer[0] == 1 else REAL,
        )
        for layer in LAYERS
    },
    "double buffer": (programs.DOUBLE_BUFFER, programs.COPY, {}, SAME),
    "fused": (programs.FUSED, programs.UNFUSED, {}, SAME),
    "two layers in one pass": (programs.LAYERS_FUSED, programs.LAYERS, {}, REAL),
    "cell in two passes": (programs.CELL_IN_TWO_PASSES, programs.CELL, {}, REAL),
    "a product many times": (
        "for i in range(M):\n  for k in range(K): y[i] += x[i]",
        "for k in range(K - 1, -1, -1):\n  for i in range(M): y[i] += x[i]", {}, REAL,
    ),
    "a function twice": (
        "for i in range(M): y[i] = relu(x[i]) + relu(x[i])",
        "for i in range(M): y[i] = 2 * relu(x[i])", {}, REAL,
    ),
    "fused at every block, one block": (
        programs.FUSED.replace("if cb == Cb - 1", "if cb == cb"),
        programs.UNFUSED, {"Cb": 1}, SAME,
    ),
}  # fmt: skip

#: program, specification, sizes that are given, and sizes of the witness.
REFUTED = {
    "rest of k dropped": (
        programs.TILED.replace("ko < K", "ko < K - 7"), programs.MATMUL, {},
        {"K": 1, "M": 1, "N": 1},
    ),
    "no guard on i": (
        programs.TILED.replace("i < M && ", ""), programs.MATMUL, {},
        {"K": 1, "M": 1, "N": 1},
    ),
    "steps of 4, tiles of 5": (
        programs.TILED.replace("ii < 4", "ii < 5"), programs.MATMUL, {},
        {"K": 1, "M": 5, "N": 1},
    ),
    "B transposed": (
        programs.TILED.replace("B[k][j]", "B[j][k]"), programs.MATMUL, {},
        {"K": 1, "M": 1, "N": 2},
    ),
    "tile index swapped": (
        programs.TILED.replace("j = jo + jj", "j = jo / 4 + 4 * jj"), programs.MATMUL, {},
        {"K": 1, "M": 1, "N": 2},
    ),
    "skew forgotten": (
        programs.WEIGHT_STATIONARY.replace("A[m, k]", "A[t - n, k]"), programs.MATMUL, {},
        {"K": 2, "M": 1, "N": 1},
    ),
    "X loads at j = 1": (
        programs.RECURRENCES.replace("if j == 0", "if j == 1"), programs.MATMUL, {},
        {"K": 1, "M": 1, "N": 1},
    ),
    "B reads k, j + 1": (
        programs.RECURRENCES.replace("B[k, j]", "B[k, j + 1]"), programs.MATMUL, {},
        {"K": 1, "M": 1, "N": 1},
    ),
    "hop of two": (
        programs.RECURRENCES.replace("X[i, j - 1, k]", "X[i, j - 2, k]"),
        programs.MATMUL, {}, {"K": 1, "M": 1, "N": 2},
    ),
    "drained at K - 2": (
        programs.RECURRENCES.replace("k == K - 1", "k == K - 2"), programs.MATMUL, {},
        {"K": 1, "M": 1, "N": 1},
    ),
    "X moves diagonally": (
        programs.RECURRENCES.replace("X[i, j - 1, k]", "X[i - 1, j - 1, k]"),
        programs.MATMUL, {}, {"K": 1, "M": 1, "N": 2},
    ),
    "VLEN inclusive": (
        programs.REGISTER_BLOCKED.replace("k < VLEN", "k <= VLEN"), programs.DIRECT, {},
        {"C": 1, "K": 5, "N": 1, "P": 1, "Q": 1, "R": 1, "S": 1},
    ),
    "packed with c and k swapped": (
        programs.LAID_OUT.replace("[s][c][k] = W", "[s][k][c] = W"), programs.DIRECT, {},
        {"C": 4, "K": 4, "N": 1, "P": 1, "Q": 1, "R": 1, "S": 1},
    ),
    "stride missing in the block": (
        programs.REGISTER_BLOCKED.replace("2 * (oj + p)", "2 * oj + p"),
        programs.DIRECT, {},
        {"C": 1, "K": 1, "N": 1, "P": 2, "Q": 1, "R": 1, "S": 1},
    ),
    "r and s swapped": (
        programs.REGISTER_BLOCKED.replace("[cb + c][r][s]", "[cb + c][s][r]"),
        programs.DIRECT, {},
        {"C": 1, "K": 1, "N": 1, "P": 1, "Q": 1, "R": 1, "S": 2},
    ),
    "filter not rotated": (
        programs.GATHERED.replace("W[2 - u]", "W[u]"), programs.SCATTERED, {"T": 2},
        {"H": 3},
    ),
    **{
        f"floor at stride {t}": (
            programs.GATHERED.replace("a % T == 0 and ", ""),
            programs.SCATTERED, {"T": t}, {"H": 3},
        )
        for t in (2, 3)
    },
    "one buffer": (
        programs.DOUBLE_BUFFER.replace("% 2", "% 1"), programs.COPY, {}, {"T": 2, "X": 1}
    ),
    "other half read": (
        programs.DOUBLE_BUFFER.replace("(t - 1) % 2", "t % 2"), programs.COPY, {},
        {"T": 1, "X": 1},
    ),
    "used two periods later": (
        programs.DOUBLE_BUFFER.replace("T + 1", "T + 2").replace(
            "t >= 1", "t >= 2"
        ).replace("t - 1", "t - 2"),
        programs.COPY, {}, {"T": 3, "X": 1},
    ),
    "fused at every block": (
        programs.FUSED.replace("if cb == Cb - 1", "if cb == cb"), programs.UNFUSED, {},
        {"Cb": 2, "M": 1},
    ),
    "a product once too often": (
        "for i in range(M):\n  for k in range(K + 1): y[i] += x[i]",
        "for k in range(K):\n  for i in range(M): y[i] += x[i]", {}, {"K": 1, "M": 1},
    ),
    "bias of the block": (
        programs.LAYERS_FUSED.replace("b[j])", "b[jb])"), programs.LAYERS, {},
        {"K": 1, "M": 1, "N": 2, "O": 1},
    ),
    "forget gate of the input": (
        programs.CELL_IN_TWO_PASSES.replace("sigmoid(a[1, h])", "sigmoid(a[0, h])"),
        programs.CELL, {}, {"H": 1},
    ),
    "never initialised": (
        programs.MATMUL.replace("C[i, j] = 0", "pass"), programs.MATMUL, {},
        {"K": 1, "M": 1, "N": 1},
    ),
    "initialised after the first sum": (
        programs.MATMUL.replace("        C[i, j] = 0\n", "") + "            if k == 0:\n"
        "                C[i, j] = 0\n",
        programs.MATMUL, {}, {"K": 1, "M": 1, "N": 1},
    ),
    "pixels without a tap left as they were": (
        programs.GATHERED.replace("    X[h] = 0\n", "    if h % T == 0:\n        X[h] = 0\n"),
        programs.SCATTERED, {"T": 4}, {"H": 3},
    ),
}  # fmt: skip
