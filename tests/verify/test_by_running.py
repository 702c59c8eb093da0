"""What remains without isl, and proofs against formal runs at small sizes."""

import importlib.util
import itertools
from typing import Any

import loop_programs as programs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from verified_pairs import PROVED, REFUTED

from elision.verify import equivalent, read, run
from elision.verify.run import Formal, formal_function, formal_input

HAS_ISL = importlib.util.find_spec("islpy") is not None


@pytest.fixture
def without_isl(monkeypatch: pytest.MonkeyPatch) -> None:
    known = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name == "islpy" else known(name),
    )


#: Programs that take long to run, or tell at large sizes only.
LARGE = {"VLEN inclusive", "steps of 4, tiles of 5"}


@pytest.mark.usefixtures("without_isl")
@pytest.mark.parametrize("case", [c for c in REFUTED if c not in LARGE])
def test_runs_alone_refute_a_wrong_program(case: str) -> None:
    program, specification, sizes, _ = REFUTED[case]
    verdict = equivalent(program, specification, sizes=sizes)
    assert verdict.status == "refuted", verdict
    assert verdict.witness.seed is not None


@pytest.mark.usefixtures("without_isl")
@pytest.mark.parametrize("case", ["tiled", "recurrences", "dX stride 2", "fused"])
def test_runs_alone_do_not_prove(case: str) -> None:
    program, specification, sizes, _ = PROVED[case]
    verdict = equivalent(program, specification, sizes=sizes)
    assert verdict.status == "unknown"
    assert "islpy is not installed: pip install 'elision[verify]'" in verdict.reason
    assert "equal for every input at" in verdict.reason
    assert verdict.checked
    assert all(verdict.checked[0][k] == v for k, v in sizes.items())


def test_sizes_that_multiply_are_compared_at_small_sizes() -> None:
    rows = "for i in range(M):\n  for j in range(N): y[i * N + j] = 2 * x[j]"
    columns = "for j in range(N):\n  for i in range(M): y[j + N * i] = x[j] + x[j]"
    verdict = equivalent(rows, columns)
    assert verdict.status == "unknown"
    assert (
        "a product of two unknowns (N, i), not affine" in verdict.reason or not HAS_ISL
    )
    assert len(verdict.checked) > 10
    wrong = equivalent(rows, columns.replace("N * i", "M * i"))
    assert wrong.status == "refuted"
    assert equivalent(rows, columns, sizes={"N": 3}).status == (
        "proved" if HAS_ISL else "unknown"
    )


@pytest.mark.skipif(not HAS_ISL, reason="islpy is not installed")
def test_a_proof_that_takes_too_long_is_unknown() -> None:
    layer = 3, 1, 2, 2
    verdict = equivalent(
        programs.blocked(*layer), programs.convolution(*layer), limit_s=1e-4
    )
    assert verdict.status == "unknown"
    assert "no proof within 0.0001 s" in verdict.reason


@pytest.mark.skipif(not HAS_ISL, reason="islpy is not installed")
def test_a_recurrence_that_is_no_sum_is_unknown() -> None:
    scan = "for i in range(M):\n  y[i + 1] = relu(y[i]) + x[i]"
    late = scan.replace("relu(y[i]) + x[i]", "x[i] + relu(y[i])")
    verdict = equivalent(late, scan)
    assert verdict.status == "unknown"
    assert "depends on itself and is neither a copy nor a running sum" in verdict.reason
    assert "equal for every input" in verdict.reason


def test_a_product_that_comes_more_than_once_is_not_counted_for_all_sizes() -> None:
    often = "for i in range(M):\n  for k in range(K): y[i] += x[i]"
    other = often.replace("range(K)", "range(K + 1)") + "\n  y[i] -= x[i]"
    verdict = equivalent(other, often)
    assert verdict.status == "unknown"
    assert "more than once in one sum" in verdict.reason or not HAS_ISL
    assert "equal for every input" in verdict.reason


# Random programs.

_NAMES = st.sampled_from(
    ["i", "j", "M - 1 - i", "N - 1 - j", "i + j", "2 * i", "i // 2"]
)
_GUARDS = st.sampled_from(["i < N", "i >= j", "(i + j) % 2 == 0", "i != 1", "M > 0"])
_VALUES = (
    "a[{0}] * b[{1}]",
    "a[{0}] + b[{1}]",
    "a[{0}]",
    "a[{0}] * a[{1}]",
    "2 - a[{0}]",
    "f(a[{0}])",
    "f(a[{0}] * b[{1}]) * b[{0}]",
    "f(t[{0}])",
)


@st.composite
def bodies(draw: st.DrawFn) -> str:
    """Two loops around one to three statements, some of them guarded."""
    lines = ["for i in range(M):", "    for j in range(N):"]
    if draw(st.booleans()):
        lines.reverse()
        lines = [lines[0].strip(), "    " + lines[1].strip()]
    for _ in range(draw(st.integers(1, 3))):
        target = draw(st.sampled_from(["y[i]", "y[j]", "y[i + j]", "t[i]", "t[j]"]))
        value = draw(st.sampled_from([*_VALUES, "t[{0}]"]))
        sign = draw(st.sampled_from(["=", "+=", "+="]))
        statement = f"{target} {sign} {value.format(draw(_NAMES), draw(_NAMES))}"
        if draw(st.booleans()):
            lines.append(f"        if {draw(_GUARDS)}:")
            statement = "    " + statement
        lines.append(f"        {statement}")
    if not any("y[" in line.partition("=")[0] for line in lines):
        lines.append("        y[i] += t[i]")
    return "\n".join(lines)


def results(text: str, sizes: dict[str, int]) -> dict[Any, Formal]:
    found = run(read(text), sizes, formal_input, formal_function)
    return {p: Formal.of(v) for p, v in found.items() if p[0] == "y"}


@pytest.mark.skipif(not HAS_ISL, reason="islpy is not installed")
@settings(max_examples=20, deadline=None)
@given(bodies(), bodies(), st.booleans())
def test_a_verdict_agrees_with_formal_runs(first: str, second: str, same: bool) -> None:
    # Of two unrelated programs most differ: half are one with its loops exchanged.
    if same:
        head, second_head, *rest = first.splitlines()
        second = "\n".join([second_head.strip(), "    " + head.strip(), *rest])
    verdict = equivalent(first, second, outputs=("y",))
    equal = True
    for m, n in itertools.product(range(1, 5), repeat=2):
        ours, theirs = (results(text, {"M": m, "N": n}) for text in (first, second))
        for place in {*ours, *theirs}:
            there = formal_input(*place)
            equal &= ours.get(place, there) == theirs.get(place, there)
    if verdict.status == "proved":
        assert equal
    if not equal:
        assert verdict.status == "refuted", verdict
