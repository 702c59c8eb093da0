"""Two real processes train as the emulator does in one, and survive one another's death."""

import importlib
import multiprocessing
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pipeline_ranks import (
    BATCHES,
    CASES,
    MICROBATCHES,
    all_cases,
    batches,
    model,
    one_dies,
    planned,
    sgd,
)
from torch import nn

from elision.training.pipeline import LayerCost, plan
from elision.training.pipeline.chain import chain, stages_of
from elision.training.pipeline.emulator import DelayEmulator, split
from elision.training.pipeline.partition import inter_layer, whole_layers
from elision.training.pipeline.runtime import run, stages_in, torch_names
from elision.training.pipeline.runtime.orders import Orders
from elision.training.pipeline.scheduler import DeadlockError, Operation

#: What the backward pass reads, by what a schedule does with its weights.
MEMORY = {"flush": "stash", "double": "stash", "none": "mixed"}

#: Imports torch once, and forks every rank from there.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["elision.training.pipeline.runtime", "elision.workloads"]
)


def two_ranks(target: Callable[..., None], *arguments: Any) -> list[int | None]:
    """A function of the rank in two processes; their exit codes."""
    ranks = [CONTEXT.Process(target=target, args=(r, *arguments)) for r in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(timeout=100)
        process.kill()
    return [process.exitcode for process in ranks]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Each case's result, of both ranks."""
    folder = tmp_path_factory.mktemp("pipeline")
    assert two_ranks(all_cases, folder) == [0, 0]
    return [torch.load(folder / f"rank{r}.pt") for r in range(2)]


def emulated(case: str) -> tuple[DelayEmulator, nn.Module, list[float]]:
    """The emulator on the same stages and the same micro-batches."""
    network, _, weights = CASES[case]
    made, own = planned(case), model(network)
    each = batches()
    stages = stages_of(
        chain(own, split(each[0][0], MICROBATCHES)[0]),
        [len(layers) for layers in made.partition.layers],
    )
    once_a_batch = made.schedule.synchronous or made.schedule.weights == "double"
    emulator = DelayEmulator(
        stages,
        nn.functional.cross_entropy,
        sgd,
        delays=made.delays,
        weights=weights or MEMORY.get(made.schedule.weights, made.schedule.weights),
        microbatches=MICROBATCHES if once_a_batch else 1,
    )
    if not once_a_batch:
        each = [
            part
            for x, t in each
            for part in zip(split(x, MICROBATCHES), split(t, MICROBATCHES), strict=True)
        ]
    return emulator, own, [emulator.step(x, t) for x, t in each]


@pytest.mark.parametrize("case", CASES)
def test_real_ranks_and_the_emulator_agree_step_by_step(
    found: list[dict[str, Any]], case: str
) -> None:
    emulator, own, losses = emulated(case)
    for of_rank in found:
        assert of_rank[case]["losses"] == pytest.approx(losses, rel=1e-5)
        assert of_rank[case]["kept"] == emulator.kept
        for name, value in own.state_dict().items():
            torch.testing.assert_close(
                of_rank[case]["state"][name], value, rtol=1e-4, atol=1e-5, msg=name
            )


def test_both_ranks_end_with_one_model(found: list[dict[str, Any]]) -> None:
    for case in CASES:
        for name, value in found[0][case]["state"].items():
            assert torch.equal(value, found[1][case]["state"][name]), (case, name)


def test_weight_gradients_really_run_on_the_other_rank(
    found: list[dict[str, Any]],
) -> None:
    operations = [of_rank["layerpipe, dW elsewhere"]["operations"] for of_rank in found]
    assert any(o.startswith("W") and "in stage 0" in o for o in operations[1])


def test_a_half_of_an_input_gradient_really_runs_on_the_other_rank(
    found: list[dict[str, Any]],
) -> None:
    for case in ("layerpipe, dX in two", "layerpipe2, dX in two"):
        made = planned(case)
        [half] = [p for p in made.partition.stages[1] if 0 < p.share < 1]
        assert half.layer == made.partition.layers[0][-1]
        there = found[1][case]["operations"]
        halves = [o for o in there if o.startswith("I") and "in stage 0" in o]
        assert len(halves) == BATCHES * MICROBATCHES


@pytest.mark.parametrize("schedule", ["1f1b", "pipedream"])
def test_when_a_rank_dies_the_other_ends_and_names_it(
    schedule: str, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    assert two_ranks(one_dies, tmp_path, schedule, port) == [0, 1]
    told = (tmp_path / f"lost-{schedule}.txt").read_text()
    assert "rank 0 ends, since rank 1 died or no longer answers" in told


def test_the_private_names_of_torch_are_there() -> None:
    gone = []
    for module, name in torch_names.NAMES:
        holder: Any = importlib.import_module(module)
        try:
            for part in name.split("."):
                holder = getattr(holder, part)
        except AttributeError:
            gone.append(f"{module}.{name}")
    assert not gone, f"torch {torch.__version__} no longer has {', '.join(gone)}"


COSTS = [LayerCost(1.0, 1.0, 1.0)] * 4


def test_a_table_that_would_deadlock_is_refused_with_its_circle() -> None:
    made = plan(COSTS, 2, "pipedream", 2)
    orders = Orders.of(made, 2, 1)
    first, second = orders.by_rank
    # Stage 0 waits for the gradient of micro-batch 0 before it passes it on.
    wrong = replace(orders, by_rank=(tuple(reversed(first)), second))
    with pytest.raises(DeadlockError, match=r"rank 0: B of micro-batch 1 .* waits for"):
        wrong.check()


def test_a_forward_pass_waits_for_the_updates_that_its_delay_leaves() -> None:
    made = plan(COSTS, 4, "pipedream", 8)
    orders = Orders.of(made, 8, 1)
    # Stage 0 of 4 is 3 updates late: micro-batch 5 sees those of 0 and 1.
    assert Operation("B", 0, 1) in set(orders.needs(Operation("F", 0, 5)))
    assert orders.version_of(0, 5) == 2


def test_what_cannot_run_is_refused_before_it_does() -> None:
    x, t = torch.ones(4, 2), torch.ones(4, 2)
    layers = [nn.Linear(2, 2) for _ in range(4)]
    loss = nn.functional.mse_loss
    with pytest.raises(ValueError, match="the plan has 4 layers and the model 3"):
        stages_in(plan(COSTS, 2, "1f1b", 2), layers[:3], x)
    with pytest.raises(ValueError, match="tied weights must be in one stage"):
        stages_in(plan(COSTS, 2, "1f1b", 2), [*layers[:3], layers[0]], x)
    costs = planned("layerpipe, dX in two").costs
    halves = plan(costs, 2, "zb1p", 2, partition=inter_layer(costs, 2))
    with pytest.raises(ValueError, match=r"computes 0\.5 of the input gradient of"):
        stages_in(halves, layers, x)
    block = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    halves = plan(costs, 2, "layerpipe", 2, partition=halves.partition)
    with pytest.raises(ValueError, match="gradient of layer 2 is not that of a plain"):
        stages_in(halves, [*layers[:2], block, layers[3]], x)
    bare = plan(COSTS, 2, "1f1b", 2, partition=whole_layers([1, 3]))
    with pytest.raises(ValueError, match="stage 0 has no parameters to train"):
        stages_in(bare, [nn.Tanh(), *layers[1:]], x)
    with pytest.raises(ValueError, match="start it by torchrun"):
        run(plan(COSTS, 2, "1f1b", 2), layers, loss, sgd, [(x, t)])
    with pytest.raises(ValueError, match="at least one batch"):
        run(plan(COSTS, 2, "1f1b", 2), layers, loss, sgd, [])
