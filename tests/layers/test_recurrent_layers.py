"""Recurrent layers in the table: torch's results where nothing is left out, any recipe else."""

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence
from torch.utils.checkpoint import checkpoint

import elision
from elision.layers import (
    NoEffectWarning,
    Table,
    TiedWeightWarning,
    elidable_layers,
    watch,
)
from elision.methods import METHODS, Static, Swat
from elision.native import shared_object
from elision.nn.given import selected_recurrence
from elision.nn.sparse import sparse_recurrence
from elision.operands import TopK
from elision.products import MatmulGeometry, Product

#: Masks here never move, and torch speaks of projections.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

KINDS: list[tuple[type[nn.Module], dict[str, Any]]] = [
    (nn.LSTM, {}),
    (nn.LSTM, {"num_layers": 2, "bidirectional": True, "proj_size": 2}),
    (nn.LSTM, {"bias": False, "batch_first": True}),
    (nn.GRU, {"num_layers": 2, "bidirectional": True}),
    (nn.GRU, {"bias": False}),
    (nn.RNN, {"num_layers": 3}),
    (nn.RNN, {"nonlinearity": "relu", "bidirectional": True}),
]
CELLS: list[tuple[type[nn.Module], dict[str, Any]]] = [
    (nn.LSTMCell, {}),
    (nn.GRUCell, {"bias": False}),
    (nn.RNNCell, {}),
    (nn.RNNCell, {"nonlinearity": "relu"}),
]


class Tagger(nn.Module):
    """A bidirectional LSTM and a cell between two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 8)
        self.lstm = nn.LSTM(8, 4, num_layers=2, bidirectional=True, dropout=0.1)
        self.cell = nn.GRUCell(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the last state; ``x`` is ``(time, batch, 4)``."""
        y, _ = self.lstm(self.embed(x))
        h = y.new_zeros(y.shape[1], 8)
        for step in y:
            h = self.cell(step, h)
        return self.head(h)


def tensors(answer: Any) -> list[Tensor]:
    if isinstance(answer, PackedSequence):
        return [answer.data]
    return (
        [answer]
        if isinstance(answer, Tensor)
        else [t for a in answer for t in tensors(a)]
    )


def learned(model: nn.Module, *args: Any) -> list[Tensor]:
    """Outputs, and gradients of the parameters and the input."""
    model.zero_grad()
    x = args[0].data if isinstance(args[0], PackedSequence) else args[0]
    x.requires_grad_()
    x.grad = None
    outputs = tensors(model(*args))
    torch.manual_seed(1)
    sum((y * torch.randn_like(y)).sum() for y in outputs).backward()  # type: ignore[union-attr]
    grads = [p.grad for p in model.parameters()]
    return [*(y.detach().clone() for y in outputs), *grads, x.grad]  # type: ignore[list-item]


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def fixed(sparsity: float, *dense: str) -> elision.Recipe:
    """Masks that leave the same share of every weight."""
    return Static(sparsity, distribution="uniform", dense=dense)


def seen_by_nobody(_: Any) -> None:
    """An observer, which makes a layer compute product by product."""


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_product_by_product_is_torchs_layer(
    kind: Any, options: dict[str, Any], packed: bool
) -> None:
    torch.manual_seed(0)
    model = kind(4, 3, **options)
    x: Any = torch.randn(5, 2, 4)
    if packed:
        x = pack_sequence([torch.randn(n, 4) for n in (2, 5, 4)], enforce_sorted=False)
    expected = learned(model, x)
    with watch(model, seen_by_nobody):
        assert_same(learned(model, x), expected)
    assert type(model) is kind
    assert not dict(model.named_children())
    assert all(
        torch.equal(a, b) for a, b in zip(learned(model, x), expected, strict=True)
    )


@pytest.mark.parametrize(("kind", "options"), CELLS)
def test_cells(kind: Any, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model, x = kind(4, 3, **options), torch.randn(5, 4)
    expected = learned(model, x)
    with watch(model, seen_by_nobody):
        assert_same(learned(model, x), expected)


@given(
    kind=st.sampled_from([nn.LSTM, nn.GRU, nn.RNN]),
    sizes=st.tuples(*[st.integers(1, 4)] * 4),
    layers=st.integers(1, 3),
    both=st.booleans(),
    first=st.booleans(),
    batched=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_sizes(
    kind: Any,
    sizes: tuple[int, ...],
    layers: int,
    both: bool,
    first: bool,
    batched: bool,
) -> None:
    steps, batch, inputs, units = sizes
    model = kind(inputs, units, layers, batch_first=first, bidirectional=both)
    shape = (batch, steps, inputs) if first else (steps, batch, inputs)
    x = torch.randn(shape if batched else (steps, inputs))
    expected = learned(model, x)
    with watch(model, seen_by_nobody):
        assert_same(learned(model, x), expected)


@pytest.mark.parametrize("engine", ["torch", "auto"])
@pytest.mark.parametrize(("kind", "options"), [*KINDS, *CELLS])
def test_masks_are_torchs_kernel_on_what_they_leave(
    kind: Any, options: dict[str, Any], engine: str
) -> None:
    torch.manual_seed(0)
    model = kind(6, 4, **options)
    x = torch.randn(5, 6) if "Cell" in kind.__name__ else torch.randn(3, 5, 6)
    masked = copy.deepcopy(model)
    elision.elide(masked, fixed(0.5), engine=engine)
    masks = {
        f"weight_{name}": b
        for name, part in elidable_layers(masked).items()
        for n, b in part.named_buffers()
        if n.endswith("mask")
    }
    assert (
        0
        < sum(int(m.sum()) for m in masks.values())
        < sum(m.numel() for m in masks.values())
    )
    for name, mask in masks.items():
        model.get_parameter(name).data.mul_(mask)
    found, expected = learned(masked, x), learned(model, x)
    with watch(masked, seen_by_nobody):
        assert_same(learned(masked, x), found)
    for name, parameter in masked.named_parameters():
        theirs = model.get_parameter(name).grad
        torch.testing.assert_close(parameter.grad, theirs, rtol=1e-5, atol=1e-6)
    assert_same(found, expected)
    # Whose masks stay needs no gradient elsewhere.
    elision.topology.attach(masked, torch.optim.SGD(masked.parameters(), 0.1), steps=9)
    learned(masked, x)
    for name, mask in masks.items():
        assert not masked.get_parameter(name).grad[~mask].any()


@pytest.mark.parametrize("recipe", sorted(METHODS))
def test_every_recipe_trains_and_resumes_to_the_last_bit(recipe: str) -> None:
    def made() -> tuple[nn.Module, Any]:
        torch.manual_seed(0)
        model = elision.elide(Tagger(), recipe)
        optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
        elision.topology.attach(model, optimizer, steps=8)
        return model, optimizer

    def step(model: nn.Module, optimizer: Any, number: int) -> None:
        torch.manual_seed(number)
        x, target = torch.randn(4, 6, 4), torch.randint(0, 3, (6,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), target).backward()
        optimizer.step()

    model, optimizer = made()
    for number in range(3):
        step(model, optimizer, number)
    saved = io.BytesIO()
    torch.save((model.state_dict(), optimizer.state_dict()), saved)
    for number in range(3, 6):
        step(model, optimizer, number)
    again, other = made()
    saved.seek(0)
    state, of_optimizer = torch.load(saved)
    again.load_state_dict(state)
    other.load_state_dict(of_optimizer)
    for number in range(3, 6):
        step(again, other, number)
    for (name, a), b in zip(model.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert a.isfinite().all(), name
    keys = set(Tagger().state_dict())
    assert keys <= set(state)
    assert all(k.rpartition(".")[2].startswith("elision_") for k in set(state) - keys)
    elision.restore(model)
    assert set(model.state_dict()) == keys
    assert [type(m) for m in model.modules()] == [type(m) for m in Tagger().modules()]


def test_a_weight_is_transformed_once_in_a_pass() -> None:
    calls: list[str] = []

    class Counted(TopK):
        def __call__(self, x: Tensor, state: Any, training: bool) -> Tensor:
            calls.append(str(tuple(x.shape)))
            return super().__call__(x, state, training)

    row = {"weight": Counted(0.5)}
    table = Table({Product.FORWARD: row, Product.INPUT_GRAD: row})
    model = elision.elide(
        nn.LSTM(3, 4), elision.Recipe("counted", table), engine="torch"
    )
    learned(model, torch.randn(7, 2, 3))
    assert sorted(calls) == ["(16, 3)", "(16, 4)"]


def test_what_is_recorded_and_metered() -> None:
    torch.manual_seed(0)
    model = Tagger()
    with elision.metered(model) as meter, elision.record(model) as trace:
        model(torch.randn(4, 6, 4)).sum().backward()
    products = list(trace)
    hidden = [p for p in products if p.name == "lstm.hh_l1" and p.first.any()]
    assert {p.kind for p in hidden} == set(Product)
    assert sum(p.kind is Product.FORWARD for p in hidden) == 3  # one a step; h_0 is 0
    assert hidden[0].geometry == MatmulGeometry(6, 4, 16)
    whole = next(p for p in products if p.name == "lstm.ih_l1")
    assert whole.geometry == MatmulGeometry(24, 8, 16)  # all steps together
    # Forward MACs a token, by hand: embed, two directions of two layers, cell, head.
    token = 4 * 8 + 2 * 16 * (8 + 4) + 2 * 16 * (8 + 4) + 24 * (8 + 8)
    assert meter.by_product()[Product.FORWARD].dense_macs == 24 * token + 6 * 24
    assert not meter.outside
    assert not meter.kernels
    for machine in elision.accelerators.ACCELERATORS.values():
        assert machine().cost(hidden[0]).cycles > 0


def test_swat_reads_the_largest_of_every_operand() -> None:
    torch.manual_seed(0)
    model = elision.elide(nn.GRU(8, 8), Swat(0.75, dense=()), engine="torch")
    with elision.record(model) as trace:
        model(torch.randn(3, 5, 8))[0].sum().backward()
    for product in trace:
        densities = product.densities
        assert densities.get("weight", 0.25) == 0.25
        if product.kind is Product.WEIGHT_GRAD:
            assert densities["input"] <= 0.25


def test_explain_lists_parts_and_subclasses() -> None:
    class Own(nn.LSTM):
        def forward(self, *args: Any) -> Any:
            return super().forward(*args)

    model = nn.ModuleList([nn.LSTM(3, 4), Own(3, 4), nn.GRUCell(3, 4)])
    found = elision.explain(model)
    assert found.reached == ["0.ih_l0", "0.hh_l0", "2.ih", "2.hh"]
    assert [(part.name, part.what) for part in found.unreached] == [("1", "Own")]
    assert "forward of its own" in found.unreached[0].why
    elision.elide(
        model,
        fixed(
            0.5,
            "0.hh_l0",
        ),
    )
    found = elision.explain(model)
    assert [p.name for p in found.unreached] == ["0.ih_l0", "0.hh_l0", "1"]


def test_selectors_and_left_dense() -> None:
    torch.manual_seed(0)
    model = Tagger()
    recipe = fixed(0.5, ":linear", "*ih*")
    elision.elide(model, recipe)
    sparse = {
        n.rpartition(".")[0]
        for n, b in model.named_buffers()
        if n.endswith("mask") and not b.all()
    }
    hidden = {f"lstm.hh_l{i}{d}" for i in range(2) for d in ("", "_reverse")}
    assert sparse == hidden | {"cell.hh"}


def test_copies_pickles_moves_and_a_recipe_that_is_refused() -> None:
    torch.manual_seed(0)
    model = elision.elide(Tagger().eval(), fixed(0.5))
    x = torch.randn(4, 6, 4)
    expected = model(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        part = other.lstm.hh_l0
        assert part.whole is other.lstm
        assert part.weight is other.lstm.weight_hh_l0
        torch.testing.assert_close(other(x), expected)
        assert other.double()(x.double()).dtype == torch.float64
    with pytest.raises(ValueError):
        elision.elide(model, "n-m:kept=3,of=7")
    torch.testing.assert_close(model(x), expected)
    assert isinstance(model.lstm.hh_l0, nn.Module)
    elision.elide(model, fixed(0.25))
    assert len(list(model.lstm.children())) == 8


def test_assigned_weights_are_the_ones_that_are_read() -> None:
    torch.manual_seed(0)
    model = elision.elide(nn.LSTM(3, 4), fixed(0.5), engine="torch")
    state = {
        k: torch.zeros_like(v) if "weight" in k else v
        for k, v in model.state_dict().items()
    }
    model.load_state_dict(state, assign=True)
    assert not model.hh_l0.weight.any()
    y, _ = model(torch.randn(2, 1, 3))
    plain = nn.LSTM(3, 4)
    plain.load_state_dict({k: v for k, v in state.items() if "elision" not in k})
    torch.testing.assert_close(y, plain(torch.zeros(2, 1, 3))[0])


def test_a_finalised_model_keeps_its_outputs(tmp_path: Any) -> None:
    torch.manual_seed(0)
    model = elision.elide(Tagger().eval(), fixed(0.75), engine="torch")
    x = torch.randn(4, 6, 4)
    expected = model(x)
    elision.export.finalize(model)
    assert type(model.lstm) is nn.LSTM
    torch.testing.assert_close(model(x), expected)
    assert (model.lstm.weight_hh_l0 == 0).float().mean() > 0.5
    elision.export.save_sparse(model, tmp_path / "sparse.safetensors")
    state = elision.export.load_sparse(tmp_path / "sparse.safetensors")
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
    assert "lstm.hh_l0" in elision.export.to_csr(model)


@pytest.mark.parametrize("recipe", ["swat:sparsity=0.5", "static:sparsity=0.5", "fp8"])
def test_checkpointing_changes_nothing(recipe: str) -> None:
    torch.manual_seed(0)
    model = elision.elide(nn.LSTM(4, 5), recipe, engine="torch")
    other, x = copy.deepcopy(model), torch.randn(3, 2, 4)
    for _ in range(3):
        model.zero_grad()
        other.zero_grad()
        model(x)[0].square().sum().backward()
        checkpoint(other, x, use_reentrant=False)[0].square().sum().backward()
        for a, b in zip(model.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad)
    for a, b in zip(model.buffers(), other.buffers(), strict=True):
        assert torch.equal(a, b)


def test_gates_are_replaced_in_an_elided_layer() -> None:
    torch.manual_seed(0)
    for recipe in (fixed(0.5), Swat(0.5, dense=())):
        model = elision.elide(nn.LSTM(3, 4), recipe, engine="torch")
        x = torch.randn(5, 2, 3)
        usual = model(x)[0]
        elision.elide(model, recipe, engine="torch", functions={"tanh": torch.relu})
        other = model(x)[0]
        assert (other >= 0).all()
        assert not torch.allclose(usual, other)
        assert elision.layers.replaced_functions(model)[0].calls


def test_shared_and_computed_weights_stay_dense() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.GRU(4, 4), nn.Bilinear(2, 2, 3)
            self.scale = self.a.weight_hh_l0

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x)[0] * self.scale.sum()

    with pytest.warns(TiedWeightWarning, match=r"a\.hh_l0"):
        model = elision.elide(Tied(), fixed(0.5))
    assert not model.a.hh_l0._elision_plan.changes
    normed = nn.utils.parametrizations.weight_norm(nn.GRU(4, 4), "weight_hh_l0")
    with pytest.warns(NoEffectWarning):
        elision.elide(normed, fixed(0.5))


def test_an_empty_sequence_is_torchs_error() -> None:
    model = elision.elide(nn.LSTM(3, 4), Swat(0.5, dense=()))
    with pytest.raises(RuntimeError, match="sequence length to be larger than 0"):
        model(torch.randn(0, 2, 3))
    with pytest.raises((RuntimeError, ValueError), match=r"size|dim"):
        model(torch.randn(2, 2, 5))


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_sparse_masks_are_computed_by_what_they_keep(
    kind: Any, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = kind(32, 24, num_layers=2, bidirectional=True)
    x: Any = torch.randn(5, 20, 32)
    if packed:
        lengths = [1 + i % 5 for i in range(20)]
        x = pack_sequence([torch.randn(n, 32) for n in lengths], enforce_sorted=False)
    masked = elision.elide(copy.deepcopy(model), Static(0.9, dense=()))
    elision.topology.attach(masked, torch.optim.SGD(masked.parameters(), 0.1), steps=9)
    masks = {
        f"weight_{n.split('.')[0]}": b
        for n, b in masked.named_buffers()
        if n.endswith("mask")
    }
    for name, mask in masks.items():
        model.get_parameter(name).data.mul_(mask)
    calls: list[str] = []

    def counted(cell: str, *args: Any, **kwargs: Any) -> Any:
        calls.append(cell)
        return sparse_recurrence(cell, *args, **kwargs)

    monkeypatch.setattr("elision.layers.modules.recurrent.sparse_recurrence", counted)
    found, expected = learned(masked, x), learned(model, x)
    if shared_object.unavailable() is None:
        assert len(calls) == 4  # two layers in two directions
    assert_same(found[:1], expected[:1])
    assert_same(found[-1:], expected[-1:])
    for name, parameter in masked.named_parameters():
        theirs = model.get_parameter(name).grad
        theirs = theirs * masks[name] if name in masks else theirs
        torch.testing.assert_close(parameter.grad, theirs, rtol=1e-5, atol=1e-5)
    # A mask that moves is listed anew.
    name, mask = next(iter(masks.items()))
    mask.copy_(mask.roll(1, 1))
    model.get_parameter(name).data.copy_(masked.get_parameter(name) * mask)
    assert_same(learned(masked, x)[:1], learned(model, x)[:1])


def test_growing_by_the_dense_gradient_takes_torchs_kernel() -> None:
    torch.manual_seed(0)
    model = elision.elide(nn.LSTM(32, 24), "rigl:sparsity=0.9")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    elision.topology.attach(model, optimizer, steps=9)
    weight = model.weight_hh_l0
    mask = model.hh_l0.elision_weight_for_forward_mask
    whole = []
    for _ in range(9):
        optimizer.zero_grad()
        before = mask.clone()
        model(torch.randn(5, 20, 32))[0].square().sum().backward()
        whole.append(bool(weight.grad[~before].any()))
        optimizer.step()
    assert any(whole)
    assert not all(whole)


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize(
    "dense", [(), ("hh_*",), ("ih_*",), ("ih_l0",)], ids=["none", "hh", "ih", "first"]
)
@pytest.mark.parametrize("sparsity", [0.5, 0.9])
def test_selection_by_kernels_is_the_loops(
    kind: Any, packed: bool, dense: Any, sparsity: float, monkeypatch: Any
) -> None:
    torch.manual_seed(0)
    model = kind(32, 24, num_layers=2, bidirectional=True)
    x = torch.randn(5, 20, 32, requires_grad=True)
    lengths = torch.tensor([1 + i % 5 for i in range(20)])
    recipe = Swat(sparsity, dense=dense)
    found = []
    calls: list[str] = []

    def counted(cell: str, *args: Any, **kwargs: Any) -> Any:
        calls.append(cell)
        return selected_recurrence(cell, *args, **kwargs)

    monkeypatch.setattr("elision.layers.modules.recurrent.selected_recurrence", counted)
    for engine in ("torch", "auto"):
        assert not calls  # the loop
        elided = elision.elide(copy.deepcopy(model), recipe, engine=engine)
        given: Any = x
        if packed:
            given = pack_padded_sequence(x, lengths, enforce_sorted=False)
        y, last = elided(given)
        last = last if isinstance(last, tuple) else (last,)
        results = [y.data if packed else y, *last]
        torch.manual_seed(1)
        directions = [torch.randn_like(part) for part in results]
        wanted = [x, *elided.parameters()]
        grads = torch.autograd.grad(results, wanted, directions, retain_graph=True)
        again = torch.autograd.grad(results, wanted, directions)
        assert all(torch.equal(a, b) for a, b in zip(grads, again, strict=True))
        found.append([*results, *grads])
    if shared_object.unavailable() is None:
        assert len(calls) == 4  # two layers in two directions
    for mine, loop in zip(*found, strict=True):
        assert (mine - loop).norm() <= 1e-5 * loop.norm() + 1e-6


@pytest.mark.parametrize("masked", ["ih", "hh"])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_mask_on_one_weight_is_computed_by_what_it_keeps(
    kind: Any, masked: str, monkeypatch: Any
) -> None:
    if shared_object.unavailable():
        pytest.skip("no kernels here")
    torch.manual_seed(0)
    model, x = kind(32, 24, num_layers=2), torch.randn(5, 20, 32)
    other = {"ih": "hh", "hh": "ih"}[masked]
    recipe = Static(0.9, distribution="uniform", dense=(f"{other}_*",))
    elided = elision.elide(copy.deepcopy(model), recipe)
    elision.topology.attach(elided, torch.optim.SGD(elided.parameters(), 0.1), steps=9)
    masks = {
        f"weight_{n.split('.')[0]}": b
        for n, b in elided.named_buffers()
        if n.endswith("mask") and not b.all()
    }
    assert masks
    for name, mask in masks.items():
        assert name.startswith(f"weight_{masked}")
        model.get_parameter(name).data.mul_(mask)
    calls: list[str] = []

    def counted(cell: str, *args: Any, **kwargs: Any) -> Any:
        calls.append(cell)
        return selected_recurrence(cell, *args, **kwargs)

    monkeypatch.setattr("elision.layers.modules.recurrent.selected_recurrence", counted)
    found, expected = learned(elided, x), learned(model, x)
    assert len(calls) == 2
    assert_same(found[:1], expected[:1])
    assert_same(found[-1:], expected[-1:])
    for key, parameter in elided.named_parameters():
        kept = masks.get(key, torch.tensor(True))
        theirs = model.get_parameter(key).grad * kept
        torch.testing.assert_close(parameter.grad * kept, theirs, rtol=1e-5, atol=1e-5)


# --- subclasses, and elision.nn ---------------------------------------------------------


class Encoder(nn.LSTM):
    """A subclass that computes what its base does."""


class FusedEncoder(elision.nn.GRU):
    """A subclass of ours."""


def masked_lstm(*args: Any, **kwargs: Any) -> elision.nn.LSTM:
    """An ``elision.nn.LSTM`` with masks of its own on the weights."""
    made = elision.nn.LSTM(*args, **kwargs)
    weights = {n: w for n, w in made.named_parameters() if n.startswith("weight")}
    made.mask_weights({n: torch.rand_like(w) < 0.5 for n, w in weights.items()})
    return made


SUBCLASSES: dict[str, Any] = {
    "subclass": lambda: Encoder(6, 4, num_layers=2, bidirectional=True, proj_size=2),
    "fused lstm": lambda: elision.nn.LSTM(6, 4, num_layers=2, bidirectional=True),
    "fused gru": lambda: FusedEncoder(6, 4, bias=False),
    "native": lambda: elision.nn.LSTM(6, 4, engine="auto", batch_first=True),
    "k-tanh": lambda: elision.nn.GRU(6, 4, num_layers=2, activation="k-tanh"),
    "masked": lambda: masked_lstm(6, 4, num_layers=2),
}


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("kind", SUBCLASSES)
def test_subclasses_without_a_forward_of_their_own(kind: str, packed: bool) -> None:
    torch.manual_seed(0)
    model = SUBCLASSES[kind]()
    plain, state = type(model), list(model.state_dict())
    x: Any = torch.randn(5, 3, 6)
    if packed:
        sequences = [torch.randn(n, 6) for n in (5, 2, 4)]
        x = pack_sequence(sequences, enforce_sorted=False)
    expected = learned(model, x)
    with watch(model, seen_by_nobody):
        assert isinstance(model, plain)
        assert_same(learned(model, x), expected)
    assert type(model) is plain
    elision.elide(model, "dense")
    assert_same(learned(model, x), expected)
    before = copy.deepcopy(model.state_dict())
    for recipe in (Swat(0.5, dense=()), fixed(0.5)):  # masks write the weights
        elision.elide(model, recipe, engine="torch")
        found = learned(model, x)
        assert not torch.allclose(found[0], expected[0])
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert type(other) is type(model)
            assert all(map(torch.equal, learned(other, x), found))
            assert type(elision.restore(other)) is plain
    elision.restore(model)
    assert list(model.state_dict()) == state
    model.load_state_dict(before)
    assert_same(learned(model, x), expected)


def test_own_masks_and_a_recipes_go_together() -> None:
    torch.manual_seed(0)
    model = masked_lstm(6, 4)
    x = torch.randn(5, 3, 6)
    plain = nn.LSTM(6, 4)
    plain.load_state_dict(model.state_dict())
    for name, own in model._masks.items():
        plain.get_parameter(name).data.mul_(own.places)
    elision.elide(model, fixed(0.5), engine="torch")
    for name, buffer in model.named_buffers():
        if name.endswith("mask"):
            plain.get_parameter(f"weight_{name.split('.')[0]}").data.mul_(buffer)
    torch.testing.assert_close(model(x)[0], plain(x)[0])


def test_a_forward_of_its_own_is_said_once() -> None:
    class Own(nn.GRU):
        def forward(self, *args: Any) -> Any:
            return super().forward(*args)[0]

    model = nn.Sequential(nn.Linear(3, 3), Own(3, 4), Own(4, 4))
    with pytest.warns(NoEffectWarning, match="of their own stay dense: 1, 2") as caught:
        elision.elide(model, Swat(0.5, dense=()))
    assert len(caught) == 1
