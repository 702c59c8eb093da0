"""Kinds of files in run folders: of studies, of searches, of federated runs, of faults."""

from pathlib import Path
from typing import Any

from campaigns.mutate import changed_bytes
from campaigns.poison.forms import (
    JSON,
    SEALED,
    TEXT,
    resealed_facts,
    resealed_trace,
)
from campaigns.poison.kind import Kind, command, in_process, made, writes

__all__ = ["KINDS"]


def _small() -> Any:
    from elision.workloads import Workload

    return Workload(
        name="small",
        dataset="digits",
        model="mlp",
        model_options={"width": 16},
        epochs=1,
        train_images=128,
        test_images=64,
    )


def _config() -> Any:
    from elision.study import StudyConfig

    return StudyConfig(
        workload=_small(),
        recipes=("dense", "swat"),
        accelerators=("dense",),
        record=1,
        samples=1,
    )


def _studied(folder: Path) -> None:
    from elision.study import study

    study(_config(), folder)


def _study(folder: Path) -> None:
    """A small finished run."""
    made("study", _studied, folder)


def _continued(folder: Path) -> str:
    """The run once more; what it has is read, and nothing is trained."""
    from elision.study import study

    return str(study(_config(), folder).outcomes[0].scores)


def _trained(folder: Path) -> str:
    """A training whose checkpoint is in the folder; it has ended, and is read."""
    from elision.methods import Dense
    from elision.training import RunPlan, train

    workload = _small()
    done = train(workload, Dense(), workload.load_dataset(), RunPlan(), folder=folder)
    return f"{done.history} {done.meter.total()}"


def _trace(folder: Path) -> None:
    import torch

    from elision.products import Conv2dGeometry, MatmulGeometry, Trace
    from elision.products.synthetic import synthetic_products

    torch.manual_seed(0)
    layers = [
        ("fc", MatmulGeometry(2, 6, 3)),
        ("conv", Conv2dGeometry(1, 2, 5, 5, 3, kernel=3, padding=1)),
    ]
    Trace.of(synthetic_products(layers, 0.5)).save(folder / "trace.safetensors")


_FEDERATE = (
    *("federate", "--workload", "digits-mlp", "--clients", "iid:clients=2"),
    *("--rule", "fedavg:every=1", "--rounds", "1", "--out", "{}/run"),
)


def _federated(folder: Path) -> None:
    made("federated", writes(*_FEDERATE), folder)


_SEARCH = (
    *("search", "--workload", "digits-mlp", "--epochs", "1", "--method", "random"),
    *("--count", "2", "--budget", "1", "--choices", "*=dense;swat:sparsity=0.9"),
    *("--out", "{}/run"),
)


def _searched(folder: Path) -> None:
    made("searched", writes(*_SEARCH), folder)


def _struck(folder: Path) -> str:
    """A campaign of faults whose blocks are in a folder; those that are not are made."""
    import torch

    from elision.faults import Fault, campaign

    torch.manual_seed(0)
    model = torch.nn.Linear(8, 3)
    data = torch.randn(6, 8), torch.arange(6) % 3
    kept = folder / "kept"
    found = campaign(
        model, data, Fault(site="weight"), trials=8, block=4, folder=kept, strata=None
    )
    return str(found.wrong)


_TRACE = ("--trace", "{}/trace.safetensors", "--accelerator", "scnn", "dense")
_SIMULATE = ("simulate", *_TRACE, "systolic:rows=4,columns=4")

KINDS = (
    Kind(
        "trace",
        _trace,
        ("trace.safetensors",),
        command(*_SIMULATE),
        SEALED,
        sealed=True,
    ),
    Kind(
        "forged trace",
        _trace,
        ("trace.safetensors",),
        command(*_SIMULATE),
        (resealed_trace,),
    ),
    Kind(
        "checkpoint",
        _study,
        ("recipes/dense/checkpoint.safetensors",),
        command("trace", "{}"),
        SEALED,
        sealed=True,
        share=0.5,
    ),
    Kind(
        "forged checkpoint",
        lambda folder: made("training", _trained, folder),
        ("checkpoint.safetensors",),
        in_process(_trained),
        (resealed_facts,),
        share=0.5,
    ),
    Kind("run configuration", _study, ("config.toml",), command("trace", "{}"), TEXT),
    Kind(
        "summary",
        _study,
        ("summary.json",),
        command("compare", "{}", "--format", "latex"),
        JSON,
    ),
    Kind(
        "records of a run",
        _study,
        (
            *("timing.json", "env.json", "sources.json", "energy.json"),
            "recipes/swat/energy-by-epoch.json",
        ),
        in_process(_continued),
        JSON,
        share=0.2,
    ),
    Kind(
        "search folder",
        _searched,
        ("run/trials/*/*.json*", "run/*.json", "run/recipe.toml"),
        command(*_SEARCH),
        (*JSON[:1], *TEXT),
        share=0.2,
    ),
    Kind(
        "federated checkpoint",
        _federated,
        ("run/checkpoint.safetensors",),
        command(*_FEDERATE),
        (changed_bytes, resealed_facts),
        share=0.5,
    ),
    Kind(
        "blocks of faults",
        lambda folder: made("faults", _struck, folder),
        ("kept/block-000001.safetensors",),
        in_process(_struck),
        (changed_bytes, resealed_facts),
    ),
)
