"""FedAvg on real digits: rounds and bytes to an accuracy; what recipes save on the wire."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from elision.common.columns import column
from elision.methods import make_recipe
from elision.training.parallel.federated import FederatedPlan, run
from elision.workloads import Workload

__all__ = [
    "CASES",
    "WIRE",
    "RoundsRow",
    "WireRow",
    "rounds_row",
    "to_target",
    "wire",
    "wire_row",
]

#: The two partitions: equal draws, and two shards of sorted labels to a client.
PARTS = {"IID": "iid", "two labels": "shards:each=2"}

#: Rows: local epochs (None: one step on all examples, FedSGD), clients of a round, rule.
CASES: dict[str, tuple[int | None, int, str]] = {
    "FedSGD, one step on all of a client's examples": (None, 5, "fedavg:every=1"),
    "FedAvg, 1 local epoch": (1, 5, "fedavg"),
    "FedAvg, 5 local epochs": (5, 5, "fedavg"),
    "FedAvg, 10 local epochs": (10, 5, "fedavg"),
    "FedAvg, 5 local epochs, 2 clients": (5, 2, "fedavg"),
    "FedAvg, 5 local epochs, 20 clients": (5, 20, "fedavg"),
    "FedProx, 5 local epochs, mu 0.1": (5, 5, "fedprox:mu=0.1"),
    "SCAFFOLD, 5 local epochs": (5, 5, "scaffold"),
    "FedAvgM, 5 local epochs": (5, 5, "fedavgm:momentum=0.5"),
}

#: Rows: recipe of the clients, and what compresses their messages.
WIRE: dict[str, tuple[str, dict[str, str]]] = {
    "dense": ("dense", {}),
    "SWAT, 80 % sparse": ("swat:sparsity=0.8", {}),
    "static mask, 80 % sparse, sent by it": (
        "static:sparsity=0.8,distribution=erk,dense=()",
        {"up": "mask", "down": "mask"},
    ),
    "dense, int8 both ways": ("dense", {"up": "int8", "down": "int8"}),
    "dense, top 5 % up": ("dense", {"up": "top-k:share=0.05"}),
    "SWAT, 80 % sparse, top 5 % up": (
        "swat:sparsity=0.8",
        {"up": "top-k:share=0.05"},
    ),
    "dense, secure sum of 16 bits": ("dense", {"secure": "masks:bits=16,range=2.0"}),
}


@dataclass(frozen=True)
class RoundsRow:
    """One case of one partition, over its seeds.

    Attributes:
        case: key of :data:`CASES`.
        data: key of :data:`PARTS`.
        rounds: mean number of rounds to the target; None if a seed did not reach it.
        spread: its standard deviation over seeds.
        reached: seeds that reached it, of all, as text.
        gain: rounds of FedSGD over these; None without both.
        megabytes: sent in both directions until then, mean over seeds.

    Example:
        >>> RoundsRow("FedAvg", "IID", 4.0, 1.0, "3 of 3", 12.5, 1.5).gain
        12.5
    """

    case: str = column("clients do")
    data: str = column("data")
    rounds: float | None = column("rounds to target", ".1f")
    spread: float | None = column("± over seeds", ".1f")
    reached: str = column("seeds that reach it")
    gain: float | None = column("fewer than FedSGD", ".1f", "x")
    megabytes: float | None = column("MB, both ways", ".2f")


@dataclass(frozen=True)
class WireRow:
    """One recipe and its messages, after a fixed number of rounds, over its seeds.

    Attributes:
        case: key of :data:`WIRE`.
        accuracy: mean after the last round.
        spread: its standard deviation over seeds.
        up: megabytes that clients sent, mean.
        down: that they were sent.
        saved: bytes of the dense row over these, both ways.

    Example:
        >>> WireRow("dense", 0.9, 0.01, 1.0, 1.0, 1.0).saved
        1.0
    """

    case: str = column("clients do")
    accuracy: float = column("accuracy", ".1f", " %", scale=100)
    spread: float | None = column("± over seeds", ".1f", scale=100)
    up: float = column("MB up", ".3f")
    down: float = column("MB down", ".3f")
    saved: float = column("fewer bytes", ".2f", "x")


def workload(width: int, rate: float, batch: int, images: int | None) -> Workload:
    """A perceptron of one size on scikit-learn's digits, plain SGD at a constant rate."""
    return Workload(
        name="digits-mlp",
        dataset="digits",
        model="mlp",
        model_options={"width": width},
        batch_size=batch,
        learning_rate=rate,
        momentum=0.0,
        nesterov=False,
        weight_decay=0.0,
        schedule="constant",
        train_images=images,
    )


def to_target(
    case: str,
    data: str,
    *,
    seed: int,
    target: float,
    rounds: int,
    clients: int,
    rates: tuple[float, float],
    width: int,
    images: int | None,
) -> dict[str, Any]:
    """Rounds and bytes until the test accuracy is reached, as plain values.

    Args:
        case: key of :data:`CASES`.
        data: key of :data:`PARTS`.
        seed: of everything that is drawn.
        target: accuracy.
        rounds: at most.
        clients: in all.
        rates: learning rates of FedSGD and of the others.
        width: of the perceptron.
        images: training images; None: all.
    """
    epochs, drawn, rule = CASES[case]
    whole = epochs is None
    made = workload(width, rates[0 if whole else 1], 10**6 if whole else 10, images)
    plan = FederatedPlan(
        clients=_with(PARTS[data], f"clients={clients}"),
        rule=rule,
        local_epochs=epochs,
        rounds=rounds,
        participation=min(1.0, drawn / clients),
        seed=seed,
    )
    found = run(made, make_recipe("dense"), made.load_dataset(), plan, until=target)
    return {
        "rounds": found.rounds_to(target),
        "bytes": found.up_bytes + found.down_bytes,
        "scores": [r.score for r in found.history],
    }


def wire(
    case: str,
    *,
    seed: int,
    rounds: int,
    clients: int,
    rate: float,
    width: int,
    images: int | None,
) -> dict[str, Any]:
    """Accuracy and bytes after so many rounds on two labels a client, as plain values."""
    recipe, messages = WIRE[case]
    made = workload(width, rate, 10, images)
    plan = FederatedPlan(
        clients=f"shards:each=2,clients={clients}",
        rule="fedavg",
        local_epochs=2,
        rounds=rounds,
        participation=min(1.0, 5 / clients),
        seed=seed,
        **messages,  # pyright: ignore[reportArgumentType]
    )
    found = run(made, make_recipe(recipe), made.load_dataset(), plan)
    return {
        "up": found.up_bytes,
        "down": found.down_bytes,
        "scores": [r.score for r in found.history],
    }


def rounds_row(
    case: str,
    data: str,
    found: Sequence[Mapping[str, Any]],
    base: Sequence[Mapping[str, Any]],
) -> RoundsRow:
    """The runs of a case, one a seed, beside those of FedSGD."""
    reached = [f["rounds"] for f in found if f["rounds"] is not None]
    all_reach = len(reached) == len(found)
    sgd = [f["rounds"] for f in base if f["rounds"] is not None]
    mean = fmean(reached) if all_reach else None
    gain = fmean(sgd) / mean if mean and len(sgd) == len(base) else None
    return RoundsRow(
        case,
        data,
        mean,
        stdev(reached) if all_reach and len(reached) > 1 else None,
        f"{len(reached)} of {len(found)}",
        gain,
        fmean(f["bytes"] for f in found) / 1e6 if all_reach else None,
    )


def wire_row(
    case: str, found: Sequence[Mapping[str, Any]], base: Sequence[Mapping[str, Any]]
) -> WireRow:
    """The runs of a recipe, one a seed, beside the dense ones."""
    scores = [f["scores"][-1] for f in found]

    def total(runs: Sequence[Mapping[str, Any]]) -> float:
        return fmean(f["up"] + f["down"] for f in runs)

    return WireRow(
        case,
        fmean(scores),
        stdev(scores) if len(scores) > 1 else None,
        fmean(f["up"] for f in found) / 1e6,
        fmean(f["down"] for f in found) / 1e6,
        total(base) / total(found) if total(found) else math.inf,
    )


def _with(spec: str, parameter: str) -> str:
    return f"{spec}{',' if ':' in spec else ':'}{parameter}"
