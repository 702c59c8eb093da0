"""The kernels of bfloat16, by AMX or as it is emulated, against the loop in float32."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from some_kernels import built
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from elision.native.shared_object import unavailable
from elision.nn import GRU, LSTM, choice, kernel
from elision.nn.kernel import has_tiles, recurrence
from elision.nn.over_time import Gates, Plain

CELLS: dict[str, Any] = {"lstm": nn.LSTM, "gru": nn.GRU}

pytestmark = pytest.mark.skipif(unavailable() is not None, reason="no kernels here")
here = pytest.mark.skipif(
    unavailable() is not None or not has_tiles(), reason="no AMX here"
)

#: Of a norm: a few roundings to 8 bits of every value, as torch's own (measured: 0.004 of
#: large tensors, up to 0.018 of those of a few values).
CLOSE = 0.025


def close(found: Tensor, expected: Tensor) -> bool:
    error = (found.float() - expected).norm()
    # What cancels keeps the rounding of its terms: some ten, each near 1, of 2**-9 each.
    return bool(error <= CLOSE * (expected.norm() + expected.numel() ** 0.5 / 4))


def assert_close_to_the_loop(
    cell: str,
    lengths: list[int],
    inputs: int,
    units: int,
    reverse: bool = False,
    bias: bool = True,
    zero: bool = False,
) -> None:
    module = CELLS[cell](inputs, units, bias=bias).bfloat16()
    longest = sorted(lengths, reverse=True)
    x = torch.randn(longest[0], len(longest), inputs).bfloat16()
    packed = pack_padded_sequence(x, torch.tensor(longest))
    counts = packed.batch_sizes.tolist()
    first = torch.zeros if zero else torch.randn
    state = [
        first(len(longest), units).bfloat16() for _ in range(2 if cell == "lstm" else 1)
    ]
    given = [packed.data, *state, *module.all_weights[0]]
    found: list[list[Tensor]] = []
    for dtype in (torch.bfloat16, torch.float32):
        own = [t.detach().to(dtype).requires_grad_() for t in given]
        data, states = own[0], tuple(own[1 : 1 + len(state)])
        weights = Plain(*own[1 + len(state) :])
        if dtype == torch.bfloat16:
            y, last = recurrence(cell, data, counts, states, weights, reverse=reverse)
        else:
            y, last = Gates().run(cell)(data, counts, states, weights, reverse)
        torch.manual_seed(1)
        directions = [torch.randn(t.shape).bfloat16().to(dtype) for t in (y, *last)]
        grads = torch.autograd.grad([y, *last], own, directions)
        assert all(t.dtype == dtype for t in (y, *last, *grads))
        found.append([y, *last, *grads])
    assert all(close(a, b) for a, b in zip(*found, strict=True))


cases = st.fixed_dictionaries(
    {
        "cell": st.sampled_from(sorted(CELLS)),
        "lengths": st.lists(st.integers(1, 5), min_size=1, max_size=70),
        "inputs": st.integers(1, 70),
        "units": st.integers(1, 70),
        "reverse": st.booleans(),
        "bias": st.booleans(),
        "zero": st.booleans(),
    }
)


@here
@given(cases)
@settings(max_examples=60, deadline=None)
def test_a_direction_is_the_loops(options: dict) -> None:
    assert_close_to_the_loop(**options)


@here
@pytest.mark.parametrize("cell", CELLS)
def test_more_tokens_than_are_summed_over_at_a_time(cell: str) -> None:
    assert_close_to_the_loop(cell, [9] * 300, 33, 80)


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("variant", ["avx2", "portable"])
def test_emulated_tiles(cell: str, variant: str, monkeypatch) -> None:
    if variant == "avx2" and torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("no AVX2")
    library = built(
        variant, ("bf16_recurrent", "pool"), "-O1", "-DELISION_EMULATE_TILES"
    )
    monkeypatch.setattr(kernel, "load", lambda: library)
    for lengths, inputs, units in (([3, 2, 2, 1] * 9, 40, 33), ([4], 1, 1)):
        assert_close_to_the_loop(cell, lengths, inputs, units, reverse=True)


@here
@pytest.mark.parametrize("cell", CELLS)
def test_the_number_of_threads_changes_no_bit(cell: str) -> None:
    module = (LSTM if cell == "lstm" else GRU)(40, 70, engine="native").bfloat16()
    x = torch.randn(5, 90, 40).bfloat16().requires_grad_()
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            y = module(x)[0]
            direction = torch.ones_like(y)
            wanted = [x, *module.parameters()]
            found.append([y, *torch.autograd.grad(y, wanted, direction)])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@here
def test_torchs_products_are_right_after_ours() -> None:
    x = torch.randn(64, 64).bfloat16()
    expected = x @ x
    assert_close_to_the_loop("lstm", [2] * 32, 32, 32)
    assert torch.equal(x @ x, expected)


@here
@pytest.mark.parametrize("classes", [(LSTM, nn.LSTM), (GRU, nn.GRU)])
def test_modules_are_those_of_the_type(classes: Any, monkeypatch) -> None:
    times = {"torch": 2.0, "native": 1.0}
    asked: list[Any] = []
    monkeypatch.setattr(choice, "measured", lambda s: asked.append(s) or times)
    ours = classes[0](20, 24, 2, bidirectional=True)
    exact = copy.deepcopy(ours)
    ours = ours.bfloat16()
    x = torch.randn(5, 17, 20)
    y, last = ours(x.bfloat16())
    assert asked[0].dtype == torch.bfloat16
    assert close(y, exact(x)[0])
    results = [y, *(last if isinstance(last, tuple) else (last,))]
    assert all(t.dtype == torch.bfloat16 for t in results)
    first = torch.autograd.grad(y.sum(), ours.weight_hh_l0, retain_graph=True)[0]
    again = torch.autograd.grad(y.sum(), ours.weight_hh_l0)[0]
    assert torch.equal(first, again)
    masks = {"weight_hh_l0": torch.rand(ours.weight_hh_l0.shape) < 0.1}
    ours.mask_weights(masks)
    exact.mask_weights(masks)
    assert close(ours(x.bfloat16())[0], exact(x)[0])


@here
def test_autocast_is_torchs(monkeypatch) -> None:
    monkeypatch.setattr(choice, "measured", lambda shape: {"torch": 2.0, "native": 1.0})
    ran: list[int] = []
    monkeypatch.setattr(
        "elision.nn.modules.recurrence",
        lambda *a, **k: ran.append(1) or recurrence(*a, **k),
    )
    x = torch.randn(3, 5, 20, requires_grad=True)
    states = tuple(torch.randn(2, 3, 24) for _ in range(2))
    packed = pack_padded_sequence(x, torch.tensor([5, 3, 2]), batch_first=True)
    some: list[dict[str, Any]] = [{}, {"bias": False}, {"bidirectional": True}]
    for options in some:
        own = nn.LSTM(20, 24, 2, batch_first=True, **options)
        ours = LSTM(20, 24, 2, batch_first=True, **options)
        ours.load_state_dict(own.state_dict())
        if "bidirectional" in options:
            calls: Any = ((x, None), (x[0], None))
        else:
            calls = ((x, None), (x, states), (x[0], None), (packed, None))
        for input, hx in calls:
            found = []
            ran.clear()
            for module in (ours.eval(), own.eval()):
                with torch.autocast("cpu", torch.bfloat16):
                    y, last = module(input, hx)
                y = y if isinstance(y, Tensor) else y.data
                wanted = [x, *module.parameters()]
                grads = torch.autograd.grad(y.float().sum(), wanted, retain_graph=True)
                found.append([y, *last, *grads])
            assert bool(ran) == (input is not packed)
            assert all(a.dtype == b.dtype for a, b in zip(*found, strict=True))
            assert all(close(a, b.float()) for a, b in zip(*found, strict=True))


def test_without_tiles_torch_computes(monkeypatch, caplog) -> None:
    monkeypatch.setattr(kernel, "has_tiles", lambda: False)
    monkeypatch.setattr("elision.nn.modules._SAID", set())
    gru, x = GRU(3, 4).bfloat16(), torch.ones(2, 1, 3).bfloat16()
    for _ in range(2):
        assert gru(x)[0].dtype == torch.bfloat16
    assert [r.message for r in caplog.records if "bfloat16 without AMX" in r.message]
    assert len(caplog.records) == 1
    zero = torch.zeros(1, 4).bfloat16()
    with pytest.raises(RuntimeError, match="for bfloat16 without AMX"):
        recurrence("gru", x[0], [1], (zero,), Plain(*gru.all_weights[0]))
    gru.engine = "native"
    with pytest.raises(RuntimeError, match="no kernel for bfloat16 without AMX"):
        gru(x)
