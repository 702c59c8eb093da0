"""The price of elide where it saves nothing: no change, a recorder, a small model.

The same network, images and labels take a whole training step (forward, backward, SGD
with momentum) by turns: plain, elided with the dense recipe, elided and recorded; small
networks, whose layers no kernel can make faster, also under masks and under SWAT with the
engine ``auto``. Each
round takes them in another order and gives one ratio each; printed are the median
of the ratios and their quartiles. Beside them, the ratio of a second plain copy to the
first shows the noise. Time is that of the processor on one thread, which a busy machine
disturbs less than the clock on the wall.

``bert-base`` is transformers' BERT of that size with random weights, on 8 sequences of 128
tokens; it needs ``pip install 'elision[transformers]'`` and 8 GiB.

    python benchmarks/elide_overhead.py [--rounds 15] [--only PATTERN] [--out FILE]
"""

import argparse
import fnmatch
import importlib
import platform
import random
import statistics
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import elision
from elision.common.files import write_json
from elision.common.timing import elapsed
from elision.engines.bench import machine
from elision.methods import Dense, Static, Swat
from elision.study.folder import environment
from elision.workloads import find_workload, make_model
from elision.workloads.libraries.torchvision import import_torchvision

NOTHING: tuple[str, ...] = ("plain", "plain again", "elided", "recorded")
BERT = "bert-base"
#: Tokens in a sequence of BERT's.
_LENGTH = 128
SMALL: tuple[str, ...] = (
    "plain",
    "plain again",
    "elided",
    "masked, auto",
    "swat, auto",
)
_AUTO = {
    "masked, auto": Static(0.9, distribution="uniform"),
    "swat, auto": Swat(0.9, threshold="sampled"),
}

#: Name of the case -> network, images in a batch, memory format, modes. The first network
#: is that of the default workload at its batch size.
CASES: Mapping[str, tuple[str, int, torch.memory_format, tuple[str, ...]]] = {
    f"{network}, batch {batch}, {layout}": (network, batch, format_, NOTHING)
    for network, batch in (
        ("resnet8", find_workload("photo-resnet8").batch_size),
        ("resnet18", 16),
    )
    for layout, format_ in (
        ("contiguous", torch.contiguous_format),
        ("channels_last", torch.channels_last),
    )
} | {
    f"small: {network}, batch {batch}": (network, batch, torch.contiguous_format, SMALL)
    for network, batch in (("mlp", 32), ("resnet8", 8), ("resnet8", 2))
}
CASES = {**CASES, BERT: (BERT, 8, torch.contiguous_format, NOTHING[:3])}


#: Rounds before those that count: layers under ``auto`` make their choices in the first.
_WARM, _WARM_OF_AUTO = 1, 3


def network_named(name: str) -> nn.Module:
    """A network by name; ``mlp``: six layers of width 64."""
    if name != "mlp":
        return make_model(name)
    hidden = [layer for _ in range(5) for layer in (nn.Linear(64, 64), nn.ReLU())]
    first = nn.Linear(3 * 32 * 32, 64)
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), *hidden, nn.Linear(64, 10))


def bert(batch: int) -> tuple[nn.Module, Callable[[], torch.Tensor]]:
    """BERT-base with a head over its vocabulary, and its loss on a batch."""
    import_torchvision()  # transformers imports it where it is installed
    library = importlib.import_module("transformers")
    config = library.BertConfig()
    model = library.BertForMaskedLM(config)
    tokens = torch.randint(0, config.vocab_size, (batch, _LENGTH))
    return model, lambda: model(input_ids=tokens, labels=tokens).loss


def images(
    network: str, batch: int, layout: Any
) -> tuple[nn.Module, Callable[[], torch.Tensor]]:
    """A network of images, and its loss on a batch."""
    model = network_named(network)
    model.to(memory_format=layout)  # pyright: ignore[reportCallIssue]
    x = torch.randn(batch, 3, 32, 32).contiguous(memory_format=layout)
    labels = torch.randint(0, 10, (batch,))
    return model, lambda: F.cross_entropy(model(x), labels)


def stepper(network: str, batch: int, layout: Any, mode: str) -> Callable[[], None]:
    """A function that takes one training step."""
    torch.manual_seed(0)
    model, loss = bert(batch) if network == BERT else images(network, batch, layout)
    if mode in ("elided", "recorded"):
        elision.elide(model, Dense(), engine="torch")
    elif mode in _AUTO:
        elision.elide(model, _AUTO[mode], engine="auto")
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    if mode in _AUTO:
        elision.topology.attach(model, optimizer)

    def step() -> None:
        watching = elision.record(model, samples=2) if mode == "recorded" else None
        with watching or nullcontext():
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()

    return step


def measure(
    network: str, batch: int, layout: Any, modes: tuple[str, ...], rounds: int
) -> dict[str, Any]:
    """Ratios to the plain step over ``rounds`` rounds, after some to warm up."""
    steps = {mode: stepper(network, batch, layout, mode) for mode in modes}
    seconds: dict[str, list[float]] = {mode: [] for mode in modes}
    order = random.Random(0)
    warm = _WARM_OF_AUTO if any(mode in _AUTO for mode in modes) else _WARM
    for number in range(rounds + warm):
        for mode in order.sample(modes, len(modes)):
            taken = elapsed(steps[mode]).process
            if number >= warm:
                seconds[mode].append(taken)
    row: dict[str, Any] = {"plain_ms": 1000 * statistics.median(seconds["plain"])}
    for mode in modes[1:]:
        pairs = zip(seconds[mode], seconds["plain"], strict=True)
        low, middle, high = statistics.quantiles([a / b for a, b in pairs], n=4)
        row[mode] = {"median": middle, "quartiles": [low, high]}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="*", help="shell-style pattern of cases")
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    for name in fnmatch.filter(CASES, arguments.only):
        case = CASES[name]
        row = results[name] = measure(*case, arguments.rounds)
        words = [
            f"{mode} {ratio['median']:.3f} ({ratio['quartiles'][0]:.3f}"
            f"-{ratio['quartiles'][1]:.3f})"
            for mode, ratio in row.items()
            if mode != "plain_ms"
        ]
        print(
            f"{name}: plain {row['plain_ms']:.1f} ms; times plain: {', '.join(words)}"
        )
    if arguments.out:
        facts = {
            "rounds": arguments.rounds,
            "unit": "processor time, one thread, in times of the plain step",
            "environment": environment(),
            "machine": machine(),
            "python": platform.python_version(),
            "results": results,
        }
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(arguments.out, facts)


if __name__ == "__main__":
    main()
