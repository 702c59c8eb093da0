"""Sizes that multiply: tiles, strides and periods of unknown size, by z3."""

import importlib.util

import pytest

from elision.verify import equivalent, read
from elision.verify.symbolic import Unfit, proved

pytest.importorskip("z3")

PRODUCT = """
for i in range(M):
    y[i] = 0
    for k in range(K):
        y[i] += a[i, k] * x[k]
"""

TILED = """
for i in range(M):
    y[i] = 0
for io in range((M + T - 1) // T):
    for ko in range((K + U - 1) // U):
        for ii in range(T):
            for kk in range(U):
                i = T * io + ii
                k = U * ko + kk
                if i < M and k < K:
                    y[i] += a[i, k] * x[k]
"""

SCATTERED = """
for h in range(T * (P - 1) + R):
    X[h] = 0
for p in range(P):
    for r in range(R):
        X[T * p + r] += G[p] * W[r]
"""

GATHERED = """
for h in range(T * (P - 1) + R):
    X[h] = 0
    for r in range(R):
        if (h - r) % T == 0 and 0 <= h - r and (h - r) // T < P:
            X[h] += G[(h - r) // T] * W[r]
"""

#: F folds of M values each, one every L cycles.
FOLDS = """
assume L >= M
for f in range(F):
    for m in range(M):
        C[f, m] = 0
for t in range(L * F):
    if t % L < M:
        C[t // L, t % L] += A[t // L, t % L]
"""

BY_FOLD = """
for f in range(F):
    for m in range(M):
        C[f, m] = 0
        C[f, m] += A[f, m]
"""

FLAT = """
for c in range(M * N):
    C[c] = 0
    for k in range(K):
        C[c] += A[c // N * K + k] * B[k * N + c % N]
"""

ROWS = """
for i in range(M):
    for j in range(N):
        C[i * N + j] = 0
        for k in range(K):
            C[i * N + j] += A[i * K + k] * B[k * N + j]
"""

PAIRS = {
    "tiles": (TILED, PRODUCT),
    "stride": (GATHERED, SCATTERED),
    "folds": (FOLDS, BY_FOLD),
}

WRONG = {
    "a tile too large": (TILED.replace("range(T)", "range(T + 1)"), PRODUCT),
    "no guard": (TILED.replace("i < M and ", ""), PRODUCT),
    "the rest dropped": (TILED.replace("(K + U - 1) // U", "K // U"), PRODUCT),
    "no divisibility": (GATHERED.replace("(h - r) % T == 0 and ", ""), SCATTERED),
    "a period too short": (FOLDS.replace("L >= M", "L >= M - 1 and L >= 1"), BY_FOLD),
    "set after the sum": (
        PRODUCT.replace("y[i] = 0", "pass") + "    y[i] = 0\n",
        PRODUCT,
    ),
}


@pytest.mark.parametrize("case", PAIRS)
def test_sizes_that_multiply_are_proved(case: str) -> None:
    verdict = equivalent(*PAIRS[case])
    assert verdict.status == "proved", verdict
    assert verdict.order == "real numbers only"
    assert "not compared where sizes multiply" in verdict.reason


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_program_is_refuted_by_a_run(case: str) -> None:
    program, specification = WRONG[case]
    verdict = equivalent(program, specification)
    assert verdict.status == "refuted", verdict
    assert verdict.witness.found != verdict.witness.expected
    with pytest.raises(Unfit):
        proved(read(program), read(specification), ("y",), 5)


def test_without_z3_the_reason_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    known = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "z3" else known(name)
    )
    verdict = equivalent(*PAIRS["stride"])
    assert verdict.status == "unknown"
    said = "z3-solver, which knows sizes that multiply, is not installed: pip install"
    assert said in verdict.reason
    assert "equal for every input" in verdict.reason


def test_matrices_in_rows_of_unknown_length() -> None:
    # A proof, or none in time; never a refutation.
    assert equivalent(FLAT, ROWS).status in ("proved", "unknown")


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (PRODUCT.replace("= 0", "= b[i]"), "sets no number"),
        (PRODUCT.replace("* x[k]", "* a[k, i]"), "is no product of different inputs"),
        (PRODUCT.replace("* x[k]", "+ x[k]"), "is no product of inputs"),
        (PRODUCT + "z[0] = 1", "only one = and one \\+= are compared"),
        (PRODUCT.replace("range(M)", "range(M // 2, M)"), "z3 does not see that"),
    ],
)
def test_programs_of_another_form_are_not_proved(program: str, message: str) -> None:
    with pytest.raises(Unfit, match=message):
        proved(read(program), read(PRODUCT), ("y",), 5)


def test_a_divisor_that_may_be_zero_is_not_proved() -> None:
    halves = "assume T >= 0\nfor i in range(M):\n  y[i] = 0\n  y[i] += x[i // T]"
    with pytest.raises(Unfit, match="T is positive"):
        proved(read(halves), read(halves), ("y",), 5)
