from pathlib import Path

import pytest
import torch
from networks import NETWORKS, SIDE, made
from torch import Tensor, nn

from elision.export import quantised
from elision.export.agreement import Agreement
from elision.export.targets import TARGETS

pytest.importorskip("ai_edge_litert.interpreter")


@pytest.mark.parametrize("name", NETWORKS)
def test_litert_answers_as_the_graph_within_a_step(name: str, tmp_path: Path) -> None:
    model, inputs = made(name)
    graph, target = quantised(model, inputs), TARGETS["litert"]
    path = tmp_path / "network.tflite"
    target.write(graph, path)
    codes = graph.encode(torch.randn(100, 3, SIDE, SIDE))
    found = Agreement.of(target.run(path, graph, codes), graph.run(codes))
    assert found.largest <= 1
    assert found.equal > 0.99
    assert [p.name for p in tmp_path.iterdir()] == ["network.tflite"]


def test_images_out_are_in_torchs_layout(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 24), nn.Unflatten(1, (2, 3, 4)))
    inputs = torch.randn(32, 3, 2, 2)
    graph, target = quantised(model, inputs), TARGETS["litert"]
    target.write(graph, tmp_path / "a.tflite")
    codes = graph.encode(inputs)
    found = target.run(tmp_path / "a.tflite", graph, codes)
    assert found.shape == (32, 2, 3, 4)
    assert Agreement.of(found, graph.run(codes)).largest <= 1


def test_a_changed_bias_is_seen(tmp_path: Path) -> None:
    (model, inputs), (other, _) = made("cnn"), made("cnn")
    graph = quantised(model, inputs)
    with torch.no_grad():
        dict(other.named_parameters())["classifier.bias"][0] += 1
    path = tmp_path / "network.tflite"
    TARGETS["litert"].write(quantised(other, inputs), path)
    codes = graph.encode(inputs)
    answers = TARGETS["litert"].run(path, graph, codes)
    assert Agreement.of(answers, graph.run(codes)).largest > 1


class Clamped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x + x).clamp(-0.3, 0.7)


def test_what_litert_lacks_is_refused_by_name(tmp_path: Path) -> None:
    path, target = tmp_path / "a.tflite", TARGETS["litert"]
    inputs = torch.randn(8, 4, 6, 6)
    grouped = quantised(nn.Conv2d(4, 4, 1, groups=2), inputs)
    with pytest.raises(ValueError, match="one group or as many groups as channels"):
        target.write(grouped, path)
    pool = quantised(nn.MaxPool2d(2, dilation=2), inputs)
    with pytest.raises(ValueError, match="no maximum with a dilation"):
        target.write(pool, path)
    with pytest.raises(ValueError, match="clamps as relu, relu6 or hardtanh do"):
        target.write(quantised(Clamped(), inputs), path)
    with pytest.raises(ValueError, match="--quantise post or aware"):
        target.check_float()
    assert not list(tmp_path.iterdir())
