"""Cycles: what is begun and ended a thousand times in one process leaves nothing behind."""

import copy
import io
import pickle
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import elision
from campaigns.campaign import Row
from campaigns.resources import repeated
from campaigns.steps import convolutions, digits
from elision import methods

__all__ = ["CYCLES", "cycled"]

#: Images of a step.
_BATCH = 8

_RECIPES: tuple[Callable[[], elision.Recipe], ...] = (
    lambda: methods.Swat(0.8, dense=()),
    lambda: methods.RigL(0.8, dense=()),
    lambda: methods.ReSprop(reuse=0.8),
    lambda: methods.Swat(0.5, dense=()) + methods.Bf16(),
    lambda: methods.Int8(),
)

_POLICIES = ("bits(4)", "jpeg", "int8", "rad(0.1)", "offload", "exact")


@dataclass(frozen=True)
class _Place:
    """What a cycle works with.

    Attributes:
        folder: to write into.
        images: ``(1797, 1, 8, 8)``.
        labels: ``(1797,)``.
        model: a plain network, with a ``forward`` of the user's own.
    """

    folder: Path
    images: Tensor
    labels: Tensor
    model: nn.Module

    def loss(self, model: nn.Module, number: int) -> Tensor:
        """The loss of one batch."""
        first = number * _BATCH % (len(self.images) - _BATCH)
        part = slice(first, first + _BATCH)
        return F.cross_entropy(model(self.images[part]), self.labels[part])


class _Own(nn.Module):
    """A network with a ``forward`` of its own, one of the instance, as users write them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = convolutions()
        self.forward = self.scaled

    def scaled(self, x: Tensor) -> Tensor:
        return self.body(x) * 0.5


def _shape_of(model: nn.Module) -> list[Any]:
    """All of a model but values: classes, names of attributes, hooks, ``forward``."""
    return [
        (
            *(name, type(m), sorted(vars(m)), m.forward, list(m._buffers)),
            *(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)),
        )
        for name, m in model.named_modules()
    ]


def _check(held: bool, what: str) -> None:
    if not held:
        raise AssertionError(what)


# --- one round of each ------------------------------------------------------------------


def _elide(place: _Place) -> Callable[[int], None]:
    model = place.model.eval()  # the statistics of the norm stay
    before = _shape_of(model)
    values = {name: v.clone() for name, v in model.state_dict().items()}

    def round_(number: int) -> None:
        recipe = _RECIPES[number % len(_RECIPES)]()
        elision.elide(model, recipe, engine=("native", "torch", "auto")[number % 3])
        place.loss(model, number).backward()
        elision.restore(model)
        model.zero_grad()
        _check(_shape_of(model) == before, "restore leaves attributes, hooks, a class")
        now = model.state_dict()
        _check(list(now) == list(values), "restore leaves buffers")
        if isinstance(recipe, methods.RigL):  # its mask set weights to zero
            model.load_state_dict(values)
        same = all(torch.equal(now[name], v) for name, v in values.items())
        _check(same, f"{recipe.name} changed a weight")

    return round_


def _save(place: _Place) -> Callable[[int], None]:
    def round_(number: int) -> None:
        policy = _POLICIES[number % len(_POLICIES)]
        with elision.memory.saver(place.model, policy) as saved:
            loss = place.loss(place.model, number)
        loss.backward()
        _check(bool(saved.report()), "a report without text")
        place.model.zero_grad()

    return round_


def _record(place: _Place) -> Callable[[int], None]:
    def round_(number: int) -> None:
        with elision.record(place.model, samples=1) as trace:
            place.loss(place.model, number).backward()
        _check(len(trace) == 8, f"{len(trace)} products instead of 8")
        place.model.zero_grad()

    return round_


def _trace(place: _Place) -> Callable[[int], None]:
    with elision.record(place.model, samples=1) as trace:
        place.loss(place.model, 0).backward()

    def round_(number: int) -> None:
        path = place.folder / f"trace-{number % 2}.safetensors"
        trace.save(path)
        read = elision.Trace.load(path)
        _check(len(list(read)) == len(trace), "products are lost")

    return round_


def _checkpoint(place: _Place) -> Callable[[int], None]:
    from elision.training.checkpoint import RunState, load, save
    from elision.training.loss_scaling import LossScaling
    from elision.training.ranks import Ranks

    model = elision.elide(place.model, methods.RigL(0.5, dense=()), engine="torch")
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    topology = elision.topology.attach(model, optimizer)
    place.loss(model, 0).backward()
    optimizer.step()
    scaling = LossScaling("cpu", None, optimizer)
    state, digest = RunState("accuracy"), topology.digest()

    def round_(number: int) -> None:
        del number
        save(place.folder, model, optimizer, scaling, state, Ranks())
        load(place.folder, model, optimizer, scaling, state, Ranks())
        _check(topology.digest() == digest, "a checkpoint has other masks")

    return round_


def _simulate(place: _Place) -> Callable[[int], None]:
    with elision.record(place.model, samples=1) as trace:
        place.loss(place.model, 0).backward()
    a = elision.accelerators
    machines = {"dense": a.Dense(), "scnn": a.Scnn(), "ant": a.Ant()}

    def round_(number: int) -> None:
        del number
        rows = list(elision.simulation.simulate(trace, machines))
        _check(len(rows) == 8 * len(machines), f"{len(rows)} rows")

    return round_


def _copy(place: _Place) -> Callable[[int], None]:
    models = [
        elision.elide(copy.deepcopy(place.model.body), recipe(), engine="native")
        for recipe in _RECIPES
    ]
    for model in models:
        place.loss(model, 0).backward()

    def round_(number: int) -> None:
        model = models[number % len(models)]
        written = io.BytesIO()
        pickle.dump(model, written)
        written.seek(0)
        for twin in (copy.deepcopy(model), pickle.load(written)):  # of our own
            place.loss(twin, number).backward()

    return round_


def _report(place: _Place) -> Callable[[int], None]:
    import matplotlib.pyplot as plt

    from elision.study import StudyConfig, study
    from elision.study.page.page import study_page

    config = StudyConfig(
        workload="digits-cnn",
        recipes=("dense", "swat"),
        accelerators=("dense", "ant"),
        epochs=1,
        samples=1,
    )
    outcome = study(config, place.folder / "run")

    def round_(number: int) -> None:
        del number
        _check("</html>" in study_page(outcome), "half a page")
        _check(not plt.get_fignums(), "a figure is left open")

    return round_


#: What is done in a round, and rounds for each that a campaign counts.
CYCLES: dict[str, tuple[Callable[[_Place], Callable[[int], None]], float]] = {
    "elide and restore": (_elide, 1),
    "savers": (_save, 1),
    "recorders": (_record, 1),
    "trace files": (_trace, 1),
    "checkpoints": (_checkpoint, 1),
    "simulations": (_simulate, 1),
    "copies and pickles": (_copy, 1),
    "reports": (_report, 0.2),
}


def cycled(name: str, count: int, seed: int) -> Row:
    """The rounds of one kind, in one process.

    Args:
        name: of :data:`CYCLES`.
        count: of the whole campaign; expensive rounds are fewer.
        seed: of the weights.
    """
    torch.manual_seed(seed)
    begin, share = CYCLES[name]
    with tempfile.TemporaryDirectory() as folder:
        place = _Place(Path(folder), *digits(), _Own())
        return repeated(begin(place), max(1, round(share * count)))
