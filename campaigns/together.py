"""Work at once: loaders' workers, forks in the middle of kernels, two models in two threads."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.multiprocessing.reductions import shared_cache
from torch.utils.data import DataLoader, TensorDataset

import elision
from campaigns.campaign import Row
from campaigns.resources import repeated, sampled
from campaigns.steps import convolutions, digits
from elision import methods

__all__ = ["forks", "loaded", "threads"]

#: Images of a batch, and batches of an epoch.
_BATCH, _BATCHES = 16, 4

#: Seconds after which a forked process hangs: its work takes a hundredth.
_HANG_SECONDS = 30

_POLICIES = ("bits(4)", "jpeg", "offload")


def _elided(recipe: elision.Recipe, engine: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return elision.elide(convolutions(), recipe, engine=engine)


def _step(model: nn.Module, images: Tensor, labels: Tensor, policy: str) -> Tensor:
    """One step under a saver and a recorder; the loss."""
    model.zero_grad()
    with elision.record(model, samples=1):
        with elision.memory.saver(model, policy, seed=0):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
    return loss


# --- data loaders -----------------------------------------------------------------------


def loaded(method: str, killed: bool, count: int, seed: int) -> Row:
    """Epochs of a loader with two workers around an elided model under a saver.

    Args:
        method: how workers start, ``"fork"`` or ``"spawn"``.
        killed: whether one worker is killed in every epoch; the loader must say so, and
            the next epoch must run. Workers live as long as the loader otherwise.
        count: fifty for each epoch; twenty epochs at least.
        seed: of the weights.
    """
    images, labels = digits()
    size = _BATCH * _BATCHES
    data = TensorDataset(images[:size], labels[:size])
    model = _elided(methods.Swat(0.8, dense=()), "native", seed)
    context = multiprocessing.get_context(method)

    def loader() -> DataLoader[tuple[Tensor, ...]]:
        options = {"multiprocessing_context": context, "persistent_workers": not killed}
        return DataLoader(data, _BATCH, num_workers=2, timeout=60, **options)

    def epoch(number: int) -> None:
        given = loader()
        if not killed:  # the same workers twice
            assert sum(1 for _ in given) == _BATCHES
        try:
            for at, (x, y) in enumerate(given):
                _step(model, x, y, _POLICIES[number % len(_POLICIES)])
                if killed and at == 0:
                    _kill_a_child()
        except RuntimeError as error:
            if not (killed and "DataLoader worker" in str(error)):
                raise
        # Torch forgets what it sent between processes once 128 of it are dead; here at once.
        shared_cache.free_dead_references()

    return repeated(epoch, max(20, count // 50))


def _kill_a_child() -> None:
    child = multiprocessing.active_children()[0]
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()  # the loader's handler raises here, and not wherever the program is then


# --- forks ------------------------------------------------------------------------------


def forks(count: int, seed: int) -> Row:
    """Processes that are forked while another thread computes with the same model.

    Each computes one step on one thread of its own and must end well; one for every ten
    of ``count``, under each engine.
    """
    images, labels = (x[:_BATCH] for x in digits())
    row = Row({"ended": 0, "hang": 0, "failed": 0})
    torch.set_num_threads(2)
    for engine in ("native", "torch", "auto"):
        model = _elided(methods.Swat(0.8, dense=()), engine, seed)
        _step(model, images, labels, "exact")
        with _at_work(lambda m=model: m(images)):
            for _ in range(max(3, count // 10)):
                end = _forked(lambda m=model: _step(m, images, labels, "bits(4)"))
                row.counts[end] += 1
                if end != "ended":
                    row.bad.append(f"engine {engine}: {end}")
    row.facts = {k: v for k, v in sampled().items() if k in ("children", "threads")}
    return row


@contextmanager
def _at_work(work: Callable[[], object]) -> Iterator[None]:
    """Context in which a thread does a piece of work again and again."""
    done = threading.Event()

    def run() -> None:
        with torch.no_grad():
            while not done.is_set():
                work()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _forked(work: Callable[[], object]) -> str:
    child = os.fork()
    if not child:
        status = 1
        try:
            torch.set_num_threads(1)  # GNU's OpenMP has no threads in a forked process
            work()
            status = 0
        finally:
            os._exit(status)
    ends = time.monotonic() + _HANG_SECONDS
    while time.monotonic() < ends:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return "failed" if status else "ended"
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hang"


# --- two threads ------------------------------------------------------------------------

_RECIPES: dict[str, Callable[[], elision.Recipe]] = {
    "swat": lambda: methods.Swat(0.8, dense=()),
    "rigl": lambda: methods.RigL(0.5, every=2, until=8, dense=()),
    "resprop": lambda: methods.ReSprop(reuse=0.8),
    "bf16": lambda: methods.Bf16(),
    "int8": lambda: methods.Int8(),
}


def threads(count: int, seed: int) -> Row:
    """Two models trained in two threads at once, and one model asked by two threads.

    What each computes must be, to the last bit, what it computes alone. Trials: every
    recipe, engine, saver and number of torch's threads; one round for every thousand of
    ``count``.
    """
    row = Row({"two models": 0, "one model": 0})
    for number in range(max(1, count // 1000)):
        for name, recipe in _RECIPES.items():
            for engine in ("native", "torch"):
                own = _elided(recipe(), engine, seed).eval()
                what = f"{name}, engine {engine}"
                _tell(row, "one model", what, [_asker(own, seed + k) for k in (0, 1)])
                for policy in _POLICIES:
                    # Weights are drawn here, as torch's generator is one for all threads.
                    makers = [
                        _trainer(recipe, engine, policy, seed + 10 * number + k)
                        for k in (0, 1)
                    ]
                    _tell(row, "two models", f"{what}, {policy}", makers)
    return row


def _tell(
    row: Row,
    kind: str,
    what: str,
    makers: list[Callable[[], Callable[[], list[Tensor]]]],
) -> None:
    """Count a trial: each work alone, then both at once, on one and two torch threads."""
    for number in (1, 2):
        torch.set_num_threads(number)
        alone = [maker()() for maker in makers]
        together: list[list[Tensor]] = [[], []]

        def run(
            at: int, work: Callable[[], list[Tensor]], to: list[list[Tensor]]
        ) -> None:
            to[at] = work()

        running = [
            threading.Thread(target=run, args=(at, maker(), together))
            for at, maker in enumerate(makers)
        ]
        for one in running:
            one.start()
        for one in running:
            one.join()
        same = all(
            len(a) == len(b) and all(map(torch.equal, a, b))
            for a, b in zip(alone, together, strict=True)
        )
        row.counts[kind] += 1
        if not same:
            row.bad.append(f"{kind}, {number} threads: {what}")


def _trainer(
    recipe: Callable[[], elision.Recipe], engine: str, policy: str, seed: int
) -> Callable[[], Callable[[], list[Tensor]]]:
    """Maker of a training of eight steps, which gives state and recorded operands."""
    images, labels = digits()

    def make() -> Callable[[], list[Tensor]]:
        model = _elided(recipe(), engine, seed)
        optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)

        def work() -> list[Tensor]:
            elision.topology.attach(model, optimizer)
            seen: list[Tensor] = []
            for step in range(8):
                part = slice((seed + step) * _BATCH, (seed + step + 1) * _BATCH)
                optimizer.zero_grad()
                with elision.record(model, samples=1) as trace:
                    with elision.memory.saver(model, policy, seed=step):
                        loss = F.cross_entropy(model(images[part]), labels[part])
                    loss.backward()
                optimizer.step()
                seen += [x for p in trace for x in (p.first, p.second)]
            return [*seen, *(v.clone() for v in model.state_dict().values())]

        return work

    return make


def _asker(model: nn.Module, seed: int) -> Callable[[], Callable[[], list[Tensor]]]:
    """Maker of twenty forward passes in evaluation mode."""
    images, _ = digits()

    def work() -> list[Tensor]:
        with torch.no_grad():
            starts = [(seed + n) * _BATCH for n in range(20)]
            return [model(images[at : at + _BATCH]) for at in starts]

    return lambda: work
