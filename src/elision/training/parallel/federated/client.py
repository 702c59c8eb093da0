"""Client: the local training of one round, a function of what the server sent.

A client keeps nothing in its process: what it remembers (a rule's controls, what a
compressor did not send) comes with the job and goes back with the report. So any process
can train any client, and the result does not depend on which.
"""

import math
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from elision.common.seeds import seed_at, stream_of
from elision.layers import elide
from elision.layers.recipe import Recipe
from elision.topology import attach
from elision.training.parallel.compressors import State
from elision.training.parallel.compressors.base import Message
from elision.training.parallel.federated.partitions import labels_of
from elision.training.parallel.federated.plan import FederatedPlan
from elision.training.parallel.federated.privacy import clipped
from elision.training.parallel.masks import kept_masks, refuse_moving_masks
from elision.training.parallel.outer.rules.base import Memory
from elision.workloads import Batch, Workload

__all__ = ["Clients", "Job", "Report"]


@dataclass(frozen=True)
class Job:
    """One client's work in one round.

    Attributes:
        client: its number.
        round: from 0.
        slow: whether it is a straggler.
        weights: from which it begins, one tensor a parameter.
        buffers: running statistics, by name.
        told: of the rule's shared memory, one dictionary a parameter.
        memories: of the client under the rule, one dictionary a parameter.
        sent: of the client under the compressor: steps and tensors, one a message.

    Example:
        >>> Job(client=3, round=0, slow=False, weights=[], buffers={}, told=[]).sent
        []
    """

    client: int
    round: int
    slow: bool
    weights: list[Tensor]
    buffers: dict[str, Tensor]
    told: list[Memory]
    memories: list[Memory] = field(default_factory=list)
    sent: list[tuple[int, dict[str, Tensor]]] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """What a client sends after its steps, and what it keeps until its next round.

    Attributes:
        client: its number.
        examples: of its own.
        steps: that it took.
        loss: mean over its steps.
        messages: compressed messages, or plain tensors, of each parameter in turn.
        buffers: running statistics after its steps.
        memories, sent: see :class:`Job`.

    Example:
        >>> Report(3, examples=10, steps=8, loss=0.5, messages=[], buffers={}).examples
        10
    """

    client: int
    examples: int
    steps: int
    loss: float
    messages: list[Message | Tensor]
    buffers: dict[str, Tensor]
    memories: list[Memory] = field(default_factory=list)
    sent: list[tuple[int, dict[str, Tensor]]] = field(default_factory=list)


class Clients:
    """All clients of a run, with one model that each trains in its turn.

    Args:
        workload: task, model and settings.
        recipe: what is done to the operands of the products.
        dataset: the workload's data, whole.
        plan: of the run.
        engine: who computes the products.

    Attributes:
        model: the elided model.
        parameters: of it, those that are trained.
        buffers: its running statistics, by name; a recipe's state is not among them.
        sizes: examples of each client.
        masks: of each parameter; None: none.

    Raises:
        ValueError: the rule does not take the workload's optimiser, the partition not its
            data; masks that move; batch statistics that would leave without noise.

    Example:
        >>> from elision.methods import Dense
        >>> small = Workload(name="small", dataset="digits", model="mlp", train_images=50)
        >>> Clients(small, Dense(), small.load_dataset(), FederatedPlan()).sizes
        [5, 5, 5, 5, 5, 5, 5, 5, 5, 5]
    """

    def __init__(
        self,
        workload: Workload,
        recipe: Recipe,
        dataset: Any,
        plan: FederatedPlan,
        engine: str = "torch",
    ) -> None:
        self.plan, self.rule = plan, plan.outer_rule()
        # A round is to the schedule what an epoch is to a run in one place.
        self.workload = workload.changed(name=workload.name, epochs=plan.rounds)
        self.task, self.dataset = workload.task, dataset
        count = self.task.train_size(dataset)
        self._parts = plan.partition().parts(count, labels_of(dataset), plan.seed)
        self.sizes = [len(part) for part in self._parts]
        with torch.random.fork_rng():
            torch.manual_seed(plan.seed)
            self.model = elide(workload.make_model(dataset), recipe, engine=engine)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self._start = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.buffers = {
            name: buffer
            for name, buffer in self.model.named_buffers()
            if buffer.is_floating_point()
            and not name.rpartition(".")[2].startswith("elision_")
        }
        if plan.privacy is not None and self.buffers:
            raise ValueError(
                f"privacy {plan.privacy!r}: model {workload.model!r} has running statistics "
                "of batches, which would leave without noise; give one without batch norms"
            )
        optimizer = self._optimizer(0)
        self.rule.check_inner(optimizer)
        known = kept_masks(optimizer)
        self.masks = [known.get(id(p)) for p in self.parameters]
        if plan.up_compressor() is not None and plan.up == "mask" and not known:
            raise ValueError(
                "up 'mask' sends surviving weights, and this recipe has no mask; give one "
                "that stays, such as static"
            )

    def first_weights(self) -> list[Tensor]:
        """Weights that the run begins with, zero where a mask leaves them out."""
        held = [p.detach().clone() for p in self.parameters]
        return [
            w if m is None else w * m for w, m in zip(held, self.masks, strict=True)
        ]

    def load(self, weights: list[Tensor], buffers: dict[str, Tensor]) -> None:
        """Give the model weights and running statistics, and a recipe's first state."""
        self.model.load_state_dict(self._start)
        with torch.no_grad():
            for p, value in zip(self.parameters, weights, strict=True):
                p.copy_(value)
            for name, value in buffers.items():
                self.buffers[name].copy_(value)

    def score(self) -> float:
        """The test metric of the model as it is."""
        batches = self.workload.test_batches(self.dataset)
        return self.task.evaluate(self.model, batches)

    def steps_of(self, client: int, slow: bool = False) -> int:
        """Steps that a client takes in a round."""
        epochs = self.plan.local_epochs
        steps = self.rule.every
        if epochs is not None:
            steps = epochs * math.ceil(self.sizes[client] / self.workload.batch_size)
        late = self.plan.slow()
        return late.steps(steps) if slow and late is not None else steps

    def train(self, job: Job) -> Report:
        """Take a client's steps of a round.

        Raises:
            FloatingPointError: its loss is no longer a number.
        """
        steps = self.steps_of(job.client, job.slow)
        stream = stream_of(f"client {job.client}", self.plan.seed)
        self.load(job.weights, job.buffers)
        optimizer = self._optimizer(job.round)
        rate = float(optimizer.param_groups[0]["lr"])
        memories = [dict(m) for m in job.memories] or [{} for _ in self.parameters]
        for own, told in zip(memories, job.told, strict=True):
            own |= told
        losses = 0.0
        self.model.train()
        with torch.random.fork_rng():
            torch.manual_seed(seed_at(stream, job.round))
            for step, batch in enumerate(self._batches(job.client, job.round, steps)):
                optimizer.zero_grad()
                loss = self.task.loss(self.model, batch)
                if not torch.isfinite(loss):
                    raise FloatingPointError(
                        f"the loss of client {job.client} is {loss.item()} in step {step} "
                        f"of round {job.round}; lower the learning rate"
                    )
                loss.backward()
                with torch.no_grad():
                    for p, anchor, own in zip(
                        self.parameters, job.weights, memories, strict=True
                    ):
                        self.rule.correct(p, anchor, own)
                optimizer.step()
                losses += loss.item()
        messages, sent = self._messages(job, memories, rate * steps)
        return Report(
            job.client,
            self.sizes[job.client],
            steps,
            losses / steps,
            messages,
            {name: buffer.clone() for name, buffer in self.buffers.items()},
            [{k: v for k, v in m.items() if k not in self.rule.told} for m in memories],
            sent,
        )

    def _states(self, job: Job, count: int) -> list[State]:
        """What the client's compressor knows of each of so many messages."""
        found = []
        for place in range(count):
            state = State(name=str(place), seed=self.plan.seed, rank=job.client)
            if job.sent:
                state.step, state.tensors = job.sent[place][0], dict(job.sent[place][1])
            if self.plan.secure is not None:
                state.step = job.round  # places that all clients of a round know
            state.mask = self.masks[place * len(self.parameters) // count]
            found.append(state)
        return found

    @torch.no_grad()
    def _messages(
        self, job: Job, memories: list[Memory], travelled: float
    ) -> tuple[list[Message | Tensor], list[tuple[int, dict[str, Tensor]]]]:
        """The rule's messages, compressed, and what the compressor remembers."""
        tensors: list[Tensor] = []
        for p, anchor, own in zip(self.parameters, job.weights, memories, strict=True):
            tensors += self.rule.messages(anchor - p, travelled, own)
        noise, compressor = self.plan.mechanism(), self.plan.up_compressor()
        if noise is not None and self.plan.secure is not None:
            tensors, _ = clipped(tensors, noise.clip)
        if compressor is None:
            return list(tensors), []
        states = self._states(job, len(tensors))
        messages: list[Message | Tensor] = [
            compressor.compress(tensor.contiguous(), state)
            for tensor, state in zip(tensors, states, strict=True)
        ]
        return messages, [(s.step, s.tensors) for s in states]

    def _optimizer(self, round: int) -> torch.optim.Optimizer:
        """A new optimiser at the rate of a round, with the recipe's masks."""
        rate = self.workload.learning_rate_at(round, 1)
        optimizer = self.workload.make_optimizer(self.model, rate)
        attach(self.model, optimizer)
        refuse_moving_masks("federated", optimizer)
        self.workload.clip_gradients(optimizer)
        return optimizer

    def _batches(self, client: int, round: int, steps: int) -> Iterator[Batch]:
        """So many batches of a client's examples; epochs follow on one another."""
        data = self.dataset.part(self._parts[client].tolist())
        per_epoch = math.ceil(self.sizes[client] / self.workload.batch_size)
        seed = stream_of(f"batches of client {client}", self.plan.seed)
        left, epoch = steps, round * math.ceil(steps / per_epoch)
        while left:
            for batch in self.workload.train_batches(data, seed=seed, epoch=epoch):
                yield batch
                left -= 1
                if not left:
                    return
            epoch += 1


def packed(value: Any) -> bytes:
    """A job or a report as bytes: tensors by value, through no shared memory."""
    return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
