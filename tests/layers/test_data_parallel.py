"""Two gloo processes compute what one process with both halves would."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from data_parallel_ranks import STEPS
from operand_recipes import (
    EXAMPLEWISE,
    RECIPES,
    assert_close,
    backward,
    gradients,
    network,
    rank_batch,
)
from torch import Tensor

import elision

SCRIPT = Path(__file__).with_name("data_parallel_ranks.py")
SHARED = Path(__file__).parents[1] / "shared"
Ranks = list[dict[str, Tensor]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ranks]:
    """What both ranks ended with, by recipe."""
    folder = tmp_path_factory.mktemp("ranks")
    source = Path(elision.__file__).parents[1]
    ranks = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder)],
            env={
                **os.environ,
                "RANK": str(rank),
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": os.pathsep.join([str(source), str(SHARED)]),
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [rank.communicate(timeout=240)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], errors
    by_rank = [torch.load(folder / f"{r}.pt", weights_only=True) for r in range(2)]
    return {recipe: [results[recipe] for results in by_rank] for recipe in RECIPES}


def in_one_process(recipe: str) -> Ranks:
    """The same with a model for each half: own state, the mean of both gradients."""
    models = [elision.elide(network(), RECIPES[recipe]) for _ in range(2)]
    optimizers = [torch.optim.SGD(m.parameters(), lr=2**-20) for m in models]
    for step in range(STEPS):
        for rank, model in enumerate(models):
            model.zero_grad()
            backward(model, *rank_batch(step, rank))
        for pair in zip(*(m.parameters() for m in models), strict=True):
            mean = torch.stack([p.grad for p in pair]).mean(0)
            for parameter in pair:
                parameter.grad = mean.clone()
        for optimizer in optimizers:
            optimizer.step()
    return [model.state_dict() for model in models]


@pytest.mark.parametrize("recipe", RECIPES)
def test_gradients_are_averaged_and_state_is_local(
    recipe: str, found: dict[str, Ranks]
) -> None:
    for rank, expected in enumerate(in_one_process(recipe)):
        both = {key: found[recipe][rank][key] for key in expected}
        assert_close(both, expected)
    first, second = found[recipe]
    state = [key for key in first if "elision_" in key]
    if "resprop" in recipe or recipe == "chained":
        references = [key for key in state if key.endswith("reference")]
        assert references
        assert not any(torch.equal(first[k], second[k]) for k in references)
    weights = first.keys() - {*state}
    assert all(torch.equal(first[key], second[key]) for key in weights)


@pytest.mark.parametrize("recipe", EXAMPLEWISE)
def test_gradients_are_those_of_the_whole_batch(
    recipe: str, found: dict[str, Ranks]
) -> None:
    model = elision.elide(network(), RECIPES[recipe])
    both = zip(rank_batch(0, 0), rank_batch(0, 1), strict=True)
    backward(model, *(torch.cat(pair) for pair in both))
    for rank in found[recipe]:
        assert_close(
            {n: 2 * rank[f"first/{n}"] for n in gradients(model)}, gradients(model)
        )
