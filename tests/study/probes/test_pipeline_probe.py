"""The pipeline probe of a study and its section of the report."""

import json
from types import SimpleNamespace

import pytest
import torch

import elision
from elision import methods
from elision.study.page.sections.pipeline import pipeline
from elision.study.probes import Pipeline, Trained
from elision.study.probes.pipeline import plans_of
from elision.training.pipeline.stability import stable_rate
from elision.workloads import Workload

TINY = Workload(
    name="digits-tiny",
    dataset="digits",
    model="cnn",
    epochs=1,
    train_images=200,
    test_images=50,
)


def trained(method):
    torch.manual_seed(0)
    dataset = TINY.load_dataset()
    model = elision.elide(TINY.make_model(dataset), method)
    return Trained(model, method, TINY, dataset, seed=0)


@pytest.fixture(scope="module")
def found():
    probe = Pipeline(
        processors=2, schedule=("1f1b", "interleaved", "pipedream", "gpipe")
    )
    threads = torch.get_num_threads()
    one = trained(methods.Swat(0.8))
    found = probe.run(one)
    assert torch.get_num_threads() == threads
    assert any(elision.layers.elided_layers(one.model))  # the model is left elided
    return found


def test_the_probe_finds_what_plans_need(found):
    json.dumps(found, allow_nan=False)
    assert len(found["layers"]) == 4
    assert found["microbatches"] == 4
    assert found["batch"] == TINY.batch_size // 4
    assert all(layer["forward"] > 0 for layer in found["layers"])
    plans = plans_of(json.loads(json.dumps(found)))
    assert [made.processors for made in plans.values()] == [2] * 4
    # GPipe and 1F1B have the same stages, so the same curvature at both.
    assert found["sharpness"]["1f1b"] == found["sharpness"]["gpipe"]
    assert all(s > 0 for own in found["sharpness"].values() for s in own)


def outcome(**findings):
    return SimpleNamespace(outcomes=[SimpleNamespace(spec="swat", findings=findings)])


def test_the_section_shows_schedules_stages_and_rates(found):
    table, figure = pipeline(outcome(pipeline=found)).sheets
    for name in ("1f1b", "interleaved", "pipedream", "gpipe"):
        assert name in table
    assert "<svg" in figure
    assert "PipeDream" in figure
    # Stage 0 of PipeDream is one update late; its rate is that of its own delay.
    curvature = found["sharpness"]["pipedream"][0]
    rate = stable_rate(curvature, 1, TINY.momentum, nesterov=True)
    assert f"{rate:.2g}" in figure


def test_what_cannot_be_planned_is_said_in_the_page(found):
    many = {**found, "processors": 64}
    [refused] = pipeline(outcome(pipeline=many)).sheets
    assert "64 stages need at least 64 layers" in refused


def test_another_task_is_a_finding_and_no_error():
    workload = SimpleNamespace(task_name="language-modelling")
    one = SimpleNamespace(workload=workload)
    refused = Pipeline().run(one)
    assert "takes one tensor" in refused["refused"]
    [table] = pipeline(outcome(pipeline=refused)).sheets
    assert "takes one tensor" in table
    assert pipeline(outcome(other={})) is None


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"processors": 0}, r"processors=0\): must be an integer >= 1"),
        ({"batch": -1}, r"batch=-1\): must be an integer >= 0"),
        ({"schedule": ()}, "give at least one schedule"),
        ({"schedule": "zb9"}, "unknown schedule 'zb9' .*; known: gpipe"),
    ],
)
def test_a_bad_parameter_of_the_probe_is_one_line(parameters, message):
    with pytest.raises(ValueError, match=message):
        Pipeline(**parameters)
