"""Rounds of a federated run: who takes part, what travels, what the test says."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from elision.common.checks import integer, numbers
from elision.common.files import load_tensors, save_tensors, taken_apart
from elision.common.trees import pack, unpack
from elision.layers.recipe import Recipe
from elision.training.parallel.federated.client import Clients
from elision.training.parallel.federated.partitions import generator
from elision.training.parallel.federated.plan import FederatedPlan
from elision.training.parallel.federated.server import Server
from elision.training.parallel.federated.workers import Train, trainers
from elision.workloads import Workload

__all__ = ["CHECKPOINT", "FederatedResult", "RoundMetrics", "run"]

CHECKPOINT = "checkpoint.safetensors"

#: Seconds between two checkpoints: what a killed run loses at most (own choice).
_SAVE_EVERY = 5.0


@dataclass(frozen=True)
class RoundMetrics:
    """What happened in a round.

    Attributes:
        round: from 1.
        score: the task's metric on the test examples after the round.
        loss: mean training loss of the clients that took part; None if none did.
        drawn: clients that took part.
        reported: of them, those whose messages came in time.
        late: messages of earlier rounds that came in this one.
        steps: local steps of all of them.
        up_bits: sent by the clients, revealed seeds included.
        down_bits: sent to them.
        epsilon: of the guarantee after the round; None without privacy.

    Example:
        >>> RoundMetrics(1, 0.5, 2.3, 10, 9, 0, 80, 8_000_000, 8_000_000, None).reported
        9
    """

    round: int
    score: float
    loss: float | None
    drawn: int
    reported: int
    late: int
    steps: int
    up_bits: int
    down_bits: int
    epsilon: float | None


@dataclass(frozen=True)
class FederatedResult:
    """A finished run.

    Attributes:
        model: with the server's last weights, elided.
        history: of every round.
        sizes: examples of each client.

    Example:
        >>> one = RoundMetrics(1, 0.5, 2.3, 10, 9, 0, 80, 8_000_000, 4_000_000, None)
        >>> result = FederatedResult(nn.Linear(2, 1), [one], [5, 5])
        >>> result.up_bytes, result.down_bytes, result.rounds_to(0.4)
        (1000000, 500000, 1)
    """

    model: nn.Module
    history: list[RoundMetrics]
    sizes: list[int]

    @property
    def up_bytes(self) -> int:
        """Sent by all clients."""
        return sum(r.up_bits for r in self.history) // 8

    @property
    def down_bytes(self) -> int:
        """Sent to all clients."""
        return sum(r.down_bits for r in self.history) // 8

    def rounds_to(self, score: float) -> int | None:
        """The first round with a metric of at least ``score``; None if there is none."""
        reached = (r.round for r in self.history if r.score >= score)
        return next(reached, None)


#: Called with (rounds done, rounds in all) and the latest round.
Progress = Callable[[int, int, RoundMetrics], None]


def run(
    workload: Workload,
    recipe: Recipe,
    dataset: Any,
    plan: FederatedPlan,
    *,
    engine: str = "torch",
    workers: int = 1,
    folder: Path | None = None,
    until: float | None = None,
    train: Train | None = None,
    progress: Progress | None = None,
) -> FederatedResult:
    """Train a workload's model on the data of many clients that stay where they are.

    Args:
        workload: task, model and a client's settings; a client's optimiser is new in
            every round.
        recipe: what is done to the operands of the clients' products. Masks must stay.
        dataset: the workload's data, which the plan divides.
        plan: clients, rule, rounds, messages.
        engine: who computes the products.
        workers: processes that train clients. The result is that of one, to the bit.
        folder: checkpoint folder; a run found there resumes, with the same result.
        until: metric after whose first round the run ends; None: all rounds.
        train: what trains jobs in place of this machine's processes, such as
            :func:`elision.training.parallel.federated.flower.over_grid`.
        progress: called after every round.

    Raises:
        ValueError: settings that do not go together, or a checkpoint of another run.
        ModuleNotFoundError: the account of privacy needs opacus.
        FloatingPointError: a client's loss is no longer a number.

    Example:
        >>> from elision.methods import Dense
        >>> small = Workload(name="small", dataset="digits", model="mlp", train_images=200,
        ...                  test_images=100, batch_size=16, schedule="constant")
        >>> plan = FederatedPlan(clients="dirichlet:clients=4,alpha=1.0", rounds=2)
        >>> result = run(small, Dense(), small.load_dataset(), plan)
        >>> [r.reported for r in result.history], result.up_bytes == result.down_bytes
        ([4, 4], True)
    """
    integer("federated", "workers", workers)
    noise = plan.mechanism()
    if noise is not None:
        noise.check()
    made = (workload, recipe, dataset, plan, engine)
    clients = Clients(*made)
    server = Server(clients)
    history: list[RoundMetrics] = []
    path = None if folder is None else folder / CHECKPOINT
    if path is not None and path.is_file():
        history = _load(path, server)
    saved = time.monotonic()
    given = nullcontext(train) if train else trainers(clients, made, workers)
    with given as training:
        for number in range(len(history), plan.rounds):
            history.append(_round(number, clients, server, training))
            last = number + 1 == plan.rounds
            if path is not None and (last or time.monotonic() > saved + _SAVE_EVERY):
                _save(path, server, history)
                saved = time.monotonic()
            if progress is not None:
                progress(number + 1, plan.rounds, history[-1])
            if until is not None and history[-1].score >= until:
                break
    clients.load(server.weights, server.buffers)
    return FederatedResult(clients.model, history, clients.sizes)


def _round(number: int, clients: Clients, server: Server, train: Train) -> RoundMetrics:
    """One round."""
    plan = clients.plan
    random = generator(plan.seed, 1, number)
    drawn = _drawn(plan, len(clients.sizes), random)
    lost = set(np.array(drawn)[random.random(len(drawn)) < plan.dropout].tolist())
    kind = plan.slow()
    chances = random.random(len(drawn))
    slow = {
        c
        for c, chance in zip(drawn, chances, strict=True)
        if kind is not None and chance < kind.share
    }
    down = sum(server.download_bits(c) for c in drawn)
    jobs = [server.job(c, round=number, slow=c in slow) for c in drawn]
    for client in drawn:
        server.note_download(client)
    reports = train(jobs)
    came = [r for r in reports if r.client not in lost]
    delayed = slow if kind is not None and kind.delay else set()
    late = [r for r in came if r.client in delayed]
    in_time = [r for r in came if r.client not in delayed]
    up = sum(server.upload_bits(r) for r in came)
    stale, revealed = server.finish(number, drawn, in_time, late)
    clients.load(server.weights, server.buffers)
    noise = plan.mechanism()
    return RoundMetrics(
        round=number + 1,
        score=clients.score(),
        loss=float(np.mean([r.loss for r in reports])) if reports else None,
        drawn=len(drawn),
        reported=len(in_time),
        late=stale,
        steps=sum(r.steps for r in reports),
        up_bits=up + revealed,
        down_bits=down,
        epsilon=None
        if noise is None
        else noise.epsilon(plan.participation, number + 1),
    )


def _drawn(plan: FederatedPlan, count: int, random: np.random.Generator) -> list[int]:
    """The clients of a round, rising."""
    if plan.sampling == "poisson":
        return np.flatnonzero(random.random(count) < plan.participation).tolist()
    wanted = max(1, round(plan.participation * count))
    return np.sort(random.choice(count, wanted, replace=False)).tolist()


def _save(path: Path, server: Server, history: list[RoundMetrics]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors, rest = pack(server.state_dict(), "server/")
    save_tensors(
        path, tensors, {"server": rest, "history": [asdict(r) for r in history]}
    )


#: Metrics of a round that it may not have.
_MAY_BE_NONE = ("loss", "epsilon")


def _load(path: Path, server: Server) -> list[RoundMetrics]:
    tensors, facts = load_tensors(path, "checkpoint")
    with taken_apart(path, "does not fit this run"):
        server.load_state_dict(unpack(tensors, facts["server"]))
        rows = [
            numbers("RoundMetrics", row, none=_MAY_BE_NONE) for row in facts["history"]
        ]
        return [RoundMetrics(**row) for row in rows]
