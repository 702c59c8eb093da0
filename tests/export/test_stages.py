import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import elision
from elision.export.aware import aware_recipe, tuned
from elision.export.graph import QuantisedGraph
from elision.export.operations import Convolution, Linear
from elision.export.plain import plain
from elision.export.stages import check_exportable, exported
from elision.export.targets import TARGETS
from elision.methods import Int8, Static
from elision.study.trained import trained_for
from elision.workloads import Dataset, Workload, find_workload

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def digits() -> tuple[Workload, Dataset]:
    workload = find_workload("digits-cnn").changed(
        epochs=2, model="cnn(width=4)", train_images=600
    )
    return workload, workload.load_dataset()


@pytest.fixture(scope="module")
def pruned(digits: tuple[Workload, Dataset]) -> nn.Module:
    return trained_for(digits[0], "gradual:sparsity=0.6", digits[1])


def _zeros(graph: QuantisedGraph) -> float:
    layers = [o for o in graph.operations if isinstance(o, (Convolution, Linear))]
    zeros = sum(int((o.weight == 0).sum()) for o in layers)
    return zeros / sum(o.weight.numel() for o in layers)


def _export(
    pruned: nn.Module, digits: tuple[Workload, Dataset], folder: Path, **options: Any
) -> Any:
    targets = {"onnx": TARGETS["onnx"]}
    return exported(
        pruned, *digits, folder, targets, calibration=64, examples=200, **options
    )


def test_each_stage_is_measured_and_masks_survive(
    pruned: nn.Module, digits: tuple[Workload, Dataset], tmp_path: Path
) -> None:
    before = copy.deepcopy(pruned.state_dict())
    found = _export(pruned, digits, tmp_path)
    trained, prune, fold, int8, onnx = found.stages
    assert [s.name for s in found.stages] == [
        "trained", "pruned", "folded", "int8", "onnx",
    ]  # fmt: skip
    assert trained.accuracy == pytest.approx(prune.accuracy, abs=0.005)
    assert abs(fold.accuracy - int8.accuracy) < 0.05
    assert int8.accuracy == pytest.approx(onnx.accuracy, abs=0.01)
    assert prune.bytes < trained.bytes
    assert onnx.bytes == found.files["onnx"].stat().st_size
    assert found.graph is not None
    assert _zeros(found.graph) > 0.5
    assert [row["inputs"] for row in found.agreements] == [200] * 4
    for name, value in pruned.state_dict().items():
        assert torch.equal(value, before[name])


def test_training_under_rounding_keeps_the_zeros_and_helps_few_bits(
    pruned: nn.Module, digits: tuple[Workload, Dataset], tmp_path: Path
) -> None:
    post = _export(pruned, digits, tmp_path, bits=2)
    aware = _export(pruned, digits, tmp_path, bits=2, quantise="aware", epochs=2)
    assert aware.stages[-2].accuracy > post.stages[-2].accuracy
    network = plain(copy.deepcopy(pruned))
    made = tuned(network, *digits, epochs=1)
    old = [p for n, p in network.named_parameters() if p.ndim > 1]
    new = [p for n, p in made.named_parameters() if p.ndim > 1]
    for before, after in zip(old, new, strict=True):
        assert torch.equal(before == 0, after == 0)
        assert not torch.equal(before, after)


def test_without_quantising_the_file_is_the_network(
    pruned: nn.Module, digits: tuple[Workload, Dataset], tmp_path: Path
) -> None:
    found = _export(pruned, digits, tmp_path, quantise="none")
    assert found.graph is None
    assert found.agreements[0]["largest difference"] < 1e-4
    assert found.stages[-1].accuracy == found.stages[-2].accuracy


def test_a_recipe_that_rounds_is_made_plain_without_its_rounding() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(8, 4)
    weight = layer.weight.detach().clone()
    model = elision.elide(layer, Int8())
    assert torch.equal(plain(model).weight, weight)  # pyright: ignore[reportArgumentType]
    masked = elision.elide(
        nn.Sequential(nn.Linear(8, 4)), Static(0.5, dense=()) + Int8()
    )
    found: Any = plain(masked)[0]
    assert int((found.weight == 0).sum()) == 16
    assert found.weight.unique().numel() == 17


def test_a_plain_model_stays_as_it_is() -> None:
    model = nn.Linear(2, 2)
    assert plain(model) is model


def test_a_forward_product_that_changes_its_input_is_refused() -> None:
    from elision.layers import Recipe, Table
    from elision.operands import TopK
    from elision.products import Product

    table = Table({Product.FORWARD: {"input": TopK(0.5)}})
    model = elision.elide(nn.Sequential(nn.Linear(4, 4)), Recipe("halves", table))
    with pytest.raises(ValueError, match="which a plain layer cannot"):
        plain(model)


def test_networks_without_an_integer_form_are_refused_before_training() -> None:
    lstm = find_workload("digits-cnn").changed(model="lstm")
    with pytest.raises(ValueError, match=r"\(LSTM\); a recurrent layer"):
        check_exportable(lstm, lstm.load_dataset())
    with pytest.raises(ValueError, match="its task is language-modelling"):
        check_exportable(find_workload("verses-lstm"), object())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"quantise": "later"}, "'post' or 'aware' or 'none'"),
        ({"bits": 1}, r"bits=1.*\[2, 8\]"),
        ({"epochs": 0}, "epochs=0"),
    ],
)
def test_wrong_arguments_are_refused(
    options: dict[str, Any],
    said: str,
    pruned: nn.Module,
    digits: tuple[Workload, Dataset],
    tmp_path: Path,
) -> None:
    with pytest.raises(ValueError, match=said):
        _export(pruned, digits, tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_the_aware_recipe_rounds_the_forward_product_alone() -> None:
    from elision.operands import KEEP

    table = aware_recipe(4).table
    changed = [(p.name, o) for p, o, transform in table if transform != KEEP]
    assert changed == [("FORWARD", "input"), ("FORWARD", "weight")]
