from pathlib import Path

import pytest
import torch
from networks import NETWORKS, SIDE, made

from elision.export import quantised
from elision.export.agreement import Agreement
from elision.export.targets import TARGETS
from elision.export.targets.base import Target
from elision.export.targets.onnx import Onnx

pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_runtime_answers_as_the_graph_within_a_step(
    name: str, tmp_path: Path
) -> None:
    model, inputs = made(name)
    graph, target = quantised(model, inputs), TARGETS["onnx"]
    path = tmp_path / "network.onnx"
    target.write(graph, path)
    codes = graph.encode(torch.randn(100, 3, SIDE, SIDE))
    found = Agreement.of(target.run(path, graph, codes), graph.run(codes))
    assert found.largest <= 1
    assert found.equal > 0.99
    assert [p.name for p in tmp_path.iterdir()] == ["network.onnx"]


def test_a_changed_bias_is_seen(tmp_path: Path) -> None:
    model, inputs = made("cnn")
    graph, other = quantised(model, inputs), made("cnn")[0]
    with torch.no_grad():
        other.classifier.bias[0] += 1  # pyright: ignore[reportAttributeAccessIssue, reportIndexIssue, reportOptionalSubscript]
    path = tmp_path / "network.onnx"
    TARGETS["onnx"].write(quantised(other, inputs), path)
    codes = graph.encode(inputs)
    answers = TARGETS["onnx"].run(path, graph, codes)
    assert Agreement.of(answers, graph.run(codes)).largest > 1


def test_a_network_in_floating_point_is_written_and_run(tmp_path: Path) -> None:
    model, inputs = made("cnn")
    path, target = tmp_path / "network.onnx", TARGETS["onnx"]
    target.write_float(model, inputs[:2], path)
    assert torch.allclose(target.run_float(path, inputs), model(inputs), atol=1e-5)


def test_a_target_that_is_not_installed_says_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Onnx, "needs", ("no_such_module",))
    with pytest.raises(ModuleNotFoundError, match=r"'elision\[onnx-runtime\]'"):
        TARGETS["onnx"].check()


def test_a_target_of_integers_alone_refuses_floating_point() -> None:
    with pytest.raises(ValueError, match="--quantise post or aware"):
        Target.check_float(TARGETS["onnx"])
