"""Saved-activation policies on real networks, beside what was published about them.

Every row is measured here: bytes by the ledger, the peak by the allocator's own account,
time against plain autograd in the same round, the error of every layer's weight gradient,
and the accuracy after a real training. The published figures are for other networks,
sizes and machines; they stand beside ours and are compared with nothing.
"""

import json
import os
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.common.files import to_csv, write_json, write_text
from elision.memory.measures.explain import largest_batch
from elision.memory.measures.measure import (
    SAVE_ON_CPU,
    MemoryRow,
    measure_policies,
    step_peak,
)
from elision.memory.measures.sensitivity import measure_sensitivities
from elision.memory.policies.allocation import AverageBits
from elision.study.folder import environment
from elision.study.papers.memory.published import PUBLISHED
from elision.study.papers.memory.training import train_policies
from elision.workloads import find_workload, make_model

__all__ = [
    "NETWORKS",
    "POLICIES",
    "TRAINED",
    "MemoryConfig",
    "largest_batches",
    "measure_network",
    "photographs",
    "write",
]

MIB = 2**20

#: Networks that are measured if none are named.
NETWORKS = ("resnet18", "resnet50", "vgg16", "wrn22-2", "transformer")

#: Policies that are measured if none are named. ``none`` is the hooks alone;
#: ``measured`` shares out the bits by sensitivities measured on the network (GACT).
POLICIES = (
    *("none", "exact", "int8", "bits(4)", "bits(4, measured)", "bits(2.5)"),
    *(
        "bits(2.5, measured)",
        "derived",
        "blpa",
        "sfpr",
        "jpeg",
        "fp8",
        "guaranteed(0.1)",
        "expected(0.1)",
        "rad(0.1)",
    ),
    *("offload", SAVE_ON_CPU),
)

_MEASURED = re.compile(r"bits\(\s*([\d.]+)\s*,\s*measured\s*\)")

#: Policies that are trained under if none are named.
TRAINED = ("int8", "bits(4)", "bits(2.5)", "derived", "blpa", "jpeg", "expected(0.1)")


@dataclass(frozen=True)
class MemoryConfig:
    """What is measured.

    Attributes:
        networks: names of ``elision.workloads`` models.
        policies: as for :class:`elision.memory.saver`, or :data:`SAVE_ON_CPU`, or
            ``"bits(4, measured)"``, which is left out where only peaks are taken, in
            the search for the largest batch and in trainings.
        batch: images in a batch.
        size: height and width of the images.
        rounds: timed steps per policy; 0: only the peaks.
        limit_mib: also find the largest batch whose peak stays within so many MiB.
        workload: what is trained on; None: nothing is.
        trained: policies that are trained under.
        seeds: number of trainings per policy.

    Raises:
        ValueError: a number is out of its range.
    """

    networks: tuple[str, ...] = NETWORKS
    policies: tuple[str, ...] = POLICIES
    batch: int = 16
    size: int = 32
    rounds: int = 5
    limit_mib: float | None = None
    workload: str | None = "digits-cnn"
    trained: tuple[str, ...] = TRAINED
    seeds: int = 3

    def __post_init__(self) -> None:
        minima = {"batch": 1, "size": 8, "rounds": 0, "seeds": 1}
        for name, least in minima.items():
            if getattr(self, name) < least:
                raise ValueError(
                    f"{name} must be >= {least}, got {getattr(self, name)}"
                )
        if self.limit_mib is not None and not self.limit_mib > 0:
            raise ValueError(f"limit_mib must be positive, got {self.limit_mib}")
        if self.workload is not None:
            find_workload(self.workload)


def photographs(batch: int, size: int) -> Tensor:
    """Crops of two public-domain photographs, standardised, (batch, 3, size, size)."""
    from skimage import data

    photos = [
        torch.from_numpy(photo).permute(2, 0, 1).float()[None] / 255
        for photo in (data.astronaut(), data.coffee())
    ]
    generator = torch.Generator().manual_seed(0)
    crops = []
    for index in range(batch):
        photo = photos[index % 2]
        edge = min(photo.shape[2:]) // 2
        top, left = (
            int(torch.randint(n - edge, (), generator=generator))
            for n in photo.shape[2:]
        )
        crop = photo[..., top : top + edge, left : left + edge]
        crops.append(F.interpolate(crop, (size, size), mode="area")[0])
    x = torch.stack(crops)
    return (x - x.mean()) / x.std()


def measure_network(
    config: MemoryConfig, network: str, report: Callable[[str], None] = print
) -> dict[str, Any]:
    """One network with random weights under every policy.

    Returns:
        Plain values: ``rows`` (a :class:`~elision.memory.measures.measure.MemoryRow` each), or
        ``peak_bytes`` if no rounds are asked for; ``largest_batch`` if there is a limit.
    """
    torch.manual_seed(0)
    classes = 10
    model = make_model(network, classes=classes, image_size=config.size).train()
    images = photographs(config.batch, config.size)
    labels = torch.arange(config.batch) % classes
    found: dict[str, Any] = {}
    if config.rounds:
        rows = []
        policies = _with_sensitivities(config.policies, model, images, labels)
        for row in measure_policies(model, images, labels, policies, config.rounds):
            report(f"{network}: {_line(row)}")
            rows.append(asdict(row))
        found["rows"] = rows
    else:
        peaks = found["peak_bytes"] = {}
        for name, policy in _arms(config).items():
            peak = peaks[name] = step_peak(model, images, labels, policy)
            ratio = peaks["plain"] / peak
            report(f"{network}: {name} peak {peak / MIB:.0f} MiB, {ratio:.2f}x")
    if config.limit_mib is not None:
        limit = int(config.limit_mib * MIB)
        found["largest_batch"] = largest_batches(network, config, limit)
        report(f"{network}: largest batch {found['largest_batch']}")
    return found


def _with_sensitivities(
    policies: Sequence[str], model: nn.Module, images: Tensor, labels: Tensor
) -> list[Any]:
    """Policies whose bits are to be shared out by measurement, made; all others as is."""
    averages = {p: found[1] for p in policies if (found := _MEASURED.fullmatch(p))}
    if not averages:
        return list(policies)

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    sensitivities = measure_sensitivities(model, loss, (images, labels))
    made = {
        p: AverageBits(float(a), measured=sensitivities) for p, a in averages.items()
    }
    return [made.get(p, p) for p in policies]


def largest_batches(
    network: str, config: MemoryConfig, limit_bytes: int
) -> dict[str, int]:
    """The largest batch whose step stays within a limit, in plain autograd and saved.

    The measured peak counts activations, gradients and temporaries, not parameters.
    """
    torch.manual_seed(0)
    model = make_model(network, image_size=config.size).train()

    def largest(policy: Any) -> int:
        def peak(batch: int) -> int:
            images, labels = photographs(batch, config.size), torch.arange(batch) % 10
            return step_peak(model, images, labels, policy)

        return largest_batch(peak, limit_bytes, at_most=4096)

    return {name: largest(policy) for name, policy in _arms(config).items()}


def _arms(config: MemoryConfig) -> dict[str, Any]:
    """Plain autograd and the policies that need no measurement, by name."""
    return {"plain": None} | {policy: policy for policy in _unmeasured(config.policies)}


def _unmeasured(policies: Sequence[str]) -> list[str]:
    return [policy for policy in policies if not _MEASURED.fullmatch(policy)]


def write(
    config: MemoryConfig, folder: Path, report: Callable[[str], None] = print
) -> dict[str, list[dict[str, Any]]]:
    """Measure everything and write it down; what was measured before is not repeated.

    Writes one JSON file per network and one for the trainings, with the settings and
    the machine, and the tables ``networks``, ``layers``, ``trainings`` and
    ``published`` as CSV.

    Returns:
        The tables.

    Raises:
        OSError: the folder cannot be written to.
        ValueError: unknown network or policy.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = asdict(config)
    measured = {}
    for network in config.networks:
        asked = {k: settings[k] for k in ("policies", "batch", "size", "rounds")}
        measured[network] = _once(
            folder / f"{network}.json",
            asked | {"network": network, "limit_mib": config.limit_mib},
            lambda network=network: measure_network(config, network, report),
        )
    trainings = []
    if config.workload is not None:
        workload = find_workload(config.workload)
        asked = {k: settings[k] for k in ("workload", "trained", "seeds")}
        trainings = _once(
            folder / f"train-{config.workload}.json",
            asked,
            lambda: {
                "rows": [
                    asdict(row)
                    for row in train_policies(
                        workload,
                        workload.load_dataset(),
                        _unmeasured(config.trained),
                        range(config.seeds),
                        report,
                    )
                ]
            },
        )["rows"]
    tables = {
        "networks": [r for name, f in measured.items() for r in _networks(name, f)],
        "layers": [r for name, f in measured.items() for r in _layers(name, f)],
        "trainings": [_training(row) for row in trainings],
        "published": [asdict(figure) for figure in PUBLISHED],
    }
    for name, rows in tables.items():
        if rows:
            write_text(folder / f"{name}.csv", to_csv(rows))
    return tables


def _once(
    path: Path, settings: dict[str, Any], measure: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """What a file holds if it was measured with these settings, else measure it."""
    asked = json.loads(json.dumps(settings))
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found.get("settings") == asked:
            return found
    # The load before: what others put on the machine.
    machine = environment() | {"load": os.getloadavg()[0]}
    found = {"environment": machine, "settings": asked} | measure()
    write_json(path, found)
    return json.loads(path.read_text(encoding="utf-8"))


def _line(row: MemoryRow) -> str:
    errors = row.gradient_errors.values()
    return (
        f"{row.policy}: tensors {row.tensor_ratio:.2f}x, peak {row.peak_ratio:.2f}x, "
        f"time {row.time_ratio:.2f}x (processor {row.processor_time_ratio:.2f}x), "
        f"ledger over measured {row.ledger_over_measured:.3f}, gradient error median "
        f"{100 * statistics.median(errors):.2f} % largest {100 * max(errors):.2f} %, "
        f"own median {100 * statistics.median(row.own_errors.values()):.2f} % largest "
        f"{100 * max(row.own_errors.values()):.2f} %"
    )


def _networks(network: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """A table row per policy."""
    batches = found.get("largest_batch", {})
    rows = []
    for values in found.get("rows", ()):
        row = MemoryRow(**values)
        errors, own = row.gradient_errors.values(), row.own_errors.values()
        rows.append(
            {
                "network": network,
                "policy": row.policy,
                "tensors": round(row.tensor_ratio, 3),
                "peak": round(row.peak_ratio, 3),
                "time": round(row.time_ratio, 3),
                "processor time": round(row.processor_time_ratio, 3),
                "gradient error, median": round(statistics.median(errors), 5),
                "gradient error, largest": round(max(errors), 5),
                "own error, median": round(statistics.median(own), 5),
                "own error, largest": round(max(own), 5),
            }
            | ({"largest batch": batches.get(row.policy)} if batches else {})
        )
    peaks = found.get("peak_bytes", {})
    rows += [
        {
            "network": network,
            "policy": policy,
            "peak": round(peaks["plain"] / peak, 3),
            "peak MiB": round(peak / MIB, 1),
        }
        for policy, peak in sorted(peaks.items(), key=lambda pair: -pair[1])
    ]
    return rows


def _layers(network: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """A table row per policy and parameter."""
    return [
        {
            "network": network,
            "policy": values["policy"],
            "parameter": parameter,
            "gradient error": round(error, 6),
            "own error": round(values["own_errors"][parameter], 6),
        }
        for values in found.get("rows", ())
        for parameter, error in values["gradient_errors"].items()
    ]


def _training(row: dict[str, Any]) -> dict[str, Any]:
    accuracies = row["accuracies"]
    return {
        "policy": row["policy"],
        "accuracy": round(statistics.mean(accuracies), 5),
        "each": " ".join(f"{a:.4f}" for a in accuracies),
        "last training loss": round(statistics.mean(row["losses"]), 5),
    }
