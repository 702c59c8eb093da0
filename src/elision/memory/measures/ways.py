"""Ways to train a model in less memory, each tried on the model itself.

A policy of the saver, torch's checkpointing of the model's blocks, its offloading, and
combinations of them lower the peak of a step at some price in time. Which of them is the
cheapest that fits depends on the model, the batch and the machine, so all are measured.
"""

import functools
import statistics
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from elision.common.checks import integer, number
from elision.common.restoring import restored
from elision.common.timing import interleaved
from elision.memory.compiled import compiled_parts
from elision.memory.modules import tensors_in
from elision.memory.peak import measure_peak
from elision.memory.policies.presets import policy_for
from elision.memory.saved.roles import Role
from elision.memory.saver import saver

__all__ = ["WAYS", "Comparison", "Way", "compare_ways"]

MIB = 2**20

#: The parts of a way that are no policy of the saver.
_PLAIN, _CHECKPOINT, _ON_CPU, _WITHOUT_ONEDNN = (
    "plain",
    "checkpoint",
    "save_on_cpu",
    "without oneDNN",
)

#: What is tried if nothing else is asked for. An LSTM of oneDNN is tried without it, too.
WAYS = (
    *(_PLAIN, "exact", "bits(8)", "bits(4)"),
    *(_CHECKPOINT, f"{_CHECKPOINT} + bits(4)", _ON_CPU),
)


@dataclass(frozen=True)
class Way:
    """One way to run a training step, measured.

    Attributes:
        name: ``"plain"``, ``"checkpoint"``, ``"save_on_cpu"``, a policy, or several of
            them joined by a plus sign.
        peak_bytes: most bytes at any moment of a step: gradients included, parameters
            and batch excepted; 0 if it failed.
        seconds: of the timed steps, by :func:`elision.common.timing.quoted_clock`.
        peak_ratio: peak of the plain step over this one's.
        time_ratios: seconds over those of the plain step in the same round.
        gradient_error: norm of the difference of all parameters' gradients to those of
            the plain step, over their norm.
        failed: why it could not be measured; empty if it was.

    Example:
        >>> way = Way("exact", 2**20, (0.2, 0.1, 0.3), 2.0, (1.0, 1.1, 1.2))
        >>> way.seconds_per_step
        0.2
    """

    name: str
    peak_bytes: int = 0
    seconds: tuple[float, ...] = ()
    peak_ratio: float = 0.0
    time_ratios: tuple[float, ...] = ()
    gradient_error: float = 0.0
    failed: str = ""

    @property
    def seconds_per_step(self) -> float:
        """Median seconds of a step."""
        return statistics.median(self.seconds)

    @property
    def time_quartiles(self) -> tuple[float, float, float]:
        """Lower quartile, median and upper quartile of the ratios of time."""
        if len(self.time_ratios) < 2:
            only = statistics.median(self.time_ratios)
            return only, only, only
        lower, median, upper = statistics.quantiles(
            self.time_ratios, n=4, method="inclusive"
        )
        return lower, median, upper


@dataclass(frozen=True)
class Comparison:
    """The ways that were tried, and what fits.

    Attributes:
        ways: in the order in which they were asked for, the plain step first.
        limit_bytes: largest peak that is allowed; None: any.
        blocks: paths of the modules that were checkpointed.

    Example:
        >>> plain = Way("plain", 2**21, (0.1,), 1.0, (1.0,))
        >>> exact = Way("exact", 2**20, (0.2,), 2.0, (2.0,))
        >>> print(Comparison((plain, exact), limit_bytes=2**20).verdict)
        cheapest within 1.0 MiB: exact, 1.0 MiB at 2.00x the time of the plain step; \
gradients those of the plain step
    """

    ways: tuple[Way, ...]
    limit_bytes: float | None = None
    blocks: tuple[str, ...] = ()

    @property
    def measured(self) -> tuple[Way, ...]:
        """The ways that did not fail."""
        return tuple(way for way in self.ways if not way.failed)

    @property
    def smallest(self) -> Way:
        """The way of the lowest peak."""
        return min(self.measured, key=lambda way: way.peak_bytes)

    @property
    def cheapest(self) -> Way | None:
        """The plain step if that is within the limit, else the fastest way that is.

        None if no way is.
        """
        limit = float("inf") if self.limit_bytes is None else self.limit_bytes
        fitting = [way for way in self.measured if way.peak_bytes <= limit]
        if self.ways[0] in fitting:  # what is measured as faster may be noise
            return self.ways[0]
        return min(fitting, key=lambda way: way.time_quartiles[1], default=None)

    @property
    def verdict(self) -> str:
        """The cheapest way in one sentence, or by how much none fits."""
        chosen = self.cheapest
        if chosen is None:
            assert self.limit_bytes is not None
            least = self.smallest
            over = least.peak_bytes - self.limit_bytes
            return (
                f"no way fits {_mib(self.limit_bytes)}: the smallest, {least.name}, "
                f"has a peak of {_mib(least.peak_bytes)}, {_mib(over)} too much"
            )
        within = "" if self.limit_bytes is None else f" within {_mib(self.limit_bytes)}"
        rounded = chosen.gradient_error
        gradients = (
            f"off by {100 * rounded:.2g} %" if rounded else "those of the plain step"
        )
        return (
            f"cheapest{within}: {chosen.name}, {_mib(chosen.peak_bytes)} at "
            f"{chosen.time_quartiles[1]:.2f}x the time of the plain step; "
            f"gradients {gradients}"
        )

    def to_dicts(self) -> list[dict[str, Any]]:
        """The ways as plain data."""
        return [asdict(way) for way in self.ways]

    def table(self) -> str:
        """One line per way: peak, time, error of the gradients."""
        lines = [
            f"{'way':<24} {'peak, MiB':>10} {'fewer':>7} {'ms a step':>10} "
            f"{'time (quartiles)':>20} {'gradients':>10}"
        ]
        for way in self.ways:
            if way.failed:
                lines.append(f"{way.name:<24} not measured: {way.failed}")
                continue
            low, middle, high = way.time_quartiles
            error = (
                f"{100 * way.gradient_error:.2g} %" if way.gradient_error else "exact"
            )
            lines.append(
                f"{way.name:<24} {way.peak_bytes / MIB:10.2f} {way.peak_ratio:6.2f}x "
                f"{1e3 * way.seconds_per_step:10.1f} "
                f"{f'{middle:.2f}x ({low:.2f}-{high:.2f})':>20} {error:>10}"
            )
        return "\n".join(lines)

    def __str__(self) -> str:
        return f"{self.table()}\n{self.verdict}"


def compare_ways(
    model: nn.Module,
    batch: Any,
    loss: Callable[[Any], Tensor] | None = None,
    *,
    limit_bytes: float | None = None,
    ways: Sequence[str] = (),
    blocks: Sequence[str] | None = None,
    rounds: int = 5,
) -> Comparison:
    """Measure ways to run a training step in less memory, on the model itself.

    Every way runs the same forward and backward pass on the same random numbers. The ways
    take turns in every round, so that other load on the machine meets all of them; the
    first turn is not counted. Nothing of the caller's changes: no parameter is updated,
    and gradients, buffers (running statistics), hooks and the random state are put
    back. The model is measured in the mode (training or evaluation) that it is in; under
    autocast if the call is.

    Args:
        model: the module to train.
        batch: arguments of the model: a tensor, a tuple of arguments, or a mapping of
            keyword arguments.
        loss: result of the model -> scalar. Default: the ``loss`` of the result where
            it has one, else the mean square of the first floating-point tensor in it.
        limit_bytes: largest peak that is allowed; see :class:`Way` for what it counts.
        ways: what to try: ``"checkpoint"``, ``"save_on_cpu"``, ``"without oneDNN"``, a
            policy of :class:`~elision.memory.saver` by name, or several joined by a plus
            sign. Default: :data:`WAYS`. The plain step is always measured.
        blocks: paths of the modules to checkpoint, as in ``named_modules``. Default:
            the members of the outermost ``ModuleList`` or ``Sequential`` that holds
            modules with submodules, the layers of a transformer and the stages of a
            ResNet.
        rounds: timed steps of each way.

    Raises:
        ValueError: no such policy or block, or a limit or number of rounds that is not
            positive.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
        >>> found = compare_ways(
        ...     model, torch.randn(4, 3, 16, 16), ways=["exact", "bits(4)"], rounds=1
        ... )
        >>> [way.name for way in found.ways]
        ['plain', 'exact', 'bits(4)']
        >>> found.ways[1].gradient_error
        0.0
    """
    integer("compare_ways", "rounds", rounds)
    if limit_bytes is not None:
        number("compare_ways", "limit_bytes", limit_bytes, "(0, inf]")
    step = _Step(model, batch, loss or _loss_of, _blocks(model, blocks))
    with step.undisturbed():
        found = _measured(step, _names(ways, step), rounds)
    return Comparison(found, limit_bytes, tuple(step.blocks))


def _names(ways: Sequence[str], step: "_Step") -> list[str]:
    """The plain step, and the others by their canonical names."""
    if ways:
        asked = [" + ".join(part.strip() for part in way.split("+")) for way in ways]
    else:
        asked = list(WAYS)
        if step.runs_onednn():
            asked.append(_WITHOUT_ONEDNN)
    return list(dict.fromkeys([_PLAIN, *asked]))


def _measured(step: "_Step", names: list[str], rounds: int) -> tuple[Way, ...]:
    contexts = {name: step.context(name) for name in names}
    failed: dict[str, str] = {}
    for name in names:
        try:  # compile, learn, allocate
            step.run(contexts[name])
        except (RuntimeError, ModuleNotFoundError) as error:
            if name == _PLAIN:
                raise
            failed[name] = str(error).partition("\n")[0]
    tried = [name for name in names if name not in failed]
    calls = {n: functools.partial(step.run, contexts[n]) for n in tried}
    seconds = interleaved(calls, rounds)
    peaks = {name: step.peak(contexts[name]) for name in tried}
    plain = step.gradients(contexts[_PLAIN])
    ways = []
    for name in names:
        if name in failed:
            ways.append(Way(name, failed=failed[name]))
            continue
        pairs = zip(seconds[name], seconds[_PLAIN], strict=True)
        way = Way(
            name,
            peaks[name],
            tuple(seconds[name]),
            peak_ratio=peaks[_PLAIN] / max(peaks[name], 1),
            time_ratios=tuple(mine / theirs for mine, theirs in pairs),
        )
        if name != _PLAIN:
            error = _apart(step.gradients(contexts[name]), plain)
            way = replace(way, gradient_error=error)
        ways.append(way)
    return tuple(ways)


_Context = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class _Step:
    """Training steps of a model on one batch, always on the same random numbers."""

    model: nn.Module
    batch: Any
    loss: Callable[[Any], Tensor]
    blocks: dict[str, nn.Module]

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Put everything back that a step changes."""
        tensors = [*self.model.parameters(), *tensors_in(self.batch)]
        leaves = [t for t in tensors if t.is_leaf and t.requires_grad]
        gradients = [leaf.grad for leaf in leaves]
        devices = {t.device for t in tensors if t.device.type != "cpu"}
        kind = next((d.type for d in devices), "cuda")
        places = [d.index for d in devices]
        try:
            with (
                restored(self.model),
                torch.random.fork_rng(places, device_type=kind),
                torch.enable_grad(),
            ):
                yield
        finally:
            for leaf, gradient in zip(leaves, gradients, strict=True):
                leaf.grad = gradient

    def context(self, name: str) -> _Context:
        """What a way puts around the forward pass; its policies last."""
        parts = name.split(" + ")
        makers: list[_Context] = []
        # The saver goes around the others, whose hooks are the inner ones.
        for part in sorted(parts, key=lambda part: part in _OTHERS):
            if part in _OTHERS:
                makers.append(functools.partial(_OTHERS[part], self))
            elif part != _PLAIN:
                policy = policy_for(
                    part, nn.Identity()
                )  # learns nothing of the model's
                maker = functools.partial(saver, self.model, policy, seed=0)
                makers.append(maker)

        @contextmanager
        def entered() -> Iterator[None]:
            with ExitStack() as contexts:
                for make in makers:
                    contexts.enter_context(make())
                yield

        return entered

    def run(self, context: _Context) -> None:
        """A forward and a backward pass that leaves nothing but gradients."""
        torch.manual_seed(0)
        self._clear()
        with warnings.catch_warnings():
            # What the caller is to read stands in the comparison.
            warnings.filterwarnings("ignore", "elision.memory.saver")
            warnings.filterwarnings("ignore", "TF32 acceleration on top of oneDNN")
            with context():
                loss = self.loss(_called(self.model, self.batch))
            loss.backward()

    def _clear(self) -> None:
        for tensor in (*self.model.parameters(), *tensors_in(self.batch)):
            if tensor.is_leaf:
                tensor.grad = None

    def peak(self, context: _Context) -> int:
        """Most bytes at any moment of a step."""
        self._clear()  # beforehand, lest old gradients are set off against new ones
        device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        return measure_peak(lambda: self.run(context), device).peak_bytes

    def gradients(self, context: _Context) -> list[Tensor]:
        """Gradients of the parameters; of those that have none, nothing."""
        with restored(self.model):  # state that a recipe reads is the same each time
            self.run(context)
        found = [p.grad for p in self.model.parameters() if p.grad is not None]
        self._clear()
        return found

    def runs_onednn(self) -> bool:
        """True if the model runs a recurrent layer of oneDNN."""
        if compiled_parts(dict(self.model.named_modules())):
            return False
        with restored(self.model), saver(self.model, "none", seed=0) as saved:
            result = _called(self.model, self.batch)
        del result
        return bool(saved.ledger.rows_of([Role.WORKSPACE]))

    @contextmanager
    def checkpointed(self) -> Iterator[None]:
        """Run the blocks under torch's checkpointing, without reentrance."""
        if not self.blocks:
            raise RuntimeError(
                "no blocks were found in the model; name them by blocks="
            )
        if compiled_parts(dict(self.model.named_modules())):
            raise RuntimeError("the model is compiled; checkpoint before compiling")
        with ExitStack() as undo:
            for block in self.blocks.values():
                own = block.__dict__.get("forward")
                wrapped = functools.partial(
                    checkpoint, block.forward, use_reentrant=False
                )
                block.__dict__["forward"] = wrapped
                if own is None:
                    undo.callback(block.__dict__.pop, "forward")
                else:
                    undo.callback(block.__dict__.__setitem__, "forward", own)
            yield


def _on_cpu(step: _Step) -> AbstractContextManager[Any]:
    return torch.autograd.graph.save_on_cpu()


def _without_onednn(step: _Step) -> AbstractContextManager[Any]:
    return torch.backends.mkldnn.flags(enabled=False)


#: Part of a way -> its context around the forward pass.
_OTHERS: dict[str, Callable[[_Step], AbstractContextManager[Any]]] = {
    _CHECKPOINT: _Step.checkpointed,
    _ON_CPU: _on_cpu,
    _WITHOUT_ONEDNN: _without_onednn,
}


def _blocks(
    model: nn.Module, names: Sequence[str] | None = None
) -> dict[str, nn.Module]:
    """Path -> module of the blocks to checkpoint."""
    if names is None:
        return dict(_repeated(model))
    modules = dict(model.named_modules())
    unknown = [name for name in names if not name or name not in modules]
    if unknown:
        raise ValueError(
            f"compare_ways(blocks={unknown[0]!r}): the model has no such module; "
            f"its modules: {', '.join(list(modules)[1:13])}, ..."
        )
    return {name: modules[name] for name in names}


def _repeated(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The members, with submodules of their own, of the outermost containers."""
    children = {f"{path}.{n}" if path else n: m for n, m in module.named_children()}
    if isinstance(module, (nn.ModuleList, nn.Sequential)):
        for place, child in children.items():
            inner = list(_repeated(child, place))
            if isinstance(child, (nn.ModuleList, nn.Sequential)) and inner:
                yield from inner  # a stage of blocks
            elif any(child.children()):
                yield place, child
        return
    for place, child in children.items():
        yield from _repeated(child, place)


def _called(model: nn.Module, batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, tuple) else model(batch)


def _loss_of(result: Any) -> Tensor:
    """The loss in a model's result, or a stand-in for it."""
    own = getattr(result, "loss", None)
    if own is None and isinstance(result, Mapping):
        own = result.get("loss")
    if isinstance(own, Tensor):
        return own
    for tensor in tensors_in(result):
        if tensor.is_floating_point() and tensor.requires_grad:
            return tensor.square().mean()
    raise ValueError(
        "compare_ways: the model's result holds no tensor with a gradient; give loss="
    )


def _apart(mine: list[Tensor], plain: list[Tensor]) -> float:
    """Norm of the difference of all gradients over their norm."""
    off = sum(float((a - b).square().sum()) for a, b in zip(mine, plain, strict=True))
    whole = sum(float(b.square().sum()) for b in plain)
    return (off / max(whole, 1e-60)) ** 0.5


def _mib(nbytes: float) -> str:
    return f"{nbytes / MIB:.1f} MiB"
