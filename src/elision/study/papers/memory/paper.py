"""Saved-activation policies on real networks, beside what was published about them.

Every row is measured here: bytes by the ledger, the peak by the allocator's own account,
time against plain autograd in the same round, the error of every layer's weight gradient,
and the accuracy after a real training. The published figures are for other networks,
sizes and machines; they stand beside ours and are compared with nothing.
"""

import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.common.checks import integer, number
from elision.common.files import to_csv, write_text
from elision.memory.measures.explain import largest_batch
from elision.memory.measures.measure import (
    SAVE_ON_CPU,
    MemoryRow,
    measure_policies,
    step_peak,
)
from elision.memory.measures.sensitivity import measure_sensitivities
from elision.memory.policies.allocation import AverageBits
from elision.study.papers.base import (
    Figure,
    Paper,
    Progress,
    Report,
    Rows,
    Table,
    silent,
)
from elision.study.papers.memory.published import PUBLISHED
from elision.study.papers.memory.training import train_policies
from elision.study.papers.once import once
from elision.workloads import find_workload, make_model

__all__ = [
    "NETWORKS",
    "POLICIES",
    "TRAINED",
    "SavedActivations",
    "largest_batches",
    "measure_network",
    "photographs",
]

MIB = 2**20

#: Networks measured by default.
NETWORKS = ("resnet18", "resnet50", "vgg16", "wrn22-2", "transformer")

#: Policies measured by default. ``none`` is the hooks alone; ``measured`` distributes the
#: bits by sensitivities measured on the network (GACT).
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

#: Policies trained under by default.
TRAINED = ("int8", "bits(4)", "bits(2.5)", "derived", "blpa", "jpeg", "expected(0.1)")


@dataclass(frozen=True)
class SavedActivations(Paper):
    """Saved-activation policies: bytes, measured peak, time, gradient error, accuracy.

    Beside the published figures, with their cautions. Started again with the same
    arguments, it measures only what is missing.

    Attributes:
        network: Models to measure, with random weights; default: five of them.
        policy: Policies, such as 'bits(4)'; default: all kinds, and PyTorch's own
            offloading.
        batch: Images in a batch.
        size: Height and width of the images.
        rounds: Timed steps per policy; 0 measures the peaks only.
        limit_mib: Also find the largest batch whose peak stays within this many MiB.
        workload: Data and model of the trainings for accuracy; 'none' trains nothing.
        seeds: Trainings per policy.

    Raises:
        ValueError: a number is out of its range, or the workload is unknown.

    Example:
        >>> SavedActivations(policy=("int8",)).trained
        ('int8',)
    """

    key = "memory"
    title = "vDNN, JPEG-ACT, AC-GC, ActNN, GACT and BLPA, each with its own source"
    published = tuple(
        Figure(claim.technique, claim.figure, claim.source) for claim in PUBLISHED
    )

    network: tuple[str, ...] = ()
    policy: tuple[str, ...] = ()
    batch: int = 16
    size: int = 32
    rounds: int = 5
    limit_mib: float | None = None
    workload: str = "digits-cnn"
    seeds: int = 3

    def __post_init__(self) -> None:
        for name, least in {"batch": 1, "size": 8, "rounds": 0, "seeds": 1}.items():
            integer("SavedActivations", name, getattr(self, name), f">= {least}")
        if self.limit_mib is not None:
            number("SavedActivations", "limit_mib", self.limit_mib, "> 0")
        if self.workload != "none":
            find_workload(self.workload)

    @property
    def networks(self) -> tuple[str, ...]:
        """Models that are measured."""
        return self.network or NETWORKS

    @property
    def policies(self) -> tuple[str, ...]:
        """Policies that are measured.

        They are those of :class:`elision.memory.saver`, :data:`SAVE_ON_CPU`, and
        ``"bits(4, measured)"``, which is left out where only peaks are taken, in the
        search for the largest batch and in trainings.
        """
        return self.policy or POLICIES

    @property
    def trained(self) -> tuple[str, ...]:
        """Policies that are trained under."""
        return self.policy or TRAINED

    def run(
        self, folder: Path, progress: Progress = silent, report: Report = silent
    ) -> list[Table]:
        """Measure what is missing, and write it down.

        Writes one JSON file per network and one for the trainings, with the settings and
        the machine, and the tables ``networks``, ``layers``, ``trainings`` and
        ``published`` as CSV. See :meth:`Paper.run`.
        """
        folder.mkdir(parents=True, exist_ok=True)
        measured = {
            network: self._measured(folder, network, report)
            for network in self.networks
        }
        tables = {
            "networks": [r for name, f in measured.items() for r in _networks(name, f)],
            "layers": [r for name, f in measured.items() for r in _layers(name, f)],
            "trainings": [_training(row) for row in self._trainings(folder, report)],
            "published": [asdict(claim) for claim in PUBLISHED],
        }
        for name, rows in tables.items():
            if rows:
                write_text(folder / f"{name}.csv", to_csv(rows))
        shown = ("networks", "trainings", "published")
        return [Table(name, tables[name]) for name in shown if tables[name]]

    def _measured(self, folder: Path, network: str, report: Report) -> dict[str, Any]:
        """Measurements of one network, from its file or made now."""
        settings = {
            "policies": self.policies,
            "batch": self.batch,
            "size": self.size,
            "rounds": self.rounds,
            "network": network,
            "limit_mib": self.limit_mib,
        }
        return once(
            folder / f"{network}.json",
            settings,
            lambda: measure_network(self, network, report),
        )

    def _trainings(self, folder: Path, report: Report) -> Rows:
        """Trainings under every policy, from their file or made now."""
        if self.workload == "none":
            return []
        workload, policies = find_workload(self.workload), _unmeasured(self.trained)
        settings = {
            "workload": self.workload,
            "trained": self.trained,
            "seeds": self.seeds,
        }

        def train() -> dict[str, Any]:
            dataset, seeds = workload.load_dataset(), range(self.seeds)
            rows = train_policies(workload, dataset, policies, seeds, report)
            return {"rows": [asdict(row) for row in rows]}

        path = folder / f"train-{self.workload}.json"
        return once(path, settings, train)["rows"]


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
    config: SavedActivations, network: str, report: Report = silent
) -> dict[str, Any]:
    """One network with random weights under every policy.

    Returns:
        Plain values: ``rows`` (a :class:`~elision.memory.measures.measure.MemoryRow` each), or
        ``peak_bytes`` without rounds; ``largest_batch`` with a limit.
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
            report(f"{network}: {_summary(row)}")
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
    """Policies, those of measured bits built from the network's sensitivities."""
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
    network: str, config: SavedActivations, limit_bytes: int
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


def _arms(config: SavedActivations) -> dict[str, Any]:
    """Plain autograd and the policies that need no measurement, by name."""
    return {"plain": None} | {policy: policy for policy in _unmeasured(config.policies)}


def _unmeasured(policies: Sequence[str]) -> list[str]:
    return [policy for policy in policies if not _MEASURED.fullmatch(policy)]


def _summary(row: MemoryRow) -> str:
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
