"""GNMT's published scaling and the published ratios of compression, beside the model.

Kalamkar et al., "Training Google Neural Machine Translation on an Intel CPU Cluster",
CLUSTER 2019. The efficiencies are of 16 nodes; no figure of a step is known to us, so
nothing is fitted: each overhead is asked alone what it would have to be, and then all are
put together at parameters that the command line can change.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from elision.common.checks import integer, number
from elision.common.columns import as_text
from elision.common.files import to_csv, write_json, write_text
from elision.study.papers.base import Figure, Paper, Progress, Report, Table, silent
from elision.study.papers.scaling.overheads import laws_of, needed, together
from elision.study.papers.scaling.ratios import ratios
from elision.training.parallel.scaling import Cores, Link, StepCosts, scaling_model
from elision.training.parallel.scaling.measure import measured_step
from elision.workloads import GlobalBuckets, LocalBuckets
from elision.workloads.models.gnmt import gnmt

__all__ = ["STRONG", "WEAK", "Scaling", "gnmt_step", "log_normal_lengths", "waits"]

#: Published efficiencies of 16 nodes.
WEAK, STRONG = 0.78, 0.81

#: Published speed-up of one node over stock TensorFlow, "about" this.
ONE_NODE = 2.0

#: Words of a sentence: log-normal with these parameters, at most this long, as of a
#: translation corpus; the distribution of this project's reference.
_LOG_MEAN, _LOG_DEVIATION, _LONGEST = 3.05, 0.6, 100

#: Sentences of an epoch, for how long ranks wait.
_SENTENCES = 64_000

#: Words of the sentences of the step that is timed.
_WORDS = 25

_NOTES = "reading notes of the paper; not in its abstract"


@dataclass(frozen=True)
class Scaling(Paper):
    """GNMT on 16 nodes, and the ratios of DGC and PowerSGD.

    Attributes:
        ranks: Nodes.
        step_seconds: Seconds of a node's step with nothing sent, which are not published.
        link: Bandwidth between nodes, not published.
        latency: Seconds of an empty message, not published.
        cores: Cores of a node, not published.
        comm_cores: Cores of a node that communicate, not published.
        batch: Sentences of a node.
        width: Of the GNMT whose step is timed here, and whose gradients are sent.
        vocabulary: Likewise.
        timed_batches: Sentences of the two steps that are timed here.
        rounds: Timed steps of each.
        seed: Of the lengths and the weights.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> [figure.value for figure in Scaling.published][:2]
        ['78 %', '81 %']
    """

    key = "scaling"
    title = (
        "D. D. Kalamkar et al., Training Google Neural Machine Translation on an Intel CPU "
        "Cluster, IEEE CLUSTER 2019"
    )
    published = (
        Figure("efficiency at 16 nodes, weak scaling", "78 %", _NOTES),
        Figure("efficiency at 16 nodes, strong scaling", "81 %", _NOTES),
        Figure("one node over stock TensorFlow", "about 2x", "abstract"),
        Figure("16 nodes over stock TensorFlow", "more than 25x", "abstract"),
        Figure(
            "DGC, ResNet-50's gradients", "97 MB to 0.35 MB", "summary at study.space"
        ),
        Figure(
            "DGC, DeepSpeech's gradients", "488 MB to 0.74 MB", "summary at study.space"
        ),
        Figure(
            "PowerSGD, time to train",
            "consistently below SGD's, alone of the methods evaluated",
            "abstract of Vogels et al., NeurIPS 2019",
        ),
    )
    unstated = (
        "Seconds of a step, batch, link, nodes, cores pinned by MLSL and bucket sizes of "
        "the GNMT runs are not known to us, nor whether a node held several ranks; here a "
        "node is one rank, sends by rings in torch's buckets, and computes in proportion "
        "to its cores. The proportions of a step (forward, backward, when each gradient is "
        "ready, what does not shrink with the batch) are measured here on GNMT as MLPerf "
        "has it, on few sentences; the seconds are given by --step-seconds. Lengths are "
        "log-normal. With equal batches a node, no row can have strong scaling above weak, as "
        "the published figures have it: their batches of a node differed, or an overhead "
        "grew with the batch of all nodes. Nothing was tuned to the published "
        "efficiencies: where the rows of the second table do not meet them, "
        "the parameters of this run are not the paper's. The ratios are of the values alone; "
        "momentum, clipping and what is sent "
        "in DGC's warm-up are not in them."
    )

    ranks: int = 16
    step_seconds: tuple[float, ...] = (0.5, 1.0, 2.0)
    link: str = "100Gbit"
    latency: float = 20e-6
    cores: int = 28
    comm_cores: int = 2
    batch: int = 64
    width: int = 1024
    vocabulary: int = 32_000
    timed_batches: tuple[float, ...] = (4, 16)
    rounds: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        integer("Scaling", "ranks", self.ranks, ">= 2")
        for seconds in self.step_seconds:
            number("Scaling", "step_seconds", seconds, "> 0")
        integer("Scaling", "batch", self.batch)
        for size in self.timed_batches:
            if size != int(size):
                raise ValueError(
                    f"Scaling(timed_batches={size}): must be an integer >= 1"
                )
            integer("Scaling", "timed_batches", int(size))
        integer("Scaling", "rounds", self.rounds)
        Cores(self.cores, self.comm_cores)
        Link.parse(self.link, self.latency)

    def run(
        self, folder: Path, progress: Progress = silent, report: Report = silent
    ) -> list[Table]:
        """Write a CSV file for each table, and ``scaling.json``."""
        progress(0, 3)
        batches = tuple(int(size) for size in self.timed_batches)
        costs = gnmt_step(self.width, self.vocabulary, batches, self.rounds, self.seed)
        progress(1, 3)
        link, cores = (
            Link.parse(self.link, self.latency),
            Cores(self.cores, self.comm_cores),
        )
        idle = waits(self.ranks, self.batch, self.seed)
        progress(2, 3)
        model = scaling_model(costs, link, ranks=[self.ranks], batch=1, mode="weak")
        sent = {self.link: model.row(self.ranks).communication}
        alone = list(needed((WEAK, STRONG), self.ranks, sent, self.cores, idle))
        rows = [
            row
            for seconds in self.step_seconds
            for row in together(
                costs,
                seconds,
                ranks=self.ranks,
                batch=self.batch,
                link=link,
                cores=cores,
                waits=idle,
            )
        ]
        compressed = ratios(self.ranks)
        laws = list(laws_of((WEAK, STRONG), self.ranks, ONE_NODE))
        folder.mkdir(parents=True, exist_ok=True)
        tables = {"laws": laws, "needed": alone, "together": rows, "ratios": compressed}
        for name, each in tables.items():
            write_text(folder / f"{name}.csv", to_csv([asdict(row) for row in each]))
        facts = {"parameters": asdict(self), "unstated": self.unstated, "waits": idle}
        written = {name: [asdict(row) for row in each] for name, each in tables.items()}
        write_json(folder / "scaling.json", facts | {"step": asdict(costs)} | written)
        published = {
            "a rank's step, s": "",
            "overheads, each with those above": "published",
            "weak": f"{WEAK:.1%}",
            "strong": f"{STRONG:.1%}",
        }
        gradients = f"{costs.size / 1e6:.0f} MB of gradients"
        return [
            Table(
                f"The published efficiencies of {self.ranks} nodes by the laws of scaling",
                [as_text(row) for row in laws],
                origin="derived",
            ),
            Table(
                f"What one overhead would have to be alone, {gradients}",
                [as_text(row) for row in alone],
                origin="derived",
            ),
            Table(
                f"Overheads together at {self.ranks} nodes, {self.link}, nothing fitted",
                [published, *(as_text(row) for row in rows)],
                origin="simulated",
            ),
            Table(
                f"Compression by formula, {self.ranks} ranks",
                [as_text(row) for row in compressed],
                origin="derived",
            ),
        ]


def gnmt_step(
    width: int, vocabulary: int, batches: tuple[int, ...], rounds: int, seed: int
) -> StepCosts:
    """A step of GNMT on random sentences, timed here."""
    torch.manual_seed(seed)
    model = gnmt(vocabulary=vocabulary, width=width).train()
    # 5: the first token that is a word (see elision.workloads.tokens).
    words = torch.randint(5, vocabulary, (2, max(batches), _WORDS))

    def loss_of(size: int) -> torch.Tensor:
        source, target = words[0, :size], words[1, :size]
        scores = model(source, target)
        return torch.nn.functional.cross_entropy(scores.flatten(0, 1), target.flatten())

    return measured_step(
        model,
        {size: lambda size=size: loss_of(size) for size in batches},
        lambda m: torch.optim.SGD(m.parameters(), lr=0.0),
        rounds,
        f"GNMT of width {width}, measured here",
    )


def log_normal_lengths(count: int, seed: int) -> torch.Tensor:
    """Lengths of so many sentences, in words."""
    random = torch.Generator().manual_seed(seed)
    normal = torch.randn(count, generator=random) * _LOG_DEVIATION + _LOG_MEAN
    return normal.exp().round().long().clamp(1, _LONGEST)


def waits(ranks: int, batch: int, seed: int) -> dict[str, float]:
    """The slowest rank's padded tokens over the mean's, by the scheme of batches."""
    lengths = log_normal_lengths(max(_SENTENCES, 4 * ranks * batch), seed)
    schemes = {
        "global buckets": GlobalBuckets(lengths, batch, ranks, seed=seed),
        "each rank's own buckets": LocalBuckets(lengths, batch, ranks, seed=seed),
    }
    return {name: 1 / (1 - each.efficiency().idle) for name, each in schemes.items()}
