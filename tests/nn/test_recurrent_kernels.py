"""The fused kernels of a layer in one direction, against torch's modules."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from some_kernels import built
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from elision.native.shared_object import load, unavailable
from elision.nn import kernel
from elision.nn.kernel import recurrence
from elision.nn.over_time import Gates, Plain, State
from elision.nn.sparse import Mask, sparse_recurrence

CELLS: dict[str, Any] = {"lstm": nn.LSTM, "gru": nn.GRU}

pytestmark = pytest.mark.skipif(unavailable() is not None, reason="no kernels here")


#: What a few roundings of terms near 1 leave of a difference that cancels.
_ROUNDING = 4 * torch.finfo(torch.float32).eps


def close(found: Tensor, expected: Tensor) -> bool:
    """Within 1e-5 of the norm: the bar; what cancels, within the rounding of its terms."""
    error = (found - expected).norm()
    return bool(error <= 1e-5 * expected.norm() + _ROUNDING)


class Case:
    """One layer with its input, and the results and gradients of a way to compute it."""

    def __init__(
        self,
        cell: str,
        lengths: list[int],
        inputs: int,
        units: int,
        *,
        reverse: bool = False,
        bias: bool = True,
        density: float | None = None,
        zero: bool = False,
    ) -> None:
        self.cell, self.reverse = cell, reverse
        self.module = CELLS[cell](inputs, units, bias=bias, bidirectional=reverse)
        self.weights = self.module.all_weights[int(reverse)]
        longest = sorted(lengths, reverse=True)
        x = torch.randn(longest[0], len(longest), inputs)
        packed = pack_padded_sequence(x, torch.tensor(longest))
        self.x = packed.data.clone().requires_grad_()
        self.packed = packed._replace(data=self.x)
        self.counts = packed.batch_sizes.tolist()
        parts = 2 if cell == "lstm" else 1
        first = torch.zeros if zero else torch.randn
        self.first = [first(len(longest), units) for _ in range(parts)]
        self.first = [part.requires_grad_() for part in self.first]
        self.given = [self.x, *self.first, *self.weights]
        self.masks = None
        if density is not None:
            places = [torch.rand_like(w) < density for w in self.weights[:2]]
            self.masks = tuple(map(Mask, places))

    def torchs(self) -> list[Tensor]:
        states = tuple(
            torch.stack([torch.zeros_like(part), part] if self.reverse else [part])
            for part in self.first
        )
        hx = states if self.cell == "lstm" else states[0]
        y, last = self.module(self.packed, hx)
        units = self.module.hidden_size
        last = last if isinstance(last, tuple) else (last,)
        own = y.data[:, units * self.reverse :][:, :units]
        return [own, *(part[int(self.reverse)] for part in last)]

    def state(self) -> State:
        return tuple(self.first)

    def dense(self, weights: Plain | None = None) -> list[Tensor]:
        y, last = recurrence(
            *(self.cell, self.x, self.counts, self.state()),
            weights or Plain(*self.weights),
            reverse=self.reverse,
        )
        return [y, *last]

    def masked(self) -> list[Tensor]:
        assert self.masks is not None
        kept = [
            torch.where(mask.places, weight, 0.0)
            for mask, weight in zip(self.masks, self.weights, strict=False)
        ]
        weights = Plain(*kept, *self.weights[2:])
        y, last = Gates().run(self.cell)(
            *(self.x, self.counts, self.state(), weights, self.reverse)
        )
        return [y, *last]

    def sparse(self) -> list[Tensor]:
        assert self.masks is not None
        y, last = sparse_recurrence(
            *(self.cell, self.x, self.counts, self.state(), Plain(*self.weights)),
            self.masks,  # pyright: ignore[reportArgumentType]
            reverse=self.reverse,
        )
        return [y, *last]

    def gradients(self, results: list[Tensor], **options: bool) -> list[Tensor]:
        torch.manual_seed(1)
        directions = [torch.randn_like(part) for part in results]
        return list(torch.autograd.grad(results, self.given, directions, **options))


def assert_same(case: Case, found: list[Tensor], expected: list[Tensor]) -> None:
    found = [*found, *case.gradients(found)]
    expected = [*expected, *case.gradients(expected)]
    for mine, own in zip(found, expected, strict=True):
        assert mine.shape == own.shape
        assert close(mine, own)


cases = st.fixed_dictionaries(
    {
        "cell": st.sampled_from(sorted(CELLS)),
        "lengths": st.lists(st.integers(1, 6), min_size=1, max_size=40),
        "inputs": st.integers(1, 70),
        "units": st.integers(1, 70),
        "reverse": st.booleans(),
        "bias": st.booleans(),
        "zero": st.booleans(),
    }
)


@given(cases)
@settings(max_examples=60)
def test_a_direction_is_torchs(options: dict) -> None:
    case = Case(**options)
    assert_same(case, case.dense(), case.torchs())


@given(cases, st.sampled_from([0.0, 0.1, 0.5, 1.0]))
@settings(max_examples=60)
def test_a_masked_direction_is_the_loops(options: dict, density: float) -> None:
    case = Case(**options, density=density)
    assert_same(case, case.sparse(), case.masked())


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("sequences", [1, 130])
def test_more_tokens_than_a_sum_takes_at_a_time(cell: str, sequences: int) -> None:
    case = Case(cell, [9] * sequences, 33, 80)
    assert_same(case, case.dense(), case.torchs())


@pytest.fixture(params=["avx2", "portable"])
def variant(request: pytest.FixtureRequest, monkeypatch) -> None:
    best = load()
    if request.param == "avx2" and torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("no AVX2")
    library = built(
        request.param, ("gru", "lstm", "pool", "sparse_lists", "sparse_recurrent")
    )
    assert library is not best
    monkeypatch.setattr(kernel, "load", lambda: library)


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("inputs", "units"), [(1, 1), (40, 33), (64, 80)])
@pytest.mark.usefixtures("variant")
def test_other_instruction_sets(cell: str, inputs: int, units: int) -> None:
    case = Case(cell, [7, 5, 5, 1] * 9, inputs, units, density=0.2)
    assert_same(case, case.dense(), case.torchs())
    assert_same(case, case.sparse(), case.masked())


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("way", ["dense", "sparse"])
def test_the_number_of_threads_changes_no_bit(cell: str, way: str) -> None:
    case = Case(cell, [6] * 70 + [3] * 20, 50, 70, density=0.2)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results = getattr(case, way)()
            found.append([*results, *case.gradients(results)])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("way", ["dense", "sparse"])
def test_a_second_pass_over_one_graph(cell: str, way: str) -> None:
    case = Case(cell, [4, 3, 3], 5, 20, density=0.2)
    results = getattr(case, way)()
    first = case.gradients(results, retain_graph=True)
    second = case.gradients(results)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("way", ["dense", "sparse"])
def test_gradients_of_gradients(cell: str, way: str) -> None:
    case = Case(cell, [4, 3, 1], 5, 6, density=0.4, reverse=True)
    oracle = case.torchs if way == "dense" else case.masked
    found = []
    for results in (getattr(case, way)(), oracle()):
        grads = case.gradients(results, create_graph=True)
        total = sum(grad.square().sum() for grad in grads)
        assert isinstance(total, Tensor)
        found.append(torch.autograd.grad(total, case.given))
    assert all(close(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("cell", CELLS)
def test_only_what_is_wanted(cell: str) -> None:
    case = Case(cell, [4, 3], 5, 6, density=0.4)
    for way, oracle in ((case.dense, case.torchs), (case.sparse, case.masked)):
        for wanted in case.given:
            found = torch.autograd.grad(way()[0].sum(), wanted)[0]
            expected = torch.autograd.grad(oracle()[0].sum(), wanted)[0]
            assert close(found, expected)


def test_a_mask_that_is_written_to_makes_new_lists() -> None:
    case = Case("lstm", [4, 3], 5, 6, density=0.4)
    assert case.masks is not None
    assert_same(case, case.sparse(), case.masked())
    results = case.sparse()
    case.masks[1].places.logical_not_()
    with pytest.raises(RuntimeError, match=r"mask .* was changed"):
        case.gradients(results)
    assert_same(case, case.sparse(), case.masked())


def test_values_that_are_not_finite_stay() -> None:
    for cell in CELLS:
        case = Case(cell, [3, 3], 5, 6, density=0.5)
        with torch.no_grad():
            case.x[1, 2] = torch.nan  # sequence 1 from its first step on
        for results in (case.dense(), case.sparse()):
            y = results[0].unflatten(0, (3, 2))
            assert y[:, 0].isfinite().all()
            assert y[:, 1].isnan().any()


def test_large_gates_saturate() -> None:
    for cell in CELLS:
        case = Case(cell, [3, 3], 5, 6)
        with torch.no_grad():
            case.x.mul_(1e4)
        assert_same(case, case.dense(), case.torchs())
