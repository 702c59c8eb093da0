"""The registry of layer types, watching, and extras, over a user's own layer."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

import elision
from elision.layers import (
    ELIDED,
    ElidedLayer,
    ElidedLinear,
    Observation,
    attach_extra,
    elidable_layers,
    extra,
    register,
    watch,
)
from elision.methods import Swat
from elision.products import Product


class Scaled(nn.Linear):
    """A linear layer with a parameter and a forward of its own."""

    def __init__(self, inner: int, columns: int) -> None:
        super().__init__(inner, columns)
        self.scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, input: Tensor) -> Tensor:
        return self.scale * super().forward(input)


class ElidedScaled(ElidedLayer, Scaled):
    def forward(self, input: Tensor) -> Tensor:
        return self.scale * self.run_products(input, self.weight, self.bias)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ELIDED, Scaled, ElidedScaled)  # taken out again afterwards
    register(Scaled, ElidedScaled)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(Scaled(64, 256), nn.ReLU(), nn.Linear(256, 64))


def batch() -> Tensor:
    return torch.randn(256, 64, generator=torch.Generator().manual_seed(1))


def gradients(model: nn.Module) -> list[Tensor]:
    model.zero_grad()
    model(batch()).square().mean().backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


def test_a_subclass_is_left_alone_until_it_is_registered() -> None:
    assert list(elidable_layers(network())) == ["2"]


@pytest.mark.usefixtures("registered")
def test_a_registered_layer_is_elided_and_restored() -> None:
    model = network()
    plain = gradients(model)
    elision.elide(model, elision.Recipe("dense"))
    assert type(model[0]) is ElidedScaled  # pyright: ignore[reportIndexIssue]
    assert all(map(torch.equal, gradients(model), plain))
    elision.elide(model, Swat(0.5, dense=()))
    with elision.metered(model) as meter:
        gradients(model)
    assert meter.by_layer["0", Product.FORWARD].ratio == 0.5
    elision.restore(model)
    assert type(model[0]) is Scaled  # pyright: ignore[reportIndexIssue]
    assert all(map(torch.equal, gradients(model), plain))


@pytest.mark.usefixtures("registered")
def test_no_engine_leaves_out_the_forward_of_a_registered_layer() -> None:
    by_torch = elision.elide(network(), Swat(0.9, dense=()), engine="torch")
    native = elision.elide(network(), Swat(0.9, dense=()), engine="native")
    torch.testing.assert_close(native(batch()), by_torch(batch()))


@pytest.mark.usefixtures("registered")
def test_copies_and_pickles_of_a_registered_layer_restore() -> None:
    model = elision.elide(network(), Swat(0.5, dense=()), engine="torch")
    wanted = model(batch())
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(batch()), wanted)
        assert type(elision.restore(other)[0]) is Scaled  # pyright: ignore[reportIndexIssue]
    assert type(model[0]) is ElidedScaled  # pyright: ignore[reportIndexIssue]


@pytest.mark.usefixtures("registered")
def test_a_model_elided_under_a_replaced_type_is_restored() -> None:
    class Other(ElidedScaled):
        pass

    model = elision.elide(network(), Swat(0.5, dense=()))
    register(Scaled, Other)
    assert type(elision.restore(model)[0]) is Scaled  # pyright: ignore[reportIndexIssue]
    elision.elide(model, Swat(0.5, dense=()))
    assert type(model[0]) is Other  # pyright: ignore[reportIndexIssue]


class Idle(ElidedLayer, Scaled):
    """Gives no forward of its own."""


class Hiding(ElidedLinear, Scaled):
    """Inherits a forward that knows nothing of the scale."""


class Backward(Scaled, ElidedLayer):
    """Its bases stand the wrong way round."""


@pytest.mark.parametrize(
    ("plain", "elided", "message"),
    [
        (int, ElidedScaled, "int is no subclass of torch.nn.Module"),
        (Scaled, Scaled, "Scaled is no subclass of elision.layers.ElidedLayer"),
        (nn.PReLU, ElidedScaled, "it is no subclass of PReLU"),
        (Scaled, Backward, "Scaled comes before ElidedLayer among its bases"),
        (Scaled, Idle, "it only inherits the forward of Scaled"),
        (Scaled, Hiding, "the forward of ElidedLinear hides that of Scaled"),
    ],
)
def test_what_cannot_be_an_elided_type_is_refused(
    plain: type[nn.Module], elided: type[ElidedLayer], message: str
) -> None:
    with pytest.raises(TypeError, match=message) as error:
        register(plain, elided)
    assert "self.run_products(" in str(error.value)
    assert plain not in ELIDED


@pytest.mark.usefixtures("registered")
def test_one_elided_type_serves_one_plain_type() -> None:
    with pytest.raises(ValueError, match="is the elided type of Scaled already"):
        register(nn.Linear, ElidedScaled)
    assert ELIDED[nn.Linear] is ElidedLinear


def test_watches_end_in_any_order() -> None:
    model = network()
    first: list[Observation] = []
    second: list[Observation] = []
    one = watch(model, first.append)
    two = watch(model, second.append)
    again = watch(model, second.append)
    gradients(model)
    # Of Linear two products, of its subclass, which calls F.linear, three.
    assert len(second) == 2 * len(first) == 10
    one.remove()
    one.remove()
    again.remove()
    gradients(model)
    assert (len(first), len(second)) == (5, 15)
    two.remove()
    assert type(model[2]) is nn.Linear  # pyright: ignore[reportIndexIssue]


def test_a_watch_outlives_the_restoring_of_its_model() -> None:
    model = elision.elide(network(), Swat(0.5, dense=()))
    with watch(model, lambda seen: None):
        elision.restore(model)
    with watch(model, lambda seen: None):
        elision.elide(model, Swat(0.5, dense=()))
    assert type(model[2]) is ElidedLinear  # pyright: ignore[reportIndexIssue]


def test_restore_removes_extras_and_their_hooks() -> None:
    model = elision.elide(network(), Swat(0.5, dense=()), engine="torch")
    calls: list[int] = []
    for number in (1, 2):  # the second takes the place of the first
        hook = model.register_forward_pre_hook(lambda *_, n=number: calls.append(n))  # pyright: ignore[reportArgumentType]
        attach_extra(model, "note", number, [hook])
    model(batch())
    assert (extra(model, "note"), calls) == (2, [2])
    assert extra(copy.deepcopy(model), "note") == 2
    elision.restore(model)
    model(batch())
    assert (extra(model, "note"), calls) == (None, [2])
