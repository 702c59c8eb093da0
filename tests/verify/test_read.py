"""Texts in C and in Python as programs, and what is refused."""

import subprocess
import sys

import loop_programs as programs
import pytest

from elision.verify import Program, ProgramError, equivalent, read, run

TEXTS = {
    name: text
    for name, text in vars(programs).items()
    if isinstance(text, str) and not name.startswith("_") and "for" in text
}


@pytest.mark.parametrize("name", sorted(TEXTS.keys() - {"__doc__"}))
def test_a_program_is_read_again_as_it_is_printed(name: str) -> None:
    program = read(TEXTS[name])
    assert program.statements
    assert read(str(program)) == Program(program.body, program.assumptions)


def test_both_languages_say_the_same() -> None:
    c = """
        #define V 4
        assume(K % V == 0);
        for (int i = M - 1; i >= 0; i--) {
          float acc = 0;
          for (int k = 0; k <= K - 1; k += V) {
            const int at = k / V;
            if (at > 0 && !(i == 2)) acc += a[i][k] * x[at];
            else acc -= relu(a[i][k]);
          }
          y[i] = acc;
        }
    """
    python = """
        V = 4
        assume K % V == 0
        for i in range(M - 1, -1, -1):
            acc = 0
            for k in range(0, K, V):
                at = k // V
                if at > 0 and not i == 2:
                    acc = acc + a[i, k] * x[at]
                else:
                    acc -= relu(a[i, k])
            y[i] = acc
    """
    pytest.importorskip("islpy")
    assert equivalent(c, python)


def test_division_rounds_towards_zero_in_c_and_down_in_python() -> None:
    c = "for (int i = 0; i < 5; ++i) y[(i - 3) / 2 + 9] = x[(i - 3) % 2 + 9];"
    python = "for i in range(5): y[(i - 3) // 2 + 9] = x[(i - 3) % 2 + 9]"
    found = [run(read(t), {}, lambda _, index: index[0]) for t in (c, python)]
    assert found[0] == {("y", (8,)): 9, ("y", (9,)): 10}
    assert found[1] == {("y", (7,)): 10, ("y", (8,)): 10, ("y", (9,)): 10}
    pytest.importorskip("islpy")
    down = "for i in range(N): y[i] = x[-((N - i) // 2) + N]"
    towards_zero = "for (int i = 0; i < N; ++i) y[i] = x[(i - N) / 2 + N];"
    assert equivalent(towards_zero, down)
    assert not equivalent(towards_zero, down.replace("-((N - i) // 2)", "(i - N) // 2"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("for i in x: y[i] = 0", "line 1, column 1: .* a loop is: for i in range"),
        ("for i in range(M):\n  y[i] = x[i] / 2", "line 2, column 10: .* operators"),
        ("for i in range(M):\n  y[i] = i", "line 2, column 10: i is a loop variable"),
        ("for i in range(M): y[i] = 0.5", "numbers are integers; name others"),
        ("for i in range(M): y[i] = 1e999", "numbers are integers; name others"),
        ("y[i = 3", "line 1, column 2: not Python"),
        ("while x: pass", "line 1, column 1: 'while x:' is not read here"),
        (
            "for i in range(A[3]): y[i] = 0",
            "A\\[3\\] is an element of an array, which no",
        ),
        ("for i in range(M, 0, 0): y[i] = 0", "a step is an integer other than 0"),
        ("for i in range(M):\n  for i in range(N): y[i] = 0", "runs in a loop around"),
        (
            "y[0] = x[0]\ny[0, 1] = x[0]",
            "y\\[0, 1\\] has 2 subscripts, elsewhere y has 1",
        ),
        ("for i in range(M): y[i] = M", "'M' is a size in one place and an array"),
        (
            "for (int i = 0; i < M; ++i) y[i] ^= 3;",
            "line 1, column 34: '\\^' is not read",
        ),
        ("for (int i = 0; i < M; ++i) y[i] = ;", "found ';'; wanted: a number, a name"),
        (
            "for (int i = 0; i < M; --i) y[i] = 0;",
            "an upper bound wants a positive step",
        ),
        (
            "for (int i = 0; i != M; ++i) y[i] = 0;",
            "a loop is: .*, with <, <=, > or >=",
        ),
        ("for (int i = 0; i < M; i *= 2) y[i] = 0;", "a loop is: for \\(int i = start"),
        ("for (int i = 0; i < M; ++i) { y[i] = 0;", "found the end; wanted: '}'"),
        ("int h = 3;\nh = 4;", "line 2, column 1: h is an index or an integer"),
        ("char x[3];", "wanted: = \\+= or -="),
    ],
)
def test_what_is_not_read_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        read(text)


def test_the_room_loads_neither_solvers_nor_torch() -> None:
    code = """
import sys
import elision.verify
elision.verify.read("for i in range(M): y[i] = x[i]")
print(*sorted({"islpy", "z3", "torch"} & sys.modules.keys()))
"""
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True
    )
    assert found.stdout.split() == []


def test_a_bound_that_is_not_affine_is_named() -> None:
    pytest.importorskip("islpy")
    verdict = equivalent("for i in range(M * N): y[0] += x[i] + x[i]", "y[0] += x[0]")
    assert verdict.status == "refuted"
    same = "for i in range(M * N): y[0] += x[i] + x[i]"
    verdict = equivalent(same, same + "\n")
    assert "(M * N) in a bound of loop i is a product of two unknowns" in verdict.reason


def test_given_sizes_leave_nothing_open() -> None:
    # A product that comes more than once is counted by a run, not by the proof.
    twice = "for i in range(M):\n  for k in range(K): y[i] += x[i]"
    times = "for i in range(M): y[i] += 3 * x[i]"
    assert equivalent(twice, times).status == "refuted"
    verdict = equivalent(twice, times, sizes={"M": 4, "K": 3})
    assert verdict.status == "proved"
    assert str(verdict).startswith("proved at the sizes given")
    assert equivalent(twice, times, sizes={"M": 4, "K": 4}).status == "refuted"


def test_signs_without_end_are_one_line() -> None:
    with pytest.raises(ProgramError, match="not Python: nested too deeply"):
        read("for i in range(" + "-" * 100_000 + "M): y[i] = 0")
