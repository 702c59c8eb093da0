"""Checkpoint of a training run: written after every epoch, read when the run resumes.

One file holds the whole run, and rank 0 writes it. What a rank has of its own (a recipe's
state, what a compressor remembers, the random state, the work it counted) is gathered;
rank 0's stands under plain names, that of rank ``r`` under ``rank<r>/``.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from elision.common.checks import numbers
from elision.common.files import load_facts, load_tensors, save_tensors, taken_apart
from elision.common.trees import pack, unpack
from elision.layers import WorkMeter
from elision.products import Trace
from elision.topology.trained import TRAINED
from elision.training.loss_scaling import LossScaling
from elision.training.parallel import CompressHook, OuterOptimizer, Traffic
from elision.training.ranks import Ranks, is_local

__all__ = [
    "CHECKPOINT",
    "EpochMetrics",
    "Kept",
    "RunState",
    "epochs_done",
    "kept",
    "kept_trace",
    "load",
    "save",
]


@dataclass(frozen=True)
class EpochMetrics:
    """Metrics of one epoch of training.

    Attributes:
        epoch: from 0.
        loss: mean training loss.
        score: the task's metric on the test examples after the epoch.
        learning_rate: of the epoch's last step.

    Example:
        >>> EpochMetrics(0, 0.5, 0.9, 0.1).to_row("test_accuracy")
        {'epoch': 0, 'loss': 0.5, 'test_accuracy': 0.9, 'learning_rate': 0.1}
    """

    epoch: int
    loss: float
    score: float
    learning_rate: float

    def to_row(self, metric: str) -> dict[str, Any]:
        """Plain values; the score under the name of its metric."""
        return {metric if k == "score" else k: v for k, v in asdict(self).items()}

    @classmethod
    def from_row(cls, row: dict[str, Any], metric: str) -> "EpochMetrics":
        """The metrics that :meth:`to_row` wrote.

        Raises:
            ValueError: a value is no number.
        """
        found = numbers(cls.__name__, row)
        return cls(**{"score" if k == metric else k: v for k, v in found.items()})


@dataclass
class RunState:
    """State of a run from epoch to epoch besides model and optimiser.

    Attributes:
        metric: name of the task's metric, for files.
        history: metrics of the epochs done.
        meter: work that this rank counted.
        trace: products that rank 0 recorded.
        saved_bytes: (logical, stored) bytes of saved activations in this rank's largest
            step; None without a policy.
        seconds: of this process's steps that were neither metered nor recorded.
    """

    metric: str
    history: list[EpochMetrics] = field(default_factory=list)
    meter: WorkMeter = field(default_factory=WorkMeter)
    trace: Trace = field(default_factory=Trace)
    saved_bytes: tuple[int, int] | None = None
    seconds: list[float] = field(default_factory=list)


CHECKPOINT = "checkpoint.safetensors"


def _trace_name(epochs: int) -> str:
    return f"trace-{epochs}.safetensors"


def save(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaling: LossScaling,
    state: RunState,
    ranks: Ranks,
    hook: CompressHook | None = None,
    outer: OuterOptimizer | None = None,
    beside: nn.Module | None = None,
) -> None:
    """Write the checkpoint of the epochs done so far; the trace goes first.

    What is trained ``beside`` the model is in it, too. A collective call; only rank 0
    writes.
    """
    own = ranks.gather(_own(model, optimizer, state, ranks, hook, outer))
    if not ranks.is_first:
        return
    folder.mkdir(parents=True, exist_ok=True)
    epochs = len(state.history)
    tensors = {f"model/{k}": v for k, v in model.state_dict().items()}
    tensors |= _of_optimizer(optimizer)
    if beside is not None:
        tensors |= {f"beside/{k}": v for k, v in beside.state_dict().items()}
    facts: dict[str, Any] = {
        "history": [metrics.to_row(state.metric) for metrics in state.history]
    }
    scaler = scaling.state_dict()
    if scaler:
        facts["scaler"] = scaler
    for rank, (own_tensors, own_facts) in enumerate(own):
        prefix = f"rank{rank}/" if rank else ""
        tensors |= {prefix + name: value for name, value in own_tensors.items()}
        facts |= {prefix + name: value for name, value in own_facts.items()}
    state.trace.save(folder / _trace_name(epochs))
    save_tensors(folder / CHECKPOINT, tensors, facts)
    _remove_other_traces(folder, epochs)


def _remove_other_traces(folder: Path, epochs: int) -> None:
    """Remove the traces of earlier checkpoints, and one whose checkpoint was not written."""
    for old in folder.glob("trace-*.safetensors"):
        if old.name != _trace_name(epochs):
            old.unlink()


def _of_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Tensors of an optimiser's state, what it trains apart included."""
    saved = optimizer.state_dict()
    apart = [group.get(TRAINED, {}) for group in saved["param_groups"]]
    return {
        f"{prefix}{key}/{name}": value
        for prefix, states in (
            ("optimizer/", saved["state"]),
            *(("trained/", a) for a in apart),
        )
        for key, values in states.items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def _own(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: RunState,
    ranks: Ranks,
    hook: CompressHook | None,
    outer: OuterOptimizer | None,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of this rank alone."""
    tensors = {"generator": torch.get_rng_state()}
    facts: dict[str, Any] = {"work": state.meter.to_json()}
    device = next(model.parameters()).device
    if device.type == "cuda":
        tensors["cuda_generator"] = torch.cuda.get_rng_state(device)
    if not ranks.is_first:  # rank 0's are in its model's
        tensors |= {
            f"model/{name}": value.cpu()
            for name, value in model.state_dict().items()
            if is_local(name) or outer is not None
        }
    if outer is not None:
        if not ranks.is_first:
            tensors |= {n: v.cpu() for n, v in _of_optimizer(optimizer).items()}
        kept, facts["outer"] = pack(outer.own_state(), "outer/")
        tensors |= {name: value.cpu() for name, value in kept.items()}
    if hook is not None:
        tensors |= {f"compress/{k}": v.cpu() for k, v in hook.state_dict().items()}
        facts["traffic"] = asdict(hook.traffic)
    if state.saved_bytes is not None:
        facts["saved_bytes"] = state.saved_bytes
    return tensors, facts


def load(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaling: LossScaling,
    state: RunState,
    ranks: Ranks,
    hook: CompressHook | None = None,
    outer: OuterOptimizer | None = None,
    beside: nn.Module | None = None,
) -> None:
    """Restore a run, on this rank, to where its checkpoint was written.

    Raises:
        ValueError: the checkpoint is damaged, or another run's.
    """
    path = folder / CHECKPOINT
    tensors, facts = load_tensors(path, "checkpoint")
    prefix = "" if ranks.is_first else f"rank{ranks.rank}/"
    with taken_apart(path, "does not fit this run"):
        state.history = [
            EpochMetrics.from_row(row, state.metric) for row in facts["history"]
        ]
        state.meter = WorkMeter.from_json(facts[f"{prefix}work"])
        if f"{prefix}saved_bytes" in facts:
            logical, stored = facts[f"{prefix}saved_bytes"]
            state.saved_bytes = logical, stored
        values = _under("model/", tensors) | _under(f"{prefix}model/", tensors)
        model.load_state_dict(values)
        torch.set_rng_state(tensors[f"{prefix}generator"])
        device = next(model.parameters()).device
        if device.type == "cuda":
            torch.cuda.set_rng_state(tensors[f"{prefix}cuda_generator"], device)
        if hook is not None:
            hook.load_state_dict(_under(f"{prefix}compress/", tensors))
            hook.traffic = Traffic(**facts[f"{prefix}traffic"])
        if outer is not None:
            known = _under(prefix, tensors)
            outer.load_own_state(unpack(known, facts[f"{prefix}outer"]))
        if beside is not None:
            beside.load_state_dict(_under("beside/", tensors))
        if scaling.state_dict():
            scaling.load_state_dict(facts["scaler"])
        _load_optimizer(optimizer, "" if outer is None else prefix, tensors)
    state.trace = Trace.load(folder / _trace_name(len(state.history)))
    if ranks.is_first:  # a process killed right after its checkpoint left them
        _remove_other_traces(folder, len(state.history))


def _load_optimizer(
    optimizer: torch.optim.Optimizer, apart: str, tensors: dict[str, Tensor]
) -> None:
    """Restore momenta and what the optimiser's groups train."""
    momenta = {int(n): v for n, v in _by_first(f"{apart}optimizer/", tensors).items()}
    trained = _by_first("trained/", tensors)
    groups = optimizer.state_dict()["param_groups"]
    for group in groups:
        if TRAINED in group:
            group[TRAINED] = {name: trained.get(name, {}) for name in group[TRAINED]}
    optimizer.load_state_dict({"state": momenta, "param_groups": groups})


def epochs_done(folder: Path) -> int:
    """Epochs of the run whose checkpoint a folder holds; 0 without one.

    Raises:
        ValueError: the checkpoint is damaged.
    """
    if not (folder / CHECKPOINT).is_file():
        return 0
    path = folder / CHECKPOINT
    _, facts = load_tensors(path, "checkpoint")
    with taken_apart(path, "not a checkpoint of a run"):
        return len(facts["history"])


@dataclass(frozen=True)
class Kept:
    """What a checkpoint says of its run besides the tensors.

    Attributes:
        history: metrics of the epochs done.
        meter: work that all ranks counted.
        saved_bytes: as in :class:`RunState`, of the largest step of any rank.

    Example:
        >>> kept(Path("no-such-run"), "test_accuracy").history
        []
    """

    history: list[EpochMetrics]
    meter: WorkMeter
    saved_bytes: tuple[int, int] | None


def kept(folder: Path, metric: str) -> Kept:
    """Read what a checkpoint says of its run: its header, whatever the network's size.

    Args:
        folder: of the checkpoint; one without is at its beginning.
        metric: name of the task's metric.

    Raises:
        ValueError: the header is damaged, or another file's.
    """
    path, meter = folder / CHECKPOINT, WorkMeter()
    if not path.is_file():
        return Kept([], meter, None)
    facts = load_facts(path, "checkpoint")
    with taken_apart(path, "not a checkpoint of a run"):
        history = [EpochMetrics.from_row(row, metric) for row in facts["history"]]
        ranks = ["", *(f"rank{r}/" for r in range(1, len(facts)))]
        largest = []
        for rank in (rank for rank in ranks if f"{rank}work" in facts):
            meter.merge(WorkMeter.from_json(facts[f"{rank}work"]))
            if f"{rank}saved_bytes" in facts:
                logical, stored = facts[f"{rank}saved_bytes"]
                largest.append((logical, stored))
        return Kept(history, meter, max(largest, default=None))


def kept_trace(folder: Path, epochs: int) -> Trace:
    """The trace that belongs to a checkpoint of some epochs.

    Raises:
        FileNotFoundError, ValueError: as for :meth:`elision.products.Trace.load`.
    """
    return Trace.load(folder / _trace_name(epochs))


def _by_first(prefix: str, tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The tensors ``<prefix><first>/<name>``, by first and by name."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in _under(prefix, tensors).items():
        first, _, name = key.partition("/")
        found.setdefault(first, {})[name] = value
    return found


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose name begins with a prefix, without it."""
    found = {k: v for k, v in tensors.items() if k.startswith(prefix)}
    return {k.removeprefix(prefix): v for k, v in found.items()}
