"""LayerPipe's claim on PipeDream's published profiles, with what it depends on.

Unnikrishnan and Parhi, "LayerPipe: Accelerating Deep Neural Network Training by
Intra-Layer and Inter-Layer Gradient Pipelining and Multiprocessor Scheduling", ICCAD 2021.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from elision.common.checks import integer, number
from elision.common.files import to_csv, write_json, write_text
from elision.common.names import lookup
from elision.report.pipeline_figure import pipeline_svg
from elision.study.papers.base import (
    Figure,
    Paper,
    Progress,
    Report,
    Rows,
    Table,
    silent,
)
from elision.study.papers.layerpipe.published import ZERO_BUBBLE, networks
from elision.training.pipeline import LayerCost, Plan, plan
from elision.training.pipeline.partition import (
    Partition,
    bounds,
    contiguous,
    inter_layer,
    intra_layer,
    pipedream,
)
from elision.training.pipeline.profile import layer_costs

__all__ = ["LayerPipe"]

#: Shares of the weight gradient in a layer's backward time that are tried beside the
#: chosen one: those measured on small layers range from 0.34 to 0.6.
_SHARES = (0.35, 0.5, 0.6)

#: Processors for which the paper's largest figure is quoted.
_FEW = (7, 8, 9)

#: Even stages on which zero bubble's table is computed: processors, micro-batches.
_EVEN = (8, 32)


@dataclass(frozen=True)
class LayerPipe(Paper):
    """LayerPipe against PipeDream on PipeDream's profiles, by this project's model.

    Attributes:
        network: Names of profiles; none: all 14.
        processors: Largest number of processors; the smallest is 2.
        weight_grad_share: Share of the weight gradient in a layer's own backward time.
        bandwidth_gbps: Gigabits per second between two processors, where communication is
            counted.

    Raises:
        ValueError: an unknown network, or a number out of range.

    Example:
        >>> [figure.value for figure in LayerPipe.published][:2]
        ['25 %', 'upwards of 80 %']
    """

    key = "layerpipe"
    title = (
        "N. K. Unnikrishnan, K. K. Parhi, LayerPipe: Accelerating Deep Neural Network "
        "Training by Intra-Layer and Inter-Layer Gradient Pipelining and Multiprocessor "
        "Scheduling, ICCAD 2021"
    )
    published = (
        Figure("speed-up over PipeDream, on average", "25 %", "abstract"),
        Figure("the same, with 7 to 9 processors", "upwards of 80 %", "abstract"),
        Figure("communication", "less overhead than PipeDream", "abstract"),
        Figure(
            "zero bubble over 1F1B, similar memory", "up to 23 %", "arXiv 2401.10241"
        ),
        Figure("the same, memory limit relaxed", "up to 31 %", "arXiv 2401.10241"),
    )
    unstated = (
        "The paper's tables, its networks, its batch sizes and its search were not "
        "reachable; the profiles are PipeDream's own, measured on its hardware, and the "
        "planner is this project's. A profile has one time for a layer's backward pass, so "
        "the share of the weight gradient is assumed. The first layer has no input "
        "gradient; what has no weight, and batch norms, is charged to the layer before; "
        "branches stand one after the other. Straight PipeDream is the best cut into whole "
        "layers, one processor each. PipeDream itself replicates stages, and with free "
        "communication replication comes to the even share by construction, which no split "
        "into tasks can beat. Nothing was tuned to the published column."
    )

    network: tuple[str, ...] = ()
    processors: int = 12
    weight_grad_share: float = 0.5
    bandwidth_gbps: float = 25.0

    def __post_init__(self) -> None:
        for name in self.network:
            lookup("profile", name, networks())
        integer("LayerPipe", "processors", self.processors, "[2, 64]")
        number("LayerPipe", "weight_grad_share", self.weight_grad_share, "[0, 1]")
        number("LayerPipe", "bandwidth_gbps", self.bandwidth_gbps, "> 0")

    def rows(self, progress: Progress = silent) -> Rows:
        """A row for each network and number of processors."""
        chosen = self.network or tuple(networks())
        rows: Rows = []
        for done, name in enumerate(chosen):
            progress(done, len(chosen))
            costs = layer_costs(networks()[name], self.weight_grad_share)
            for count in range(2, self.processors + 1):
                rows.append({"network": name, **self._row(costs, count)})
        return rows

    def _row(self, costs: Sequence[LayerCost], count: int) -> dict[str, Any]:
        """Periods, in seconds per mini-batch, and bytes that are sent."""
        bandwidth = self.bandwidth_gbps * 1e9 / 8
        # Without replicas there is no use for more processors than layers.
        stages = min(count, len(costs))
        found: dict[str, Partition] = {
            "straight": contiguous(costs, stages),
            "intra": intra_layer(costs, count),
            "inter": inter_layer(costs, count),
            "replicated": pipedream(costs, count),
        }
        limited = pipedream(costs, count, bandwidth=bandwidth)
        straight = pipedream(costs, stages, bandwidth=bandwidth, replicate=False)
        row: dict[str, Any] = {"processors": count}
        row |= {name: made.period(costs) for name, made in found.items()}
        row["bound"] = bounds(costs, count, "half").best
        row["straight_communicating"] = _period(costs, straight, bandwidth)
        row["replicated_communicating"] = _period(costs, limited, bandwidth)
        schedules = {
            "straight": "pipedream",
            "intra": "layerpipe-intra",
            "inter": "layerpipe",
            "replicated": "pipedream-replicated",
        }
        for name, schedule in schedules.items():
            made = plan(
                costs, found[name].processors, schedule, 1, partition=found[name]
            )
            row[f"{name}_bytes"] = made.sent_bytes
        row["replicated_communicating_bytes"] = plan(
            costs, count, "pipedream-replicated", 1, partition=limited
        ).sent_bytes
        return row

    def run(
        self, folder: Path, progress: Progress = silent, report: Report = silent
    ) -> list[Table]:
        """Write ``layerpipe.csv`` and ``layerpipe.json``; see :meth:`Paper.run`."""
        rows = self.rows(progress)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "layerpipe.csv", to_csv(rows))
        bubbles = _zero_bubble()
        facts = {
            "unstated": self.unstated,
            "weight_grad_share": self.weight_grad_share,
            "bandwidth_gbps": self.bandwidth_gbps,
        }
        shares = self._shares()
        write_json(
            folder / "layerpipe.json",
            facts | {"rows": rows, "shares": shares, "zero_bubble": bubbles},
        )
        origin = "simulated"
        free = "Speed-up over straight PipeDream, communication free"
        return [
            Table(
                f"{free}: mean over P = 2..{self.processors}", _means(rows), "", origin
            ),
            Table(f"{free}: by the number of processors", _by_count(rows), "", origin),
            *self._example(rows),
            Table(
                "What the assumed share of the weight gradient decides\n"
                "Speed-up of the inter-layer split over straight PipeDream, VGG-16.",
                shares,
                "",
                origin,
            ),
            Table(
                f"Communication at {self.bandwidth_gbps:g} Gbit/s\n"
                "MB sent per mini-batch, the mean over the numbers of processors; and the "
                "speed-up of PipeDream's planner with replicas, over straight stages, where "
                "both count communication as that planner does.",
                _communication(rows),
                "",
                origin,
            ),
            Table(
                "Zero bubble's published table, and the same computed\n"
                f"{_EVEN[0]} processors, {_EVEN[1]} micro-batches, F = I = W; idle time over "
                "1F1B's, activations and transfers over 1F1B's.",
                bubbles,
                "",
                origin,
            ),
        ]

    def _example(self, rows: Rows) -> list[Table]:
        """VGG-16, where the claim's largest figure is reached, processor by processor."""
        own = [row for row in rows if row["network"] == "vgg16"]
        if not own:
            return []
        costs = layer_costs(networks()["vgg16"], self.weight_grad_share)
        count = min(8, self.processors)
        names = ("pipedream", "layerpipe-intra", "layerpipe")
        panels = [plan(costs, count, name, 12).panel() for name in names]
        shown = [
            {
                "processors": str(row["processors"]),
                "straight, ms": f"{1e3 * row['straight']:.0f}",
                **_gains(row),
            }
            for row in own
        ]
        title = "VGG-16: speed-up over straight PipeDream, communication free"
        return [Table(title, shown, pipeline_svg(panels), "simulated")]

    def _shares(self) -> Rows:
        """Inter-layer speed-ups of VGG-16 under other shares of the weight gradient."""
        rows = []
        counts = [count for count in _FEW if count <= self.processors]
        for share in dict.fromkeys((*_SHARES, self.weight_grad_share)):
            costs = layer_costs(networks()["vgg16"], share)
            row = {"share": f"{share:g}"}
            for count in counts:
                straight = contiguous(costs, count).period(costs)
                inter = inter_layer(costs, count).period(costs)
                row[f"P = {count}"] = _percent(straight / inter)
            rows.append(row)
        return rows


def _period(
    costs: Sequence[LayerCost], partition: Partition, bandwidth: float
) -> float:
    """Time per mini-batch, as PipeDream's planner counts it."""
    slowest, before = 0.0, None
    for layers, count in zip(partition.layers, partition.replicas, strict=True):
        size = sum(costs[n].parameter_bytes for n in layers)
        shared = 4 * (count - 1) / count * size / bandwidth
        slowest = max(slowest, (sum(costs[n].total for n in layers) + shared) / count)
        if before is not None:
            slowest = max(slowest, 2 * costs[before].sent_bytes / bandwidth / count)
        before = layers[-1]
    return slowest


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):.0f} %"


def _gains(row: Mapping[str, Any]) -> dict[str, str]:
    """Speed-ups over straight PipeDream."""
    names = {
        "intra": "intra-layer",
        "inter": "inter-layer",
        "bound": "no split is above",
        "replicated": "PipeDream, replicated",
    }
    return {
        heading: _percent(row["straight"] / row[name])
        for name, heading in names.items()
    }


def _mean_gains(rows: Rows) -> dict[str, str]:
    ratios = {
        name: mean(row["straight"] / row[name] for row in rows)
        for name in ("intra", "inter", "bound", "replicated")
    }
    return _gains({"straight": 1.0} | {name: 1 / r for name, r in ratios.items()})


def _means(rows: Rows) -> Rows:
    """Speed-ups of each network, the mean over the numbers of processors; and of all."""
    names = dict.fromkeys(row["network"] for row in rows)
    table: Rows = [
        {
            "network": name,
            "layers": str(len(networks()[name])),
            **_mean_gains([row for row in rows if row["network"] == name]),
        }
        for name in names
    ]
    table.append({"network": "mean", "layers": "", **_mean_gains(rows)})
    table.append({"network": "published", "layers": "", "inter-layer": "25 %"})
    return table


def _by_count(rows: Rows) -> Rows:
    """Speed-ups by the number of processors, the mean over the networks."""
    counts = dict.fromkeys(row["processors"] for row in rows)
    table: Rows = []
    for count in counts:
        own = [row for row in rows if row["processors"] == count]
        largest = max(row["straight"] / row["inter"] for row in own)
        cells = {"processors": str(count), **_mean_gains(own)}
        cells["largest inter-layer"] = _percent(largest)
        cells["published"] = "upwards of 80 %" if count in _FEW else ""
        table.append(cells)
    return table


def _communication(rows: Rows) -> Rows:
    table: Rows = []
    for name in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == name]
        cells: dict[str, Any] = {"network": name}
        for kind in ("straight", "intra", "inter", "replicated"):
            cells[kind] = f"{mean(row[f'{kind}_bytes'] for row in own) / 1e6:,.0f}"
        limited = mean(row["replicated_communicating_bytes"] for row in own) / 1e6
        cells["replicated, bandwidth counted"] = f"{limited:,.0f}"
        ratio = mean(
            row["straight_communicating"] / row["replicated_communicating"]
            for row in own
        )
        cells["its speed-up"] = _percent(ratio)
        table.append(cells)
    return table


def _zero_bubble() -> Rows:
    """Zero bubble's table, published and computed on even stages."""
    count, batches = _EVEN
    even = [LayerCost(0.5, 0.5, 0.5, sent_bytes=1.0, unit="cycles")] * (2 * count)
    plans = {name: plan(even, count, name, batches) for name in ZERO_BUBBLE}
    one = plans["1f1b"]
    rows = []
    for name, (bubble, activations, transfers) in ZERO_BUBBLE.items():
        made = plans[name]
        rows.append(
            {
                "schedule": name,
                "bubble, published": bubble,
                "bubble": f"{_idle(made) / _idle(one):.3f} B0",
                "activations, published": f"{activations:.2f}",
                "activations": f"{_kept(made) / _kept(one):.2f}",
                "transfers, published": f"{transfers:g}",
                "transfers": f"{made.sent_bytes / one.sent_bytes:.2f}",
            }
        )
    return rows


def _idle(made: Plan) -> float:
    """Idle time of a processor in a step."""
    return made.bubble * made.period * made.microbatches


def _kept(made: Plan) -> float:
    """Most activations that a processor keeps, in those of one processor's whole share."""
    return max(made.peak_kept) / made.schedule.chunks
