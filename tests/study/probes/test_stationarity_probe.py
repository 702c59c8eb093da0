"""The stationarity probe of a study and its section of the report."""

import json

import pytest
import torch
import torch.nn.functional as F
from sparse_models import MOVING, batch, elided, gradient, train

import elision
from elision import Product, Trace, methods
from elision.study import StudyConfig
from elision.study.outcome import RecipeOutcome, StudyOutcome
from elision.study.page.sections.stationarity import stationarity
from elision.study.probes import Stationarity, Trained
from elision.training import EpochMetrics
from elision.training.stationarity import StationarityWatch
from elision.workloads import Workload

TINY = Workload(
    name="digits-tiny",
    dataset="digits",
    model="cnn",
    epochs=1,
    train_images=200,
    test_images=50,
)


def loss(model, item):
    return F.cross_entropy(model(item[0]), item[1])


@pytest.mark.parametrize("name", ["resprop", "rigl", "dst"])
def test_a_look_leaves_the_run_as_it_was(name):
    method = methods.ReSprop(0.5) if name == "resprop" else MOVING[name]
    model, optimizer, _ = elided(method)
    train(model, optimizer, range(4))
    gradient(model, optimizer, 4)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    slopes = [p.grad.clone() for p in model.parameters()]
    watch = StationarityWatch(model, optimizer, loss)
    watch.look(batch(5), batch(6), 8)
    after = model.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    for parameter, slope in zip(model.parameters(), slopes, strict=True):
        assert torch.equal(parameter.grad, slope)
    # Training goes on with the same tensors: DST's optimiser owns a buffer.
    optimizer.step()
    assert not torch.equal(model[3].weight, before["3.weight"])


def test_the_gradient_of_a_masked_model_has_no_part_outside_the_mask():
    model, optimizer, topology = elided(methods.Static(0.8))
    watch = StationarityWatch(model, optimizer, loss)
    found = watch.look(batch(0), batch(0), 8).gradient_squared
    loss(model, batch(0)).backward()
    masks = {id(w.weight): w.mask for w in topology.weights}
    assert any(not mask.all() for mask in masks.values())
    inside = sum(
        float((p.grad * masks.get(id(p), 1)).double().square().sum())
        for p in model.parameters()
    )
    assert found == pytest.approx(inside, rel=1e-4)


@pytest.fixture(scope="module")
def found():
    torch.manual_seed(0)
    dataset = TINY.load_dataset()
    method = methods.RigL(0.8, every=3)
    model = elision.elide(TINY.make_model(dataset), method)
    probe = Stationarity(steps=40, looks=4, rate=0.5)
    return probe.run(Trained(model, method, TINY, dataset, seed=0))


def test_the_probe_says_that_a_fresh_model_still_moves(found):
    assert found["verdict"] == "still moving"
    assert any("the loss changes by" in reason for reason in found["reasons"])
    assert found["losses"][-1] < found["losses"][0]
    assert found["rate"] == pytest.approx(0.5 * TINY.learning_rate)
    steps = [look["step"] for look in found["looks"]]
    assert steps == [10, 20, 30, 40]
    curved = [look["sharpness"] is not None for look in found["looks"]]
    assert curved == [False, False, False, True]
    assert len(found["losses"]) == 40
    json.dumps(found, allow_nan=False)


def outcome(**findings):
    metrics = EpochMetrics(0, loss=0.5, score=0.75, learning_rate=0.1)
    work = {product.value: 1.0 for product in Product}
    one = RecipeOutcome(
        *("rigl", methods.RigL(), {0: [metrics]}, 1.0, work, [], [], []),
        findings=findings,
    )
    config = StudyConfig(workload="digits-cnn", recipes=("rigl",))
    return StudyOutcome(config, [one], {}, {}, "scikit-learn", Trace())


def test_the_section_shows_verdict_and_figures(found):
    section = stationarity(outcome(**{"stationarity:steps=40": found}))
    verdicts, figures, figure = section.sheets
    assert "still moving" in verdicts
    assert "p, weight norm" in figures
    assert "rigl" in figure
    assert figure.startswith("<svg")
    hidden = {**found, "looks": [{**found["looks"][-1], "noise_scale": None}]}
    section = stationarity(outcome(stationarity=hidden))
    assert "None" not in section.sheets[1]


def test_without_findings_there_is_no_section():
    assert stationarity(outcome(other={})) is None


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"steps": 10}, r"steps=10\): must be an integer >= 40"),
        ({"looks": 1}, r"looks=1\): must be an integer in \[2, 400\]"),
        ({"rate": 0.0}, r"rate=0.0\): must be a number > 0"),
    ],
)
def test_a_bad_parameter_of_the_probe_is_one_line(parameters, message):
    with pytest.raises(ValueError, match=message):
        Stationarity(**parameters)
