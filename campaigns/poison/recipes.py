"""Kinds of files that say what is done: recipes and workloads."""

from pathlib import Path

from campaigns.poison.forms import JSON, TEXT
from campaigns.poison.kind import Kind, in_process

__all__ = ["KINDS"]


def _recipe(folder: Path) -> None:
    from elision.methods import make_recipe

    recipe = make_recipe("swat:sparsity=0.8+fp8")
    (folder / "recipe.toml").write_text(recipe.to_toml(), encoding="utf-8")
    (folder / "recipe.json").write_text(recipe.to_json(), encoding="utf-8")


def _read_recipe(path: Path) -> str:
    import torch

    import elision

    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    elision.elide(model, str(path))
    return str(float(model(torch.ones(1, 4)).sum()))


def _workload(folder: Path) -> None:
    from elision.study.config import StudyConfig, command_line_toml

    config = StudyConfig(workload="digits-mlp", recipes=("dense",), accelerators=())
    text = command_line_toml(config)
    (folder / "workload.toml").write_text(text, encoding="utf-8")


def _read_workload(folder: Path) -> str:
    from elision.workloads import read_workload

    return read_workload(folder / "workload.toml").name


def _step(folder: Path) -> str:
    """The first steps of the workload: what its numbers become."""
    from itertools import islice

    from elision.workloads import read_workload

    workload = read_workload(folder / "workload.toml")
    dataset = workload.load_dataset()
    model = workload.make_model(dataset)
    optimizer = workload.make_optimizer(model)
    per_epoch = workload.steps_per_epoch(dataset)
    batches = workload.train_batches(dataset, seed=0, epoch=0)
    for step, batch in enumerate(islice(batches, 2)):
        workload.set_learning_rate(optimizer, step, per_epoch)
        workload.task.loss(model, batch).backward()
        optimizer.step()
    return ""


KINDS = (
    Kind(
        "recipe",
        _recipe,
        ("recipe.toml",),
        in_process(lambda folder: _read_recipe(folder / "recipe.toml")),
        TEXT,
    ),
    Kind(
        "recipe in JSON",
        _recipe,
        ("recipe.json",),
        in_process(lambda folder: _read_recipe(folder / "recipe.json")),
        JSON,
    ),
    Kind("workload", _workload, ("workload.toml",), in_process(_read_workload), TEXT),
    Kind(
        "workload that trains",
        _workload,
        ("workload.toml",),
        in_process(_step),
        TEXT,
    ),
)
