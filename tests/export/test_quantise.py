import copy

import pytest
import torch
from networks import NETWORKS, made
from torch import Tensor, nn

import elision
from elision.export import quantised
from elision.export.operations import Convolution, Linear
from elision.export.quantise import fake_quantised
from elision.workloads.models import make_model


@pytest.mark.parametrize("name", NETWORKS)
def test_integers_are_the_fake_quantised_network_within_one_step(name: str) -> None:
    model, inputs = made(name)
    graph, fake = fake_quantised(model, inputs)
    integers = graph.run_values(graph.encode(inputs))
    floats = fake.values(inputs)
    assert set(integers) == set(floats) == set(graph.values)
    for value, codes in integers.items():
        assert (codes - floats[value]).abs().max() <= 1, value
        assert codes.shape[1:] == graph.values[value].shape


@pytest.mark.parametrize("name", NETWORKS)
def test_each_operation_alone_is_within_one_step(name: str) -> None:
    model, inputs = made(name)
    graph, fake = fake_quantised(model, inputs)
    floats = {n: v.to(torch.int8) for n, v in fake.values(inputs).items()}
    for operation in graph.operations:
        found = operation.run(*(floats[n] for n in operation.inputs))
        assert (found.int() - floats[operation.name].int()).abs().max() <= 1


@pytest.mark.parametrize("name", NETWORKS)
def test_eight_bits_are_close_to_the_network(name: str) -> None:
    model, inputs = made(name)
    exact, found = model(inputs), quantised(model, inputs)(inputs)
    assert (found - exact).norm() / exact.norm() < 0.1
    assert found.shape == exact.shape


def test_fewer_bits_are_worse_and_stay_in_their_range() -> None:
    model, inputs = made("cnn")
    exact = model(inputs)
    errors = []
    for bits in (8, 4, 2):
        graph = quantised(model, inputs, bits=bits)
        for operation in graph.operations:
            if isinstance(operation, (Convolution, Linear)):
                assert operation.weight.abs().max() == 2 ** (bits - 1) - 1
        errors.append(float((graph(inputs) - exact).norm()))
    assert errors == sorted(errors)


def test_the_model_stays_as_it_was() -> None:
    model, inputs = made("resnet8")
    before = copy.deepcopy(model.state_dict())
    quantised(model, inputs)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_pruned_weights_stay_zero_and_pruned_channels_keep_their_bias() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(4, 3)
    with torch.no_grad():
        layer.weight[0] = 0
        layer.bias[0] = 0.37
        layer.weight[1, 2:] = 0
    graph = quantised(layer, torch.randn(64, 4))
    (operation,) = graph.operations
    assert isinstance(operation, Linear)
    assert torch.equal(operation.weight == 0, layer.weight == 0)
    step = graph.values[graph.output].scale
    assert abs(float(graph(torch.zeros(1, 4))[0, 0]) - 0.37) <= 0.51 * step


def test_copied_values_share_one_scale() -> None:
    graph = quantised(*made("fire"))
    for operation in graph.operations:
        if operation.keeps_scale:
            names = (operation.name, *operation.inputs)
            scales = [(graph.values[n].scale, graph.values[n].zero) for n in names]
            assert len(dict.fromkeys(scales)) == 1


def test_rectifiers_are_the_limits_of_the_layer_before() -> None:
    graph = quantised(*made("mobilenet-v2"))
    kinds = [operation.kind for operation in graph.operations]
    assert "lookup" not in kinds
    first = graph.operations[0]
    assert isinstance(first, Convolution)
    own = graph.values[first.name]
    assert first.low == own.zero
    assert (first.high - own.zero) * own.scale <= 6 + own.scale


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(8, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x)[0][:, -1]


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.last = nn.LayerNorm(8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.last(self.norm(x)), 1)


def test_a_recurrent_layer_is_named() -> None:
    with pytest.raises(ValueError, match=r"cell \(LSTM\); a recurrent layer is a loop"):
        quantised(Recurrent(), torch.randn(2, 3, 8))


def test_all_that_has_no_integer_form_is_named_at_once() -> None:
    named = r"norm\.layer_norm \(layer_norm\), softmax \(softmax\); there are"
    with pytest.raises(ValueError, match=named):
        quantised(Normed(), torch.randn(2, 8))


def test_a_constant_added_is_refused_by_name() -> None:
    class Shifted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1

    with pytest.raises(ValueError, match=r"add \(add\): must be of two activations"):
        quantised(Shifted(), torch.randn(2, 3))


def test_wrong_calibration_and_bits_are_refused() -> None:
    layer = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="all finite"):
        quantised(layer, torch.full((1, 2), float("nan")))
    with pytest.raises(ValueError, match="all finite"):
        quantised(layer, torch.zeros(0, 2))
    with pytest.raises(ValueError, match=r"bits=9.*\[2, 8\]"):
        quantised(layer, torch.zeros(1, 2), bits=9)


def test_an_elided_model_is_refused() -> None:
    model = elision.elide(
        make_model("cnn", in_channels=1, classes=2, width=2), elision.methods.Swat(0.5)
    )
    with pytest.raises(ValueError, match="finalize first"):
        quantised(model, torch.zeros(1, 1, 8, 8))


def test_codes_of_another_shape_are_refused() -> None:
    graph = quantised(nn.Linear(2, 2), torch.randn(4, 2))
    with pytest.raises(ValueError, match=r"int8 of shape \(N, 2\)"):
        graph.run(torch.zeros(1, 3, dtype=torch.int8))


def test_the_room_offers_what_finalize_offers() -> None:
    from elision.layers import finalize

    for name in finalize.__all__:
        assert getattr(elision.export, name) is getattr(finalize, name)


@pytest.mark.parametrize("name", ["squeezenet", "ds-cnn", "mobilenet-v3-small"])
def test_networks_of_small_devices_have_an_integer_form(name: str) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(4, 3, 32, 32)
    model = make_model(name, in_channels=3, classes=5).eval().requires_grad_(False)
    graph, fake = fake_quantised(model, inputs)
    floats = {n: v.to(torch.int8) for n, v in fake.values(inputs).items()}
    for operation in graph.operations:
        found = operation.run(*(floats[n] for n in operation.inputs))
        assert (found.int() - floats[operation.name].int()).abs().max() <= 1
