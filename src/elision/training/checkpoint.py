"""The checkpoint of a training run: written after every epoch, read when it goes on."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from elision.common.files import load_tensors, save_tensors
from elision.layers import WorkMeter
from elision.products import Trace

__all__ = ["CHECKPOINT", "EpochMetrics", "RunState", "load", "save"]


@dataclass(frozen=True)
class EpochMetrics:
    """What one epoch of training came to.

    Attributes:
        epoch: from 0.
        loss: mean training loss.
        test_accuracy: share of the test images classified rightly after the epoch.
        learning_rate: of the epoch's last step.
    """

    epoch: int
    loss: float
    test_accuracy: float
    learning_rate: float


@dataclass
class RunState:
    """What a run carries from epoch to epoch besides model and optimiser."""

    history: list[EpochMetrics] = field(default_factory=list)
    meter: WorkMeter = field(default_factory=WorkMeter)
    trace: Trace = field(default_factory=Trace)
    seconds: list[float] = field(default_factory=list)


CHECKPOINT = "checkpoint.safetensors"


def _trace_name(epochs: int) -> str:
    return f"trace-{epochs}.safetensors"


def save(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: RunState
) -> None:
    """Write the checkpoint of the epochs done so far; the trace goes first."""
    folder.mkdir(parents=True, exist_ok=True)
    epochs = len(state.history)
    tensors = {f"model/{k}": v for k, v in model.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{name}"] = value
    tensors["generator"] = torch.get_rng_state()
    facts = {
        "history": [asdict(metrics) for metrics in state.history],
        "work": state.meter.to_json(),
    }
    state.trace.save(folder / _trace_name(epochs))
    save_tensors(folder / CHECKPOINT, tensors, facts)
    for old in folder.glob("trace-*.safetensors"):
        if old.name != _trace_name(epochs):
            old.unlink()


def load(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: RunState
) -> None:
    """Put a run back to where its checkpoint was written."""
    path = folder / CHECKPOINT
    tensors, facts = load_tensors(path, "checkpoint")
    try:
        state.history = [EpochMetrics(**metrics) for metrics in facts["history"]]
        state.meter = WorkMeter.from_json(facts["work"])
        prefix = "model/"
        own = {k: v for k, v in tensors.items() if k.startswith(prefix)}
        model.load_state_dict({k.removeprefix(prefix): v for k, v in own.items()})
        torch.set_rng_state(tensors["generator"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path}: does not fit this run: {error}") from error
    momenta: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        kind, _, rest = key.partition("/")
        if kind == "optimizer":
            index, _, name = rest.partition("/")
            momenta.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": momenta, "param_groups": groups})
    state.trace = Trace.load(folder / _trace_name(len(state.history)))
