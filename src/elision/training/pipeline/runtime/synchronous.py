"""Synchronous schedules, by torch's own pipeline runtime and this project's tables.

Torch's runtime executes any table of forward and backward actions and adds what is sent
and received. Its own table for 1F1B is not used: on torch 2.13 the last rank's leaves out
a micro-batch.
"""

import time
from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage

from elision.training.pipeline.runtime import torch_names
from elision.training.pipeline.runtime.planned import Planned
from elision.training.pipeline.weights import MakeOptimizer

__all__ = ["Synchronous"]


class Synchronous:
    """This rank's stages under a schedule that drains before it updates.

    Args:
        plan: a plan of a synchronous schedule.
        stages: all stages of the model; this rank trains those that the plan gives it.
        loss: of the last stage's output and a target, the mean over examples.
        make_optimizer: of one stage's parameters.
        rank: this process's.
        boundaries: tensors of the shape of each stage's input, and of the last output,
            for one micro-batch. Torch would find them by a pass of its own, which moves
            the statistics of batch normalisation.
    """

    def __init__(
        self,
        plan: Planned,
        stages: Sequence[nn.Module],
        loss: Callable[[Tensor, Tensor], Tensor],
        make_optimizer: MakeOptimizer,
        rank: int,
        boundaries: Sequence[Tensor],
    ) -> None:
        (lane,) = plan.pipeline.lanes
        self.mine = [s for s, owner in enumerate(lane) if owner == rank]
        self.first, self.last = 0 in self.mine, len(stages) - 1 in self.mine
        trained = [
            [p for p in stages[index].parameters() if p.requires_grad]
            for index in self.mine
        ]
        self.optimizers = [make_optimizer(own) for own in trained if own]
        self.schedule = torch_names.runtime(
            [
                PipelineStage(
                    stages[i],
                    i,
                    len(stages),
                    boundaries[i].device,
                    input_args=boundaries[i].requires_grad_(i > 0),
                    output_args=boundaries[i + 1].requires_grad_(),
                )
                for i in self.mine
            ],
            plan.microbatches,
            loss,
        )
        self.schedule._prepare_schedule_with_comms(
            torch_names.actions_of(
                [
                    [
                        f"{a.stage}{a.kind}{a.microbatch}"
                        for a in plan.actions
                        if a.processor == processor
                    ]
                    for processor in range(plan.processors)
                ]
            )
        )
        self.seconds: list[float] = []

    def step(self, inputs: Tensor, target: Tensor) -> float | None:
        """One step of the optimiser; the loss on the rank of the last stage."""
        began = time.perf_counter()
        losses: list[Tensor] = []
        arguments = (inputs,) if self.first else ()
        with torch_names.quiet():
            if self.last:
                self.schedule.step(
                    *arguments, target=target, losses=losses, return_outputs=False
                )
            else:
                self.schedule.step(*arguments, return_outputs=False)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.seconds.append(time.perf_counter() - began)
        if not losses:
            return None
        return sum(float(one.detach()) for one in losses) / len(losses)
