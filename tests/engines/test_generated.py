"""Generated code as a function of tensors."""

import pytest
import torch

from elision.engines.generated import compiled
from elision.native.builder import BuildError
from elision.native.shared_object import unavailable

ADD = "def add(x, y, N):\n    for i in range(N):\n        y[i] += x[i]\n"
CPP = (
    'extern "C" void add(const float* x, float* y, long N, int threads) {\n'
    "    for (long i = 0; i < N; ++i) y[i] += x[i] * threads;\n}\n"
)


def test_python_runs_on_tensors_in_place() -> None:
    y = torch.ones(3, dtype=torch.float64)
    compiled(ADD, "python", "add")([torch.arange(3.0).double()], y, [3], 1)
    assert y.tolist() == [1, 2, 3]


@pytest.mark.skipif(unavailable() is not None, reason="no compiler")
def test_cpp_gets_tensors_sizes_and_threads() -> None:
    y = torch.ones(4)
    compiled(CPP, "cpp", "add")([torch.arange(4.0)], y, [3], 2)
    assert y.tolist() == [1, 3, 5, 1]


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.ones(4)[::2], r"contiguous .* shape \(2,\) and strides \(2,\)"),
        (torch.ones(2, dtype=torch.float64), "one dtype.*float64, torch.float32"),
        (torch.ones(2, dtype=torch.int32), "one dtype.*int32"),
    ],
)
def test_other_tensors_are_refused(x: torch.Tensor, words: str) -> None:
    run = compiled(ADD, "python", "add")
    with pytest.raises(ValueError, match=words):
        run([x], torch.ones(2), [2], 1)


@pytest.mark.skipif(unavailable() is not None, reason="no compiler")
def test_code_that_is_wrong_is_answered_with_the_compilers_reason() -> None:
    with pytest.raises(BuildError, match=r"cannot build generated code: .*error"):
        compiled("this is no C++", "cpp", "add")


def test_an_unknown_language_lists_the_others() -> None:
    with pytest.raises(ValueError, match="unknown language 'c'"):
        compiled("", "c", "add")
