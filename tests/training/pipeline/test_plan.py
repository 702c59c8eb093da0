"""Plans: from a network, a profile or an accelerator; bad input; traces and figures."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from elision.accelerators import InterGrad, Scnn, Systolic
from elision.products import LayerProduct, MatmulGeometry, Product
from elision.report.pipeline_figure import pipeline_svg
from elision.training.pipeline import SCHEDULES, LayerCost, plan
from elision.training.pipeline.costs import accelerator_costs
from elision.training.pipeline.measure import measured
from elision.training.pipeline.partition import whole_layers
from elision.training.pipeline.profile import layer_costs, parse_profile, read_profile

EVEN = [
    LayerCost(1.0, 1.0, 1.0, kept_bytes=4.0, sent_bytes=2.0, parameter_bytes=1.0)
] * 4


def network() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(4 * 36, 8), nn.ReLU(), nn.Linear(8, 2)),
    )


def test_a_network_is_timed_piece_by_piece_and_left_as_it_was():
    model, images = network(), torch.randn(5, 1, 8, 8)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    conv, hidden, last = measured(model, images, rounds=2)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None for p in model.parameters())
    assert min(conv.forward, conv.weight_grad, hidden.forward, hidden.input_grad) > 0
    assert conv.input_grad == 0
    # Weight and bias, and those of the batch norm that follows.
    assert conv.parameter_bytes == 4 * (4 * 9 + 4 + 4 + 4)
    assert (conv.sent_bytes, last.sent_bytes) == (4 * 5 * 4 * 36, 4 * 5 * 2)
    # The input of the first linear layer is kept by it, not by the layer before.
    assert hidden.kept_bytes >= 4 * 5 * 4 * 36
    made = plan(model, images, processors=2, schedule="layerpipe", microbatches=4)
    assert made.unit == "s"
    assert made.makespan > 0


def test_tied_weights_are_refused():
    shared = nn.Linear(4, 4)
    with pytest.raises(ValueError, match="layers 0 and 1 share a parameter"):
        measured([shared, nn.Sequential(shared, nn.ReLU())], torch.ones(2, 4))


def test_an_accelerator_gives_the_cycles_of_its_cost():
    layers = [("a", MatmulGeometry(8, 16, 32)), ("b", MatmulGeometry(8, 32, 4))]
    machine = Systolic(8, 8)
    first, second = accelerator_costs(layers, machine)
    for kind in Product:
        cost = machine.cost(LayerProduct(kind, layers[1][1], None, None)).cycles
        assert second.of(kind) == cost
    assert (first.input_grad, first.sent_bytes) == (0.0, 4 * 8 * 32)
    pair = InterGrad(8, 8)
    both = pair.cost_pair(
        *(LayerProduct(k, layers[1][1], None, None) for k in list(Product)[1:])
    )
    assert accelerator_costs(layers, pair)[1].backward == both.cycles
    with pytest.raises(ValueError, match="Scnn skips zeros"):
        accelerator_costs(layers, Scnn())


NODE = (
    "node{0} -- {1} -- forward_compute_time={2}, backward_compute_time={3}, "
    "activation_size={4}, parameter_size={5}\n"
)


def test_a_profile_becomes_a_chain(tmp_path: Path):
    text = (
        NODE.format(1, "Input", 9.0, 0.0, 100.0, 0.0)
        + NODE.format(4, "BatchNorm2d(4)", 0.5, 0.25, 40.0, 32.0)
        + NODE.format(2, "Conv2d(3, 4)", 2.0, 3.0, 40.0, 16.0)
        + NODE.format(3, "LSTM(4, 2)", 1.0, 4.0, "[8.0; 2.0]", 64.0)
        + "\tnode1 -- node2\n\tnode2 -- node4\n\tnode4 -- node3\n"
    )
    conv, lstm = parse_profile(text)
    assert (conv.forward_ms, conv.backward_ms, conv.following_ms) == (2.5, 3.0, 0.25)
    assert (conv.kept_bytes, conv.sent_bytes, conv.parameter_bytes) == (80, 40, 48)
    assert lstm.sent_bytes == 10
    first, last = layer_costs([conv, lstm], weight_grad_share=0.25)
    assert (first.input_grad, first.weight_grad) == (0.0, pytest.approx(3.25e-3))
    assert (last.input_grad, last.weight_grad) == (pytest.approx(3e-3), 1e-3)
    path = tmp_path / "graph.txt"
    for bad, said in (
        (text + "nonsense\n", "line 8: neither a node nor an edge"),
        (text + "\tnode3 -- node9\n", "an edge names node 'node9'"),
        (text + "\tnode3 -- node2\n", "a circle through"),
        (NODE.format(1, "ReLU", 1.0, 1.0, 1.0, 0.0), "no node has a weight"),
    ):
        path.write_text(bad, encoding="utf-8")
        with pytest.raises(ValueError, match=said) as error:
            read_profile(path)
        assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"processors": 5}, "5 stages need at least 5 layers, and there are 4"),
        ({"processors": 4, "schedule": "zbv"}, "8 stages need at least 8 layers"),
        ({"processors": 0}, r"plan\(processors=0\): must be an integer >= 1"),
        ({"schedule": "1f1d"}, "did you mean '1f1b'.*known: gpipe, 1f1b"),
        ({"microbatches": 0}, "microbatches=0"),
        ({"bandwidth": 0.0}, "bandwidth=0.0"),
        ({"memory_bytes": 9.0}, "not partitioned by memory"),
        (
            {"schedule": "pipedream-replicated", "memory_bytes": 1.0},
            "no partition of 4",
        ),
        ({"schedule": "interleaved", "microbatches": 3}, "3 is not a multiple of 2"),
        ({"schedule": "dualpipe", "microbatches": 2}, "at least twice as many"),
        (
            {"schedule": "dualpipev", "microbatches": 2},
            "two micro-batches per processor",
        ),
        ({"schedule": "pipedream", "max_activations": 2}, "not synchronous"),
        ({"partition": whole_layers([1, 1, 2])}, "needs 2 stages"),
        ({"partition": whole_layers([1, 1])}, "each of the 4 layers once"),
    ],
)
def test_bad_input(arguments, said: str):
    with pytest.raises(ValueError, match=said):
        plan(EVEN, **({"processors": 2} | arguments))


def test_bad_costs():
    bare = LayerCost(1.0, 1.0, 0.0, name="relu")
    with pytest.raises(ValueError, match=r"stage 1 \(layers relu\) has no parameters"):
        plan([EVEN[0], bare], 2, partition=whole_layers([1, 1]))
    with pytest.raises(ValueError, match="at least one layer"):
        plan([], 2)
    with pytest.raises(ValueError, match="in cycles and s"):
        plan([EVEN[0], LayerCost(1, 1, 1, unit="cycles")], 1)
    with pytest.raises(ValueError, match=r"LayerCost 'a'\(forward=-1"):
        LayerCost(-1.0, 1.0, 1.0, name="a")
    with pytest.raises(ValueError, match="the batch is missing"):
        plan(network(), processors=2)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_trace_holds_every_action_without_overlap(name: str, tmp_path: Path):
    uneven = [LayerCost(0.1 * n, 0.3, 0.7 / n, kept_bytes=1.0) for n in range(1, 9)]
    made = plan(uneven, 4, name, 8)
    made.timeline(tmp_path / "plan.json")
    trace = json.loads((tmp_path / "plan.json").read_text())
    slices = [e for e in trace["traceEvents"] if e["ph"] == "X"]
    assert len(slices) == len(made.actions)
    assert {e["name"][0] for e in slices} == {a.kind for a in made.actions}
    last = max(e["ts"] + e["dur"] for e in slices)
    assert last == pytest.approx(made.makespan * 1e6)


def test_memory_over_time_starts_and_ends_with_the_weights():
    made = plan(EVEN, 2, "pipedream", 6)
    assert made.weight_versions == (2, 1)
    # Two layers a stage: 8 bytes an activation, 2 bytes a version of the weights.
    assert [own[0][1] for own in made.memory_bytes] == [4.0 + 8.0, 2.0]
    assert [own[-1][1] for own in made.memory_bytes] == [4.0, 2.0]
    assert made.peak_bytes == (2 * 8.0 + 4.0, 8.0 + 2.0)
    assert made.sent_bytes == 2 * 2.0
    figure = pipeline_svg([made.panel(), plan(EVEN, 2, "zb1p", 6).panel()])
    assert figure.startswith("<svg")
    assert "PipeDream, straight" in figure
    with pytest.raises(ValueError, match="at least one schedule"):
        pipeline_svg([])


def test_a_transfer_takes_time_between_processors_only():
    free = plan(EVEN, 2, "1f1b", 1).makespan
    slow = plan(EVEN, 2, "1f1b", 1, bandwidth=0.5).makespan
    # The one boundary is crossed forward and back.
    assert slow == free + 2 * 2.0 / 0.5
    assert plan(EVEN, 1, "1f1b", 1, bandwidth=0.5).makespan == free
