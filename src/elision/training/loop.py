"""train: one model under one recipe, metered, recorded and resumable.

Workload, recipe, seed and execution decide a run: batches follow from (seed, epoch), the
learning rate from the step, and everything else that a step reads is in the checkpoint.
So a run that was killed and started again ends with the same numbers.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from elision.common.checks import count, random_seed
from elision.common.restoring import kept_random_state
from elision.common.seeds import seed_at
from elision.distill import Distilled, Teaching
from elision.distill.distilled import Lesson
from elision.distill.lessons import Lessons
from elision.layers import elide
from elision.layers.meter import WorkMeter
from elision.layers.recipe import Recipe
from elision.layers.record import record
from elision.layers.watch import watch
from elision.memory import Policy, saver
from elision.products import Trace
from elision.topology import Topology, attach
from elision.training import checkpoint
from elision.training.checkpoint import EpochMetrics, RunState
from elision.training.divergence import first_cause, nonfinite_gradient
from elision.training.execution import Execution, repeatable
from elision.training.logged import TrainingLog
from elision.training.loggers import LogTo
from elision.training.loss_scaling import LossScaleError, LossScaling
from elision.training.parallel import (
    CompressHook,
    OuterOptimizer,
    Traffic,
    compress_hook,
    make_compressor,
)
from elision.training.parallel.agreement import check_agreement, facts_of
from elision.training.parallel.hook import named
from elision.training.ranks import Ranks
from elision.training.spent import EpochEnergy, Spent
from elision.workloads import Batch, Examples, Workload

__all__ = [
    "Progress",
    "RunPlan",
    "StepWatcher",
    "TrainResult",
    "TrainingDivergedError",
    "train",
]

#: Called with (steps done, steps in all) and the latest epoch's metrics, if any.
Progress = Callable[[int, int, EpochMetrics | None], None]


class StepWatcher(Protocol):
    """Somebody beside a run, who may change what it computes (faults, for example).

    Example:
        >>> class Losses(list):
        ...     def attached(self, model, optimizer):
        ...         return nullcontext()
        ...     def policy(self, policy, model):
        ...         return policy
        ...     def done(self, step, loss):
        ...         self.append(loss)
        >>> watcher: StepWatcher = Losses()
        >>> watcher.done(0, 2.5)
        >>> watcher
        [2.5]
    """

    def attached(
        self, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> AbstractContextManager[Any]:
        """Entered before the first step of the run and left after the last."""
        ...

    def policy(self, policy: Policy, model: nn.Module) -> Policy:
        """The policy of saved activations that the run uses in place of this one."""
        ...

    def done(self, step: int, loss: float) -> None:
        """A step's loss is known; its backward pass comes next."""
        ...


class TrainingDivergedError(RuntimeError):
    """The loss or a gradient is no longer a number.

    Attributes:
        result: the run up to there, its metrics NaN from that epoch on and nothing
            recorded; None where several processes share it.

    Example:
        >>> TrainingDivergedError("the loss is nan at step 3").result is None
        True
    """

    result: "TrainResult | None" = None


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """Seed of a run, and the steps that are metered and recorded.

    Attributes:
        seed: of the model's initial weights, the batches and their augmentation.
        meter_every: steps from one whose work is counted to the next.
        record_epochs: epochs whose last step is recorded.
        record_samples: examples of that step that are kept.
        pause_after: epochs after which the run stops; None: it goes to its end. Its
            schedules stay those of the whole run, so that a call with a larger number goes
            on from the checkpoint as if there had been no pause.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> RunPlan(meter_every=0)
        Traceback (most recent call last):
        ValueError: RunPlan(meter_every=0): must be an integer >= 1
    """

    seed: int = 0
    meter_every: int = 8
    record_epochs: tuple[int, ...] = ()
    record_samples: int = 2
    pause_after: int | None = None

    def __post_init__(self) -> None:
        random_seed("RunPlan", "seed", self.seed)
        if self.pause_after is not None:
            count("RunPlan", "pause_after", self.pause_after)
        count("RunPlan", "meter_every", self.meter_every)
        count("RunPlan", "record_samples", self.record_samples)


@dataclass
class TrainResult:
    """A finished run.

    Attributes:
        model: the trained model, still elided, on the run's device.
        history: metrics of every epoch.
        meter: work of the metered steps of all ranks, by layer and product.
        trace: the recorded products; empty on ranks other than 0.
        step_seconds: median wall-clock seconds of the steps that were neither metered
            nor recorded, of this process only; None if there was none.
        saved_bytes: (logical, stored) bytes of saved activations in the largest step of
            one process; None without a policy.
        diverged: why the loss is no longer a number, where it is not.
        sent_ratio: bits that a rank would send for its gradients as they are at every
            step, over those that it sent; None: that is what it sent.
        traffic: bits of this rank's gradients and messages; None: no hook compresses them.
        spent: energy of the epochs, those of earlier processes included, as far as it is
            known; empty on ranks other than 0.
        distilled: the loss with its teacher, for further steps; None: nobody taught.

    Example:
        >>> history = [EpochMetrics(0, loss=0.5, score=0.9, learning_rate=0.1)]
        >>> result = TrainResult(nn.Linear(2, 1), history, WorkMeter(), Trace())
        >>> result.history[-1].score, result.step_seconds
        (0.9, None)
    """

    model: nn.Module
    history: list[EpochMetrics]
    meter: WorkMeter
    trace: Trace
    step_seconds: float | None = None
    saved_bytes: tuple[int, int] | None = None
    diverged: str | None = None
    sent_ratio: float | None = None
    traffic: Traffic | None = None
    spent: dict[int, EpochEnergy] = field(default_factory=dict)
    distilled: Distilled | None = None


def train(
    workload: Workload,
    recipe: Recipe,
    dataset: Examples,
    plan: RunPlan,
    *,
    execution: Execution | None = None,
    ranks: Ranks | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
    watcher: StepWatcher | None = None,
    teaching: Teaching | None = None,
    log: LogTo | None = None,
) -> TrainResult:
    """Train a workload's model under a recipe.

    Args:
        workload: task, model and settings.
        recipe: what is done to the operands of the products.
        dataset: the workload's data.
        plan: seed, metering and recording.
        execution: engine, saved activations, device, precision; default: torch's
            engine, plain autograd, the CPU, float32.
        ranks: this process among those that share every batch; default: alone.
        folder: checkpoint folder, written after every epoch; a run found there resumes.
        progress: called after every step and epoch, on rank 0.
        watcher: beside the run; it belongs to no checkpoint.
        teaching: distillations and the teacher whose outputs are a part of the loss.
            What teachers compute is neither metered nor timed.
        log: loggers that rank 0 tells of steps and epochs; they change no result.

    Returns:
        The trained model, its history, the work counted and the trace.

    Raises:
        TrainingDivergedError: the loss or a gradient became NaN or infinite; the message
            names the step, and the first layer and product with such a value. Or the loss
            scale of a recipe in float16 fell and did not recover, or left no step to
            record.
        ValueError: the folder holds a checkpoint that does not fit or is damaged, the
            device is not there, a batch has fewer examples than there are ranks, or
            gradients are to travel compressed where none travels, or where the
            compressor's memory or momentum does not fit the run, or ranks are to train
            alone under a scaled loss, a moving mask or an optimiser of another kind than
            the rule's; or teacher and student do not fit (:meth:`Teaching.distilled`), or
            several ranks are to train a hint's regressor or follow an average.
        RuntimeError: the ranks have different models, recipes or masks.

    Example:
        >>> from elision.methods import Swat
        >>> from elision.workloads import Workload
        >>> small = Workload(name="small", dataset="digits", model="mlp", epochs=1,
        ...                  train_images=64, test_images=10)
        >>> result = train(small, Swat(0.9), small.load_dataset(), RunPlan())
        >>> len(result.history), result.meter.total().ratio < 1
        (1, True)
    """
    ranks = ranks or Ranks()
    if workload.batch_size < ranks.count:
        raise ValueError(
            f"workload {workload.name!r}: a batch of {workload.batch_size} cannot be "
            f"shared by {ranks.count} processes"
        )
    execution = execution or Execution()
    device = execution.torch_device(ranks.local)
    with repeatable(device):
        run = _Run(
            workload, recipe, dataset, plan, execution, ranks, device, watcher, teaching
        )
        run.spent = Spent(folder, ranks, device)
        run.resume(folder)
        try:
            with run.watched(), run.logged(log):
                run.finish(folder, progress if ranks.is_first else None)
        except TrainingDivergedError as error:
            if ranks.count == 1:
                error.result = run.diverged(str(error))
            raise
        return run.result()


class _Run:
    """One training run: model, optimiser, and the state that epochs add to."""

    def __init__(
        self,
        workload: Workload,
        recipe: Recipe,
        dataset: Examples,
        plan: RunPlan,
        execution: Execution,
        ranks: Ranks,
        device: torch.device,
        watcher: StepWatcher | None = None,
        teaching: Teaching | None = None,
    ) -> None:
        self.watcher = watcher
        self.log: TrainingLog | None = None
        self.spent = Spent(None, ranks, device)
        self.workload, self.task, self.dataset = workload, workload.task, dataset
        self.plan, self.execution = plan, execution
        self.ranks, self.device = ranks, device
        self.state = RunState(self.task.metric.name)
        self.per_epoch = workload.steps_per_epoch(dataset)
        torch.manual_seed(plan.seed)
        plain = workload.make_model(dataset).to(device)
        self.distilled = None if teaching is None else self._taught(plain, teaching)
        self.model = elide(plain, recipe, engine=execution.engine)
        alone = execution.outer is not None
        if alone and ranks.count > 1:
            check_agreement(facts_of(self.model))
        self.parallel = self.model if alone else ranks.wrapped(self.model)
        self.optimizer = workload.make_optimizer(self.model)
        self.topology: Topology = attach(self.model, self.optimizer)
        self.named = list(self.model.named_parameters())
        #: The step that runs, and what runs its forward pass again.
        self.again: tuple[int, Callable[[], Tensor]] | None = None
        if watcher is None:  # with one, what is not finite is the watcher's
            self.optimizer.register_step_pre_hook(self._look_at_gradients)
        self.lessons = None
        if self.distilled is not None and teaching is not None:
            self.lessons = self._lessons(self.distilled, teaching)
        workload.clip_gradients(self.optimizer)
        scaling = execution.loss_scaling(recipe)
        self.outer = self._alone(scaling)
        self.hook = None if alone else self._compressed(scaling)
        self.scaling = LossScaling(device.type, scaling, self.optimizer)
        if ranks.rank:  # the same weights everywhere, another dropout on each rank
            # 32 bits of a seed are all that torch's generator of the CPU reads.
            torch.manual_seed(seed_at(plan.seed, ranks.rank))

    def _alone(self, scaling: float | str | None) -> OuterOptimizer | None:
        """What joins ranks that train alone."""
        spec = self.execution.outer
        if spec is None:
            return None
        self.execution.check_ranks(self.ranks.count)
        if scaling is not None:
            raise ValueError(
                f"outer {spec!r}: a rank that skips a step of a scaled loss would be out of "
                "step with the others; use --precision bf16, and a recipe without a loss scale"
            )
        return OuterOptimizer(
            self.optimizer,
            spec,
            compress=self.execution.compress,
            seed=self.plan.seed,
        )

    def _taught(self, plain: nn.Module, teaching: Teaching) -> Distilled:
        """The loss with a teacher, tried out on the network before it is elided."""
        if teaching.teacher is not None:
            teaching.teacher.to(self.device)
        found = teaching.distilled(plain, self.task, self.dataset).to(self.device)
        if self.ranks.count > 1 and list(found.parameters()):
            raise ValueError(
                "distillation by hints: a regressor is trained by one process, and this "
                f"run has {self.ranks.count}; use hinton, attention or relational"
            )
        if self.ranks.count > 1 and found.decay is not None:
            raise ValueError(
                "distillation by an average: it is followed by one process, and this run "
                f"has {self.ranks.count}; give a teacher"
            )
        return found

    def _lessons(self, distilled: Distilled, teaching: Teaching) -> Lessons:
        """The teacher's outputs; what is trained beside the model joins the optimiser."""
        beside = list(distilled.parameters())
        if beside:
            self.optimizer.add_param_group({"params": beside})
        return Lessons(
            distilled,
            self.workload,
            self.dataset,
            self.plan.seed,
            share=lambda batch: self.ranks.share(batch)[0],
            part=(self.ranks.rank, self.ranks.count),
            cache=teaching.cache,
        )

    def watched(self) -> AbstractContextManager[Any]:
        """Context of the watcher, if there is one."""
        if self.watcher is None:
            return nullcontext()
        return self.watcher.attached(self.model, self.optimizer)

    @contextmanager
    def logged(self, log: LogTo | None) -> Iterator[None]:
        """Context in which rank 0 tells the loggers of the steps that are left, if any."""
        done = len(self.state.history)
        if log is None or not self.ranks.is_first or done >= self.epochs:
            yield
            return
        with log.resumed(1) as opened:
            opened.begin()  # before the first epoch's energy is measured
            self.log = TrainingLog(opened, self.state, self.topology, self.per_epoch)
            yield

    def _compressed(self, scaling: float | str | None) -> CompressHook | None:
        """The hook by which gradients travel, where they are compressed."""
        spec = self.execution.compress
        if spec is None:
            return None
        self.execution.check_ranks(self.ranks.count)
        compressor = make_compressor(spec)
        if compressor.remembers and scaling == "dynamic":
            raise ValueError(
                f"compress {spec!r}: it remembers gradients, and under a dynamic loss "
                "scale those of earlier steps have another unit; use --precision bf16, a "
                "recipe of fixed loss scale, or an unbiased compressor such as qsgd"
            )
        momentum = getattr(compressor, "momentum", 0)
        if momentum and self.workload.momentum:
            raise ValueError(
                f"compress {spec!r}: it applies momentum {momentum} to the gradients, and "
                f"the optimiser {self.workload.momentum} again; give --momentum 0, or the "
                "compressor momentum=0"
            )
        return compress_hook(self.parallel, spec, seed=self.plan.seed)

    def resume(self, folder: Path | None) -> None:
        """Load the folder's checkpoint, if it has one."""
        if folder is not None and (folder / checkpoint.CHECKPOINT).is_file():
            checkpoint.load(
                folder,
                self.model,
                self.optimizer,
                self.scaling,
                self.state,
                self.ranks,
                self.hook,
                self.outer,
                self.distilled,
            )

    @property
    def epochs(self) -> int:
        """Epochs up to the run's end, or to its pause."""
        return min(self.workload.epochs, self.plan.pause_after or self.workload.epochs)

    def finish(self, folder: Path | None, progress: Progress | None) -> None:
        """Train the epochs that are left, with a checkpoint after each."""
        total = self.workload.epochs * self.per_epoch
        for epoch in range(len(self.state.history), self.epochs):
            # Written before the checkpoint: an epoch that is done again has cost twice.
            with self.spent.epoch(epoch):
                metrics = self._epoch(epoch, progress)
            self.state.history.append(metrics)
            if folder is not None:
                checkpoint.save(
                    folder,
                    self.model,
                    self.optimizer,
                    self.scaling,
                    self.state,
                    self.ranks,
                    self.hook,
                    self.outer,
                    self.distilled,
                )
            if self.log is not None:
                self.log.epoch(metrics, self.spent.epochs.get(epoch))
            if progress is not None:
                progress((epoch + 1) * self.per_epoch, total, metrics)
        if self.outer is not None and self.epochs == self.workload.epochs:
            self.outer.average()

    def result(self) -> TrainResult:
        """The finished run; work of all ranks added up."""
        state, meter = self.state, WorkMeter()
        for rows in self.ranks.gather(state.meter.to_json()):
            meter.merge(WorkMeter.from_json(rows))
        largest = [b for b in self.ranks.gather(state.saved_bytes) if b is not None]
        ordered = sorted(state.seconds)
        return TrainResult(
            self.model,
            state.history,
            meter,
            state.trace,
            ordered[len(ordered) // 2] if ordered else None,
            max(largest) if largest else None,
            sent_ratio=self._sent_ratio(),
            traffic=None if self.hook is None else self.hook.traffic,
            spent=self.spent.epochs if self.ranks.is_first else {},
            distilled=self.distilled,
        )

    def _sent_ratio(self) -> float | None:
        if self.outer is not None and self.outer.wire_bits:
            return self.outer.wire_dense / self.outer.wire_bits
        return None if self.hook is None else self.hook.traffic.wire_ratio

    def diverged(self, why: str) -> TrainResult:
        """The run at NaN: no metric from this epoch on, and no product recorded."""
        history, steps = self.state.history, self.per_epoch
        for epoch in range(len(history), self.epochs):
            last = (epoch + 1) * steps - 1
            rate = self.workload.learning_rate_at(last, steps)
            history.append(EpochMetrics(epoch, math.nan, math.nan, rate))
        return replace(self.result(), trace=Trace(), step_seconds=None, diverged=why)

    def _epoch(self, epoch: int, progress: Progress | None) -> EpochMetrics:
        workload, plan = self.workload, self.plan
        self.parallel.train()
        # New in every epoch, so that nothing it learns is missing after a checkpoint.
        policy = self.execution.policy()
        if policy is not None and self.watcher is not None:
            policy = self.watcher.policy(policy, self.model)
        total, examples, rate = 0.0, 0, workload.learning_rate
        wanted = epoch in plan.record_epochs
        batches = workload.train_batches(self.dataset, seed=plan.seed, epoch=epoch)
        if self.lessons is not None:
            self.lessons.begin(epoch)
        for index, whole in enumerate(batches):
            step = epoch * self.per_epoch + index
            rate = workload.set_learning_rate(self.optimizer, step, self.per_epoch)
            # One step before the last is recorded: the last batch may be a small one.
            # Where the loss scaler skips it, for an infinite gradient, the last one is.
            recorded = wanted and index >= max(0, self.per_epoch - 2)
            loss = self._watched_step(whole, step, policy, recorded)
            wanted = wanted and not (recorded and self.scaling.took_step)
            total += loss * self.task.size(whole)
            examples += self.task.size(whole)
            if self.log is not None:
                self.log.step(step + 1, loss if self.ranks.count == 1 else None, rate)
            if progress is not None:
                progress(step + 1, workload.epochs * self.per_epoch, None)
        if self.lessons is not None:
            self.lessons.end()
        missed = wanted and epoch + 1 == workload.epochs  # the last steps were skipped
        if missed and not any(self.ranks.gather(len(self.state.trace))):
            raise TrainingDivergedError(self.scaling.gave_up())
        if self.ranks.count > 1:
            total = sum(self.ranks.gather(total)) / self.ranks.count
            self.topology.check_ranks()
        return EpochMetrics(epoch, total / examples, self._score(), rate)

    def _watched_step(
        self, whole: Batch, step: int, policy: Policy | None, recorded: bool
    ) -> float:
        """One step, timed, metered or recorded; the rank's part of the batch's loss."""
        plan, state = self.plan, self.state
        share, factor = self.ranks.share(whole)
        batch = self._moved(share)
        # Before the clock starts: on disk or not, the student's step is what is timed.
        lesson = None
        if self.lessons is not None:
            lesson = self.lessons.of(step % self.per_epoch, whole)
        with ExitStack() as watching:
            trace = None
            if recorded and self.ranks.is_first:
                trace = watching.enter_context(
                    record(self.model, samples=plan.record_samples, first_step=step)
                )
            metered = step % plan.meter_every == 0
            if metered:
                watching.enter_context(watch(self.model, state.meter))
            plain = not (recorded or metered)
            if self.device.type == "cuda":  # what a teacher computes is not the step's
                torch.cuda.synchronize(self.device)
            began = time.perf_counter()
            with self.spent.step(plain=plain):
                loss = self._step(batch, factor, step, policy, lesson)
            # The loss that is returned was read from the device: the step is done.
            if plain:
                state.seconds.append(time.perf_counter() - began)
            if trace is not None and self.scaling.took_step:
                state.trace.extend(trace)
        return loss

    def _step(
        self,
        batch: Batch,
        factor: float,
        step: int,
        policy: Policy | None,
        lesson: Lesson | None,
    ) -> float:
        self.optimizer.zero_grad()
        put_back = kept_random_state(self.device)

        def again() -> Tensor:
            put_back()
            self.parallel = self.model  # no other rank runs its step again
            return self._loss(batch, step, policy, lesson)

        self.again = step, again
        loss = self._loss(batch, step, policy, lesson)
        if self.watcher is not None:
            self.watcher.done(step, loss.item())
        if not torch.isfinite(loss):
            raise self._divergence(f"the loss is {loss.item()}")
        if self.outer is not None:
            # The rank's own mean loss: what others do with the batch is not its matter.
            loss.backward()
            self.outer.step()
            return factor * loss.item()
        if factor != 1:
            loss = loss * factor
        try:
            self.scaling.backward(loss)
        except RuntimeError:
            if self.hook is not None and self.hook.error is not None:
                raise self.hook.error from None
            raise
        if self.hook is not None and self.hook.not_finite and not self.scaling.enabled:
            raise TrainingDivergedError(f"step {step}: {named(self.hook.not_finite)}")
        try:
            self.scaling.step(step)
        except LossScaleError as error:
            raise TrainingDivergedError(str(error)) from error
        if self.distilled is not None and self.scaling.took_step:
            self.distilled.step_done()
        return loss.item()

    def _look_at_gradients(self, *args: Any) -> None:
        """Stop before the optimiser reads a gradient that is not finite.

        What is behind a mask is zero by now. Under a loss scale such a step is skipped.
        """
        if self.scaling.enabled or self.again is None:
            return
        told = nonfinite_gradient(self.named)
        if told is not None:
            raise self._divergence(told)

    def _divergence(self, what: str) -> TrainingDivergedError:
        """What is not finite in this step, and where it first was."""
        assert self.again is not None
        step, again = self.again
        updated = step > 0 and self.watcher is None
        where = first_cause(self.model, again, updated=updated)
        rank = f" on rank {self.ranks.rank}" if self.ranks.count > 1 else ""
        return TrainingDivergedError(f"{what} at step {step}{rank}: {where}")

    def _loss(
        self, batch: Batch, step: int, policy: Policy | None, lesson: Lesson | None
    ) -> Tensor:
        """The labels' loss, and what a teacher adds to it.

        Its terms are computed in full precision, outside of the policy for saved tensors:
        what they keep is no activation of a layer.
        """
        if self.distilled is None or lesson is None:
            return self._forward(batch, step, policy)
        with self.distilled.listening() as said:
            labels = self._forward(batch, step, policy)
        return self.distilled.total(
            labels,
            said,
            lesson,
            lambda answer: (self.task.class_scores(answer, batch), len(batch[0])),
        )

    def _forward(self, batch: Batch, step: int, policy: Policy | None) -> Tensor:
        with self.execution.autocast(self.device):
            if policy is None:
                return self.task.loss(self.parallel, batch)
            seed = step * self.ranks.count + self.ranks.rank
            with saver(self.model, policy, seed=seed) as saved:
                loss = self.task.loss(self.parallel, batch)
        found = saved.ledger.logical_bytes, saved.ledger.stored_bytes
        self.state.saved_bytes = max(found, self.state.saved_bytes or found)
        return loss

    def _score(self) -> float:
        """The metric on the test examples, shared by the ranks, batch by batch."""
        self.ranks.share_buffers(self.model)
        batches = self.ranks.mine(self.workload.test_batches(self.dataset))
        averaged = nullcontext() if self.outer is None else self.outer.averaged()
        with averaged, self.execution.autocast(self.device):
            counts = self.task.counted(self.model, map(self._moved, batches))
        return self.task.score(
            torch.stack([c for c in self.ranks.gather(counts) if len(c)]).sum(0)
        )

    def _moved(self, batch: Batch) -> Batch:
        return tuple(tensor.to(self.device) for tensor in batch)
