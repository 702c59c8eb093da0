"""Costs are additive where they are counted: the sum is the recipe's as a whole."""

import pytest
import torch

from elision.layers.recipe import Recipe
from elision.operands import Cast, Chain, Project, Ternary, TopK
from elision.study.search.choices import layer_space
from elision.study.search.costs import COSTS, cost_named
from elision.study.search.storage import bits_at, kept_share
from elision.study.search.subject import Subject, subject_of
from elision.workloads import Workload

WORKLOAD = Workload(
    name="small",
    dataset="digits",
    model="cnn",
    epochs=1,
    train_images=160,
    model_options={"width": 4},
)
SWAT = {"*": ("dense", "swat:sparsity=0.5", "swat:sparsity=0.9+fp8", "8a-4w")}
RIGL = {"*": ("dense", "rigl:sparsity=0.5", "rigl:sparsity=0.9")}


@pytest.fixture(scope="module")
def subject() -> Subject:
    data = WORKLOAD.load_dataset().held_out(0.2)
    torch.manual_seed(0)
    return subject_of(WORKLOAD, WORKLOAD.make_model(data), data, examples=32)


@pytest.mark.parametrize("choices", [SWAT, RIGL], ids=["swat", "rigl"])
@pytest.mark.parametrize("name", ["macs", "weight-bits"])
def test_a_counted_cost_is_the_sum_over_layers(
    subject: Subject, name: str, choices: dict[str, tuple[str, ...]]
) -> None:
    space, cost = layer_space(subject.model, choices, steps=100), cost_named(name)
    costs = cost.of(subject, space)
    dense = space.recipe(space.uniform("dense"))
    assert costs.predicted(space.uniform("dense")) == pytest.approx(costs.dense)
    assert cost.whole(subject, dense, costs.dense) == pytest.approx(costs.dense)
    chosen = [1, 2, 1, 2]
    whole = cost.whole(subject, space.recipe(chosen), costs.dense)
    # Masks and lists keep whole numbers of values: a layer's share is off by one of them.
    assert costs.predicted(chosen) == pytest.approx(whole, rel=0.03)
    assert whole < costs.dense


def test_macs_of_masks_are_those_of_an_ordinary_step(subject: Subject) -> None:
    space = layer_space(subject.model, RIGL, steps=100)
    costs = cost_named("macs").of(subject, space)
    for values in costs.values:  # the weight gradient is masked, too
        assert values[2] == pytest.approx(0.1 * values[0], rel=0.2)


def test_layers_without_a_place_are_the_fixed_part(subject: Subject) -> None:
    every = cost_named("macs").of(subject, layer_space(subject.model, SWAT))
    one = cost_named("macs").of(
        subject, layer_space(subject.model, {":last": SWAT["*"]})
    )
    assert one.dense == every.dense
    assert one.fixed == sum(values[0] for values in every.values[:-1])
    assert one.values == every.values[-1:]


@pytest.mark.parametrize("name", ["cycles:dense", "energy:dense"])
def test_a_machine_costs_each_layer(subject: Subject, name: str) -> None:
    space = layer_space(subject.model, {"*": ("dense", "swat:sparsity=0.9")})
    cost = cost_named(name)
    costs = cost.of(subject, space)
    assert costs.kind == "simulated"
    whole = cost.whole(subject, Recipe("dense"), costs.dense)
    assert whole == pytest.approx(costs.dense)
    if name == "cycles:dense":  # a machine that skips nothing gains nothing
        assert costs.values[1][0] == costs.values[1][1]


def test_seconds_are_measured_for_each_choice(subject: Subject) -> None:
    subject.engine = "torch"
    space = layer_space(subject.model, {":last": ("dense", "8a-4w")})
    cost = cost_named("seconds")
    costs = cost.of(subject, space)
    assert costs.kind == "measured here"
    assert costs.unit.startswith("s (")
    assert min(map(min, costs.values)) > 0
    assert costs.fixed == pytest.approx(costs.dense - costs.values[0][0])
    assert cost.whole(subject, space.recipe((1,)), costs.dense) > 0


def test_one_operand_has_no_multiply_accumulates(subject: Subject) -> None:
    space = layer_space(subject.model, {"*/weight": ("4", "8")})
    with pytest.raises(ValueError, match="belongs to a layer, not to one operand"):
        cost_named("macs").of(subject, space)
    costs = cost_named("weight-bits").of(subject, space)
    assert costs.predicted((0,) * 4) == 4
    inputs = layer_space(subject.model, {"*/input": ("4a", "8a")})
    with pytest.raises(ValueError, match="has no weight to store"):
        cost_named("weight-bits").of(subject, inputs)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mac", "unknown cost 'mac' .did you mean 'macs'"),
        ("macs:ant", "takes nothing behind a colon"),
        ("cycles", "name a machine"),
        ("cycles:antt", "unknown accelerator 'antt'"),
        ("energy:ant:windoww=3", "windoww"),
    ],
)
def test_unknown_costs(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        cost_named(name)


def test_every_cost_has_a_unit() -> None:
    for name in COSTS:
        machine = ":ant" if name in ("cycles", "energy") else ""
        assert cost_named(name + machine).unit


@pytest.mark.parametrize(
    ("how", "bits"),
    [
        (Project(4), 4.0),
        (Ternary(terms=2), 4.0),
        (Cast("fp8-e4m3"), 8.0),
        (TopK(0.75), 9.0),
        (Chain((TopK(0.75), Cast("int8"))), 3.0),  # 1 + 8/4
        (TopK(0.01), 32.0),  # a bitmap would be more than it saves
    ],
)
def test_bits_of_a_stored_weight(how: Cast, bits: float) -> None:
    assert bits_at(kept_share(how), how) == pytest.approx(bits)
