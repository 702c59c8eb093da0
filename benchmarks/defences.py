"""What defences against faults cost and find, each in one run.

    OMP_NUM_THREADS=1 python benchmarks/defences.py records/2026-11-30-faults/defences.json

- Packed activations: a training step of a ResNet-8 under a memory policy with checksums over
  the same step without, in turns; bits drawn over the packed bytes of a step, alone and in
  bursts, with and without checksums.
- Checkpoints: writing and reading a ResNet-18's state with checksums over the same by
  safetensors alone; single flips and bursts drawn over all bytes of a checkpoint.
- Range restriction: the same faults in stored weights and in activations of a trained network
  with and without, clean examples that it alters, an inference with it over one without.
- Replay: a step that is computed twice over one that is not, with one flip in one of the two.
"""

import argparse
import copy
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from elision.common.files import load_tensors, save_tensors
from elision.common.timing import elapsed
from elision.engines.bench import machine
from elision.faults import (
    Fault,
    campaign,
    flip,
    learned_ranges,
    replay,
    restricted,
    striking,
)
from elision.faults.fault import Lifetime
from elision.faults.intervals import wilson
from elision.layers.observation import Computed
from elision.layers.watch import watch
from elision.memory import DamagedError, saver
from elision.study.faults import trained_under
from elision.workloads import find_workload, make_model

POLICIES = ("exact", "int8", "bits(4)", "bits(2)", "jpeg", "sfpr")


def over(plain: Callable[[], Any], other: Callable[[], Any], rounds: int) -> dict:
    """Processor time of one call over the mean of another's before and after it."""
    plain()
    other()
    found, seconds = [], []
    for _ in range(rounds):
        first, between, after = (elapsed(f).process for f in (plain, other, plain))
        found.append(2 * between / (first + after))
        seconds += [first, after]
    low, _, high = statistics.quantiles(found, n=4)
    return {
        "over plain": statistics.median(found),
        "quartiles": [low, high],
        "plain processor seconds": statistics.median(seconds),
    }


def share(count: int, number: int) -> dict[str, float]:
    """Count, number, and Wilson's interval of 95 %."""
    found = wilson(count, number, 0.95)
    return {"of": number, "count": count, "low": found.low, "high": found.high}


def resnet8_step() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = make_model("resnet8", in_channels=3, classes=10, image_size=(32, 32))
    return model, torch.randn(32, 3, 32, 32), torch.randint(10, (32,))


def packed(rounds: int, trials: int) -> dict[str, Any]:
    model, x, y = resnet8_step()

    def step(policy: Any) -> None:
        model.zero_grad()
        with saver(model, policy, seed=0):
            loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()

    found: dict[str, Any] = {}
    for policy in POLICIES:
        found[policy] = over(
            partial(step, policy), partial(step, f"checked({policy})"), rounds
        )
    for policy in ("bits(4)", "jpeg"):
        for length in (1, 8, 32):
            detected = clean = 0
            for seed in range(trials):
                fault = Fault(site="saved", length=length)
                told, reached = _struck_step(model, x, y, policy, fault, seed)
                detected += told
                clean += not told and not reached
            found[f"{policy}, bursts of {length}"] = {
                "detected": share(detected, trials),
                "not detected, and gradients of the same bits": clean,
            }
    return found


def _struck_step(
    model: nn.Module, x: Tensor, y: Tensor, policy: str, fault: Fault, seed: int
) -> tuple[bool, bool]:
    """Whether a struck step was refused, and whether a gradient changed in it."""
    own = copy.deepcopy(model)
    optimizer = torch.optim.SGD(own.parameters(), lr=0.0)
    grads: list[list[Tensor]] = []
    with striking(own, optimizer, fault, first=1, seed=seed) as struck:
        chosen = struck.policy(f"checked({policy})", own)
        for _ in range(2):
            optimizer.zero_grad()
            with saver(own, chosen, seed=0):
                loss = nn.functional.cross_entropy(own(x), y)
            try:
                loss.backward()
            except DamagedError:
                return True, True
            grads.append(
                [p.grad.clone() for p in own.parameters() if p.grad is not None]
            )
            optimizer.step()
    return False, not all(map(torch.equal, *grads))


def checkpoints(rounds: int, trials: int) -> dict[str, Any]:
    model = make_model("resnet18", in_channels=3, classes=10, image_size=(32, 32))
    state = dict(model.state_dict())
    generator = torch.Generator().manual_seed(0)
    small = {f"layer{k}": torch.randn(64, 9, generator=generator) for k in range(20)}
    with tempfile.TemporaryDirectory() as name:
        plain, ours = Path(name) / "plain", Path(name) / "ours"
        found: dict[str, Any] = {
            "bytes": sum(t.nbytes for t in state.values()),
            "write": over(
                lambda: save_file(state, plain),
                lambda: save_tensors(ours, state, {}),
                rounds,
            ),
            "read": over(
                lambda: load_file(plain),
                lambda: load_tensors(ours, "checkpoint"),
                rounds,
            ),
        }
        path = Path(name) / "small"
        save_tensors(path, small, {"step": 3})
        clean = path.read_bytes()
        for length in (1, 8, 32):
            refused = 0
            for _ in range(trials):
                first = int(
                    torch.randint(8 * len(clean) - length, (), generator=generator)
                )
                wrong = int.from_bytes(clean, "little") ^ ((1 << length) - 1) << first
                path.write_bytes(wrong.to_bytes(len(clean), "little"))
                try:
                    load_tensors(path, "checkpoint")
                except ValueError:
                    refused += 1
            found[f"bursts of {length} refused"] = share(refused, trials)
    return found


def ranges(rounds: int, trials: int) -> dict[str, Any]:
    chosen = find_workload("digits-cnn")
    dataset = chosen.load_dataset(None)
    model = trained_under(chosen, "dense", dataset)
    seen = dataset.normalise(dataset.train_images)
    x, y = dataset.normalise(dataset.test_images), dataset.test_labels
    found: dict[str, Any] = {}
    learned = learned_ranges(model, seen)
    with restricted(model, replace(learned, left={})) as watched, torch.no_grad():
        clean = model(x).argmax(1)
    with torch.no_grad():
        same = int((clean == model(x).argmax(1)).sum())
    altered = sum(watched.left.values())
    found["clean test examples"] = {
        "predictions kept": share(same, len(x)),
        "values outside of the ranges": altered,
    }
    struck_at: tuple[tuple[str, Lifetime], ...] = (
        ("weight", "reload"),
        ("activation", "transient"),
    )
    for site, lifetime in struck_at:
        fault = Fault(site=site, lifetime=lifetime)
        own: dict[str, Any] = {}
        for name in ("plain", "clamped", "clamped, alarms counted"):
            struck = copy.deepcopy(model)
            defence = None
            if name.startswith("clamped"):
                defence = partial(_clamping, learned, name != "clamped")
            done = campaign(struck, (x, y), fault, trials=trials, defence=defence)
            own[name] = {o: done.rate(o)._asdict() for o in ("silent", "critical")}
            own[name]["detected"] = done.rate("detected")._asdict()
            own[name]["wrong"] = done.wrong._asdict()
        found[site] = own

    def inference(defended: bool) -> None:
        with torch.no_grad():
            if not defended:
                model(x)
                return
            with restricted(model, learned):
                model(x)

    found["inference"] = over(
        partial(inference, False), partial(inference, True), 4 * rounds
    )
    return found


class _Quiet:
    """A defence that corrects and raises no alarm."""

    raised = False


@contextmanager
def _clamping(learned: Any, alarms: bool, model: nn.Module) -> Iterator[Any]:
    with restricted(model, replace(learned, left={})) as watched:
        yield watched if alarms else _Quiet()


class _Flip:
    """Flips one bit of one product's result, once."""

    def __init__(self, number: int, generator: torch.Generator) -> None:
        self._left, self._generator = number, generator

    def __call__(self, observation: Any) -> None:
        pass

    def computed(self, done: Computed) -> None:
        if self._left == 0:
            value = done.result.detach()
            at = int(torch.randint(value.numel(), (), generator=self._generator))
            bit = int(torch.randint(32, (), generator=self._generator))
            value.copy_(flip(value, at, bit))
        self._left -= 1


class _Count:
    """Counts products."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, observation: Any) -> None:
        pass

    def computed(self, done: Computed) -> None:
        self.number += 1


def replays(rounds: int, trials: int) -> dict[str, Any]:
    model, x, y = resnet8_step()

    def step() -> Tensor:
        model.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        return loss

    found: dict[str, Any] = {"step": over(step, lambda: replay(step, model), rounds)}
    clean = sum(replay(step, model).ok for _ in range(trials // 10))
    found["clean steps that differ"] = share(trials // 10 - clean, trials // 10)
    x, y = x[:4], y[:4]
    count = _Count()
    with watch(model, count):
        step()
    generator = torch.Generator().manual_seed(0)
    differs = reached = 0
    before = _gradients(model, step)
    for _ in range(trials):
        number = int(torch.randint(count.number, (), generator=generator))
        state = generator.get_state()
        with watch(model, _Flip(number, generator)):
            once = _gradients(model, step)
        changed = not all(map(_same, before, once))
        generator.set_state(state)
        with watch(model, _Flip(number, generator)):
            told = not replay(step, model).ok
        reached += changed
        differs += told and changed
    found["flips that changed loss or a gradient"] = reached
    found["of these, found"] = share(differs, reached)
    return found


def _gradients(model: nn.Module, step: Callable[[], Tensor]) -> list[Tensor]:
    buffers = copy.deepcopy(dict(model.named_buffers()))
    loss = step().detach().clone()
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
    return [loss, *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.view(-1).view(torch.int32), b.view(-1).view(torch.int32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--trials", type=int, default=300)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {"machine": machine()}
    for name, measure in {
        "packed activations": packed,
        "checkpoints": checkpoints,
        "range restriction": ranges,
        "replay": replays,
    }.items():
        found[name] = measure(given.rounds, given.trials)
        print(name, json.dumps(found[name], indent=1), flush=True)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
