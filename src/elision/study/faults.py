"""Faults in trained networks and in training: struck, compared, written as a page."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from elision.faults import Campaign, Fault, Recovery, campaign, recovery, striking
from elision.faults.training import Striking
from elision.layers import restore
from elision.layers.finalize import finalize
from elision.memory import Policy
from elision.methods import make_recipe
from elision.study.config import file_name
from elision.study.trained import trained_for
from elision.training.execution import Execution
from elision.training.loop import (
    Progress,
    RunPlan,
    TrainingDivergedError,
    train,
)
from elision.workloads import Dataset, Workload

__all__ = [
    "MEASURES",
    "Network",
    "StruckTraining",
    "curves_by_bit",
    "network_rows",
    "recovery_rows",
    "shares_by_layer",
    "struck_networks",
    "struck_training",
    "test_examples",
    "trained_under",
]


@dataclass(frozen=True)
class Network:
    """A trained network in one stored form, and what faults do to it.

    Attributes:
        name: recipe and format.
        sparsity: share of its layers' weights that are zero.
        bits: campaign by bit.
        layers: campaign by layer; None: not asked for.
    """

    name: str
    sparsity: float
    bits: Campaign
    layers: Campaign | None = None


def trained_under(
    workload: Workload,
    recipe: str,
    dataset: Dataset,
    *,
    seed: int = 0,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """The workload's network, trained under a recipe, as a plain one.

    Its weights are those that the forward product reads.

    Args:
        workload: task, model and settings.
        recipe: its text.
        dataset: the workload's data.
        seed: of the training.
        folder: of the checkpoint, so that it is trained once.
        progress: see :func:`elision.training.train`.

    Raises:
        ValueError: an unknown recipe, or one that no plain network computes.
    """
    model = trained_for(
        workload, recipe, dataset, seed=seed, folder=folder, progress=progress
    )
    made = restore(model) if recipe == "dense" else finalize(model)
    return made.eval()


def test_examples(dataset: Dataset, count: int) -> tuple[Tensor, Tensor]:
    """Test examples, normalised, and their classes, at equal distances.

    The first ones alone may be of one class, since some data sets are sorted.

    Args:
        dataset: of the workload.
        count: at most so many.
    """
    whole = len(dataset.test_images)
    at = torch.arange(min(count, whole)) * whole // min(count, whole)
    return dataset.normalise(dataset.test_images[at]), dataset.test_labels[at]


def struck_networks(
    networks: Mapping[str, nn.Module],
    data: tuple[Tensor, Tensor],
    fault: Fault,
    formats: Sequence[str | None],
    *,
    trials: int,
    layers: bool = True,
    folder: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    **options: Any,
) -> list[Network]:
    """Strike each network in each format.

    Args:
        networks: by name.
        data: test examples and classes.
        fault: what strikes; its format is replaced.
        formats: in which the struck values are stored; None is float32.
        trials: of the campaign by bit, and half of them by layer.
        layers: whether to strike by layer as well.
        folder: keeps all blocks.
        progress: called with a network's name, trials done and in all.
        options: of :func:`elision.faults.campaign`.
    """

    def struck(
        full: str, model: nn.Module, fault: Fault, strata: str, number: int
    ) -> Campaign:
        return campaign(
            model,
            data,
            fault,
            trials=number,
            strata=strata,
            folder=None
            if folder is None
            else folder / file_name(f"{full} by {strata}"),
            progress=None if progress is None else partial(progress, full),
            **options,
        )

    found = []
    for name, model in networks.items():
        for format in formats:
            full = f"{name}, {format or 'fp32'}"
            of_network = (full, model, replace(fault, format=format))
            by_bit = struck(*of_network, "bit", trials)
            by_layer = struck(*of_network, "layer", -(-trials // 2)) if layers else None
            found.append(Network(full, _sparsity(model), by_bit, by_layer))
    return found


def _sparsity(model: nn.Module) -> float:
    weights = [p for p in model.parameters() if p.ndim > 1]
    values = sum(p.numel() for p in weights)
    return 1 - sum(int(p.count_nonzero()) for p in weights) / values


#: The four measures, in words.
MEASURES = {
    "per_flip": "per flip",
    "per_stored_bit": "per stored bit",
    "per_surviving_weight": "per surviving weight",
    "per_inference": "per inference",
}


def network_rows(networks: Sequence[Network]) -> list[dict[str, Any]]:
    """A row a network: outcomes with intervals, and the resilience against the first.

    Resilience is the first network's measure over this one's; where no prediction changed,
    there is no number.
    """
    first = networks[0].bits.normalised
    rows = []
    for network in networks:
        found = network.bits
        own = found.normalised.to_dict()
        wrong = found.wrong
        rows.append(
            {
                "network": network.name,
                "accuracy %": round(100 * found.accuracy, 1),
                "zeros %": round(100 * network.sparsity, 1),
                "stored bits": found.stored_bits,
                "trials": len(found.trials),
                "wrong %": f"{100 * wrong.estimate:.2f} "
                f"({100 * wrong.low:.2f} to {100 * wrong.high:.2f})",
                "critical %": round(100 * found.rate("critical").estimate, 2),
                "detected %": round(100 * found.rate("detected").estimate, 2),
                "changed %": round(100 * found.changed, 3),
                **{
                    words: _times(first.to_dict()[key], own[key])
                    for key, words in MEASURES.items()
                },
            }
        )
    return rows


def curves_by_bit(
    networks: Sequence[Network],
) -> dict[str, dict[int, tuple[float, float, float]]]:
    """Network -> bit -> share of wrong trials and its limits, in per cent."""
    return {
        network.name: {
            int(row["stratum"].split()[1]): (
                row["silent %"] + row["critical %"],
                row["wrong low %"],
                row["wrong high %"],
            )
            for row in network.bits.rows()
            if row["stratum"].startswith("bit")
        }
        for network in networks
    }


def shares_by_layer(networks: Sequence[Network]) -> dict[str, dict[str, float]]:
    """Network -> layer -> predictions that one fault changes, in per cent."""
    return {
        n.name: {row["stratum"]: row["changed %"] for row in n.layers.rows()}
        for n in networks
        if n.layers is not None
    }


def _times(first: float, own: float) -> str:
    return f"{first / own:.2f}x" if own else "none changed"


class _Watcher:
    """Strikes a run and writes down its losses."""

    def __init__(self, faults: Sequence[Fault], **options: Any) -> None:
        self.losses: list[float] = []
        self._faults, self._options = faults, options
        self._struck: Striking | None = None

    @contextmanager
    def attached(
        self, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> Iterator[None]:
        with striking(model, optimizer, self._faults, **self._options) as struck:
            self._struck = struck
            yield

    def policy(self, policy: Policy, model: nn.Module) -> Policy:
        return policy if self._struck is None else self._struck.policy(policy, model)

    @property
    def was_struck(self) -> bool:
        """Whether a fault has struck by now."""
        return self._struck is not None and self._struck.struck > 0

    def done(self, step: int, loss: float) -> None:
        self.losses.append(loss)


@dataclass(frozen=True)
class StruckTraining:
    """A training under faults beside the same one without.

    Attributes:
        name: recipe, and memory policy if there is one.
        site: that was struck.
        clean, struck: loss of every step.
        first, last: struck steps.
        score: of the network at the end, and of the clean one; NaN if it diverged.
        recovery: how the loss came back.
        refused: the error that ended the struck training, in one line, as of a saved tensor
            whose bytes cannot be unpacked; None: none did. The same training without the
            fault had none.
    """

    name: str
    site: str
    clean: tuple[float, ...]
    struck: tuple[float, ...]
    first: int
    last: int
    score: tuple[float, float]
    recovery: Recovery
    refused: str | None = None


def struck_training(
    workload: Workload,
    recipe: str,
    dataset: Dataset,
    faults: Mapping[str, Fault],
    *,
    first: int,
    steps: int,
    seed: int = 0,
    memory: str | None = None,
    compressor: str | None = None,
    progress: Progress | None = None,
) -> list[StruckTraining]:
    """Train once without faults, and once with each.

    An error that ends a training after it was struck is what became of the trial.

    Args:
        workload: task, model and settings.
        recipe: its text.
        dataset: the workload's data.
        faults: by a name for tables.
        first: the first struck step.
        steps: how many are.
        seed: of the training and of the faults.
        memory: policy of saved activations, for site ``saved``.
        compressor: of gradients, for site ``message``.
        progress: see :func:`elision.training.train`.
    """

    def run(struck: Sequence[Fault]) -> tuple[list[float], float, str | None]:
        where = first if struck else 10**9
        watcher = _Watcher(
            struck or tuple(faults.values())[:1],
            first=where,
            steps=steps,
            seed=seed,
            compressor=compressor,
        )
        total = workload.epochs * workload.steps_per_epoch(dataset)
        try:
            done = train(
                workload,
                make_recipe(recipe, steps=total),
                dataset,
                RunPlan(seed=seed),
                execution=Execution(engine="torch", memory=memory),
                progress=progress,
                watcher=watcher,
            )
            return watcher.losses, done.history[-1].score, None
        except TrainingDivergedError:
            return watcher.losses, float("nan"), None
        except OSError:  # of a disk, not of a fault
            raise
        except Exception as error:
            if not watcher.was_struck:
                raise
            kind, why = type(error).__name__, str(error).partition("\n")[0]
            return watcher.losses, float("nan"), f"{kind}: {why}"

    found = []
    golden: dict[bool, tuple[list[float], float, str | None]] = {}
    for site, fault in faults.items():
        # A compressor changes the clean run, too, where messages are what is struck.
        sends = fault.site == "message" and compressor is not None
        if sends not in golden:
            golden[sends] = run(()) if not sends else _sent(run, fault)
        clean, best, _ = golden[sends]
        losses, score, refused = run((fault,))
        last = first + steps - 1
        name = recipe if memory is None else f"{recipe}, {memory}"
        found.append(
            StruckTraining(
                name,
                site,
                tuple(clean),
                tuple(losses),
                first,
                last,
                (score, best),
                recovery(clean, losses, last),
                refused,
            )
        )
    return found


def _sent(run: Any, fault: Fault) -> tuple[list[float], float, str | None]:
    """A run whose gradients travel, and none of whose messages is struck."""
    return run((replace(fault, rate=0.0),))


def recovery_rows(trainings: Sequence[StruckTraining]) -> list[dict[str, Any]]:
    """A row a training: how long the loss took, and how it ended."""
    rows = []
    for each in trainings:
        back = each.recovery
        if each.refused is not None:
            end = f"detected at step {len(each.struck) - 1}: {each.refused}"
        elif back.diverged_at is not None:
            end = f"not finite at step {back.diverged_at}"
        elif back.steps is None:
            end = "silent: never came back"
        else:
            end = f"recovered in {back.steps} steps"
        rows.append(
            {
                "training": each.name,
                "struck": each.site,
                "end": end,
                "final loss above clean %": round(100 * back.excess, 2),
                "score %": round(100 * each.score[0], 2),
                "clean score %": round(100 * each.score[1], 2),
            }
        )
    return rows
