"""Numerics: every kernel in every variant, values at the ends of the range, equal runs.

A variant's kernels run in a process of its own, which ``ELISION_VARIANT`` tells the variant;
each result is compared with torch's of the same operands in float64
(:mod:`campaigns.native`). As every variant stays within what rounding allows of the exact
result, two of them stay within twice as much of each other.
"""

import hashlib
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from campaigns import ends
from campaigns.campaign import Campaign, Row
from elision.native.builder import VARIANTS

__all__ = ["NUMERICS"]

#: Longest time that a process of calls may take; one that is at work after it hangs.
_HANG_SECONDS = 3600

#: Calls in place of which one training is repeated.
_CALLS_PER_TRAINING = 100


def _of_variant(name: str, which: str, count: int, seed: int) -> Row:
    """Calls of all kernels in one variant, by a process of their own."""
    command = [sys.executable, "-m", "campaigns.native", which, str(count), str(seed)]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "ELISION_VARIANT": name},
            capture_output=True,
            text=True,
            timeout=_HANG_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Row({"hang": 1}, [f"{name}: at work after {_HANG_SECONDS} s"])
    if done.returncode == 0:
        return Row(**json.loads(done.stdout.splitlines()[-1]))
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    if f"ELISION_VARIANT={name}: this CPU" in last:
        return Row({"not on this CPU": 1})
    return Row(
        {"crash": 1}, [f"{name}: status {done.returncode}: {done.stderr[-1500:]}"]
    )


def _repeated(count: int, seed: int) -> Row:
    """Trainings that are run twice, and once more with a pause: the same to the last bit."""
    counts, bad = {"equal": 0, "differ": 0}, list[str]()
    for trial in range(-(-count // _CALLS_PER_TRAINING)):
        drawn = random.Random(f"{seed}/training/{trial}")
        case = (
            drawn.choice(_RECIPES),
            drawn.choice(("torch", "native", "auto")),
            drawn.choice((None, "bits(4)", "exact", "jpeg")),
            drawn.choice(("mlp(width=32)", "cnn")),
            drawn.randrange(1000),
        )
        found = [_in_process(case, pauses) for pauses in ((None,), (None,), (1, None))]
        equal = len(set(found)) == 1
        counts["equal" if equal else "differ"] += 1
        if not equal:
            bad.append(f"{case}: {found}")
    return Row(counts, bad)


_RECIPES = (
    "dense",
    "swat(0.9)",
    "w-resprop",
    "rigl(0.8)",
    "meprop(0.1)",
    "fp8",
    "dfp16",
)

_Case = tuple[str, str, str | None, str, int]


def _in_process(case: _Case, pauses: tuple[int | None, ...]) -> str:
    """Digest of a training, every part of which ran in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        digest = ""
        for pause in pauses:
            with multiprocessing.get_context("fork").Pool(1) as pool:
                digest = pool.apply(_trained, (case, pause, folder))
        return digest


def _trained(case: _Case, pause: int | None, folder: str) -> str:
    """Train up to a pause; a digest of the history and the weights."""
    from elision.methods import make_recipe
    from elision.training import Execution, RunPlan, train
    from elision.workloads import Workload

    recipe, engine, memory, model, seed = case
    facts = {"dataset": "digits", "model": model, "epochs": 2, "batch_size": 32}
    workload = Workload.from_dict(facts | {"train_images": 256, "test_images": 64})
    dataset = workload.load_dataset()
    result = train(
        workload,
        make_recipe(recipe, steps=workload.epochs * workload.steps_per_epoch(dataset)),
        dataset,
        RunPlan(seed=seed, pause_after=pause),
        execution=Execution(engine=engine, memory=memory),
        folder=Path(folder),
    )
    digest = hashlib.sha256(repr(result.history).encode())
    for name, value in sorted(result.model.state_dict().items()):
        digest.update(name.encode() + value.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


NUMERICS = Campaign(
    "numerics",
    "calls",
    4000,
    {
        f"{which}, {name}": partial(_of_variant, name, which)
        for which in ("rounding", "ends")
        for name in reversed(VARIANTS)
    }
    | {
        "ends, codecs": ends.codecs,
        "ends, formats": ends.formats,
        "ends, selections": ends.selections,
        "ends, optimisers": ends.optimisers,
        "equal runs": _repeated,
    },
)
