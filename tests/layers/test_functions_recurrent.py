"""Recurrent layers with gates of one's own: torch's results with torch's functions."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import elision
from elision.functional import k_sigmoid, k_tanh
from elision.layers import replaced_functions

TANH = {"tanh": torch.tanh}
EXACT = {**TANH, "sigmoid": torch.sigmoid}

FORMS: dict[str, dict[str, Any]] = {
    "one layer": {},
    "no bias": {"bias": False},
    "three layers": {"num_layers": 3},
    "both directions": {"bidirectional": True},
    "batch first": {"batch_first": True},
    "all": {"num_layers": 2, "bidirectional": True, "batch_first": True},
}
PROJECTED: dict[str, dict[str, Any]] = {
    "projected": {"proj_size": 2},
    "projected, all": {"proj_size": 3, "num_layers": 2, "bidirectional": True},
    "projected, no bias": {"proj_size": 2, "bias": False},
}
LAYERS = [(nn.LSTM, form) for form in (*FORMS, *PROJECTED)]
LAYERS += [(kind, form) for kind in (nn.GRU, nn.RNN) for form in FORMS]  # type: ignore[list-item]


class Whole(nn.Module):
    """A model that holds one recurrent layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *args: Any) -> Any:
        """The layer's answer."""
        return self.layer(*args)


def flat(answer: Any) -> list[Tensor]:
    """All tensors of an answer, in order."""
    if isinstance(answer, Tensor):
        return [answer]
    if isinstance(answer, PackedSequence):
        return [answer.data]
    return [x for part in answer for x in flat(part)]


def gradients(model: nn.Module, *args: Any) -> list[Tensor]:
    """Outputs and gradients of every parameter and tensor given."""
    model.zero_grad()
    outputs = flat(model(*args))
    weights = [torch.linspace(-1, 1, y.numel()).view(y.shape) for y in outputs]
    total = sum((y * w).sum() for y, w in zip(outputs, weights, strict=True))
    assert isinstance(total, Tensor)
    return outputs + list(torch.autograd.grad(total, [*model.parameters()]))


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        assert torch.allclose(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported")
@pytest.mark.parametrize(("kind", "form"), LAYERS)
@pytest.mark.parametrize("given", ["padded", "packed", "unbatched"])
def test_with_torchs_functions_it_is_torchs_layer(
    kind: Any, form: str, given: str
) -> None:
    torch.manual_seed(0)
    options = (FORMS | PROJECTED)[form]
    layer = kind(3, 4, **options)
    first = layer.batch_first
    x: Any = torch.randn(3, 5, 3)  # three sequences of five steps
    if given == "packed":
        x = pack_padded_sequence(x, torch.tensor([2, 5, 3]), True, enforce_sorted=False)
    elif given == "unbatched":
        x = x[0]
    elif not first:
        x = x.transpose(0, 1)
    batch = () if given == "unbatched" else (3,)
    depth = layer.num_layers * (2 if layer.bidirectional else 1)
    units = options.get("proj_size", 4)
    h = torch.randn(depth, *batch, units)
    state = (h, torch.randn(depth, *batch, 4)) if kind is nn.LSTM else h
    model = Whole(layer)
    for args in ((x,), (x, state)):
        expected = gradients(model, *args)
        elision.elide(model, "dense", functions=TANH if kind is nn.RNN else EXACT)
        assert_same(gradients(model, *args), expected)
        elision.restore(model)


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
@pytest.mark.parametrize("bias", [True, False])
def test_cells(kind: Any, bias: bool) -> None:
    torch.manual_seed(0)
    model, x = Whole(kind(3, 4, bias=bias)), torch.randn(2, 3)
    expected = gradients(model, x)
    elision.elide(model, "dense", functions=TANH if kind is nn.RNNCell else EXACT)
    assert_same(gradients(model, x), expected)


def test_the_gates_are_those_that_are_named() -> None:
    torch.manual_seed(0)
    layer, x = nn.LSTM(3, 4), torch.randn(1, 2, 3)
    w_i, _, b_i, b_h = layer._flat_weights
    i, _, g, o = (x[0] @ w_i.T + b_i + b_h).chunk(4, 1)
    c = k_sigmoid(i) * k_tanh(g)
    expected = k_sigmoid(o) * k_tanh(c)
    elision.elide(layer, "dense", functions={"tanh": "k-tanh", "sigmoid": "k-sigmoid"})
    assert torch.allclose(layer(x)[0][0], expected, atol=4e-3)  # one bfloat16 apart
    told = [(r.what, r.calls, r.through) for r in replaced_functions(layer)]
    assert told == [("tanh", 1, ("lstm",)), ("sigmoid", 1, ("lstm",))]
    assert list(layer.state_dict()) == list(nn.LSTM(3, 4).state_dict())


def test_dropout_is_between_the_layers_and_only_in_training() -> None:
    torch.manual_seed(0)
    layer = nn.LSTM(3, 64, num_layers=2, dropout=0.9)
    x = torch.randn(4, 2, 3)
    elision.elide(layer, "dense", functions=EXACT)
    assert not torch.equal(layer(x)[0], layer(x)[0])
    layer.eval()
    kept = layer(x)[0]
    assert torch.equal(kept, layer(x)[0])
    assert torch.allclose(kept, elision.restore(layer)(x)[0], atol=1e-6)


def test_outputs_of_packed_sequences_unpack() -> None:
    torch.manual_seed(0)
    layer = nn.GRU(3, 4, batch_first=True)
    x = torch.randn(3, 5, 3)
    packed = pack_padded_sequence(x, torch.tensor([5, 3, 1]), True)
    expected, lengths = pad_packed_sequence(layer(packed)[0], True)
    elision.elide(layer, "dense", functions=EXACT)
    found, same = pad_packed_sequence(layer(packed)[0], True)
    assert torch.equal(lengths, same)
    assert torch.allclose(found, expected, atol=1e-6)


def test_empty_sequences_are_refused_as_before() -> None:
    layer = nn.LSTM(3, 4)
    elision.elide(layer, "dense", functions=EXACT)
    with pytest.raises(RuntimeError, match="sequence length to be larger than 0"):
        layer(torch.zeros(0, 2, 3))
