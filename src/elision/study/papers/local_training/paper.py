"""Local training: FedAvg's rounds and DiLoCo's traffic, measured, beside published claims."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from elision.common.checks import integer, number
from elision.common.columns import as_text
from elision.common.files import to_csv, write_json, write_text
from elision.common.names import lookup
from elision.study.papers.base import (
    Figure,
    Paper,
    Progress,
    Report,
    Table,
    silent,
)
from elision.study.papers.local_training import diloco, fedavg
from elision.study.papers.local_training.figure import local_training_svg
from elision.study.papers.once import once

__all__ = ["LocalTraining"]

_FEDAVG = "abstract of McMahan et al., AISTATS 2017 (arXiv 1602.05629)"
_DILOCO = "abstract of Douillard et al., 2023 (arXiv 2311.08105)"

#: Parts of the study by name.
_PARTS = {"fedavg": 0, "wire": 1, "diloco": 2}


@dataclass(frozen=True)
class LocalTraining(Paper):
    """FedAvg and DiLoCo on small real images, beside what their papers claim.

    Runs that are finished are read again; the same command goes on with what is missing.

    Attributes:
        part: fedavg (rounds to a target), wire (bytes that recipes save), diloco (loss
            and traffic).
        seeds: Runs of each row.
        target: Accuracy whose first round is counted.
        rounds: Most rounds of a run to the target.
        wire_rounds: Rounds of a run of which the bytes are counted.
        clients: In all; a round draws five of them, or as many as a row says.
        rate: A client's learning rate.
        fedsgd_rate: That of FedSGD's single step.
        width: Of the perceptron.
        workers: Of DiLoCo.
        every: Steps between two exchanges.
        steps: Of every worker.
        batch: Images of one worker's step.
        channels: Of the first convolution.
        adamw_rate: Of DiLoCo's inner AdamW, falling along a cosine.
        images: Training images of each part; default: all.

    Raises:
        ValueError: a number is out of range, or an unknown part.

    Example:
        >>> [figure.value for figure in LocalTraining.published]
        ['10-100x fewer', 'as good as synchronous', '500 times less']
    """

    key = "local-training"
    title = "FedAvg (McMahan et al., AISTATS 2017) and DiLoCo (Douillard et al., 2023)"
    published = (
        Figure("rounds of FedAvg against synchronised SGD", "10-100x fewer", _FEDAVG),
        Figure("DiLoCo, 8 workers, C4", "as good as synchronous", _DILOCO),
        Figure("communication of DiLoCo, 8 workers", "500 times less", _DILOCO),
    )
    unstated = (
        "The published runs are of other data and networks (MNIST, CIFAR-10, Shakespeare; "
        "language models on C4), and FedAvg's rates were tuned for each row; here the rates "
        "are fixed. scikit-learn's digits are 1,437 training images of 8 x 8 pixels, the "
        "photographs' patches 4,000 of 32 x 32. DiLoCo's 500 times is its number of steps "
        "between exchanges; runs here are shorter than that. Workers see more images "
        "in as many steps than one worker does. Running statistics of batch norms are "
        "averaged at the end of DiLoCo's runs, and not counted in its bytes."
    )

    part: tuple[str, ...] = tuple(_PARTS)
    seeds: int = 3
    target: float = 0.9
    rounds: int = 300
    wire_rounds: int = 30
    clients: int = 20
    rate: float = 0.1
    fedsgd_rate: float = 0.3
    width: int = 64
    workers: int = 4
    every: tuple[float, ...] = (5, 20, 60)
    steps: int = 120
    batch: int = 16
    channels: int = 8
    adamw_rate: float = 0.004
    images: int = 10_000

    def __post_init__(self) -> None:
        for name in self.part:
            lookup("part", name, _PARTS)
        owner = type(self).__name__
        for name in ("seeds", "rounds", "wire_rounds", "clients", "steps", "images"):
            integer(owner, name, getattr(self, name))
        integer(owner, "workers", self.workers, ">= 2")
        number(owner, "target", self.target, "(0, 1]")
        for each in self.every:
            if each != int(each) or not 1 <= each <= self.steps:
                raise ValueError(
                    f"{owner}(every={each:g}): must be an integer in [1, {self.steps}]"
                )

    def run(
        self, folder: Path, progress: Progress = silent, report: Report = silent
    ) -> list[Table]:
        """Write ``runs/``, a CSV of each table, ``local-training.svg`` and ``.json``."""
        units = self._units()
        found: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        done = 0
        for seed in range(self.seeds):
            for key, (settings, measure) in units.items():
                name = "-".join(_word(each) for each in key)
                path = folder / "runs" / f"{name}-{seed}.json"
                given = {**settings, "seed": seed}
                known = path.is_file()
                result = once(path, given, lambda m=measure, s=seed: m(s))
                found.setdefault(key, []).append(result)
                done += 1
                progress(done, self.seeds * len(units))
                if not known:
                    report(f"{name}, seed {seed}: {_said(result)}")
        return self._written(folder, found)

    def _units(
        self,
    ) -> dict[tuple[str, ...], tuple[dict[str, Any], Callable[[int], dict[str, Any]]]]:
        """By (part, row, data): settings, and what measures it at a seed."""
        units: dict[
            tuple[str, ...], tuple[dict[str, Any], Callable[[int], dict[str, Any]]]
        ] = {}
        clients = {"clients": self.clients, "width": self.width, "images": self.images}
        if "fedavg" in self.part:
            shared: dict[str, Any] = clients | {
                "target": self.target,
                "rounds": self.rounds,
                "rates": (self.fedsgd_rate, self.rate),
            }
            for data in fedavg.PARTS:
                for case, row in fedavg.CASES.items():
                    units["fedavg", case, data] = (
                        shared | {"row": row, "data": data},
                        lambda seed, c=case, d=data: fedavg.to_target(
                            c, d, seed=seed, **shared
                        ),
                    )
        if "wire" in self.part:
            also = clients | {"rounds": self.wire_rounds, "rate": self.rate}
            for case, row in fedavg.WIRE.items():
                units["wire", case] = (
                    also | {"row": row},
                    lambda seed, c=case: fedavg.wire(c, seed=seed, **also),
                )
        if "diloco" in self.part:
            training = {
                "steps": self.steps,
                "batch": self.batch,
                "width": self.channels,
                "rate": self.adamw_rate,
                "images": self.images,
            }
            every = [int(each) for each in self.every]
            for name, case in diloco.cases(self.workers, every).items():
                units["diloco", name] = (
                    training | asdict(case),
                    lambda seed, c=case: diloco.trained(c, seed=seed, **training),
                )
        return units

    def _written(
        self, folder: Path, found: Mapping[tuple[str, ...], list[dict[str, Any]]]
    ) -> list[Table]:
        """The tables, and the files of them."""
        sgd = next(iter(fedavg.CASES))
        rounds = [
            fedavg.rounds_row(case, data, runs, found["fedavg", sgd, data])
            for (part, case, *rest), runs in found.items()
            for data in rest
            if part == "fedavg"
        ]
        dense = found.get(("wire", next(iter(fedavg.WIRE))), [])
        wires = [
            fedavg.wire_row(case, runs, dense)
            for (part, case, *_), runs in found.items()
            if part == "wire"
        ]
        names = [case for part, case, *_ in found if part == "diloco"]
        losses = [
            diloco.loss_row(name, found["diloco", name], found["diloco", names[0]])
            for name in names
        ]
        figure = local_training_svg(rounds, losses)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "local-training.svg", figure)
        tables = {"rounds": rounds, "wire": wires, "diloco": losses}
        written = {name: [asdict(row) for row in rows] for name, rows in tables.items()}
        for name, rows in written.items():
            write_text(folder / f"{name}.csv", to_csv(rows))
        facts = {"parameters": asdict(self), "unstated": self.unstated}
        write_json(folder / "local-training.json", facts | written)
        claims = [
            {"published": f.quantity, "value": f.value, "where": f.source}
            for f in self.published
        ]
        shown = [Table("Claims", claims, origin="published")]
        titles = {
            "rounds": f"Rounds of {self.clients} clients to {self.target:.0%} on digits",
            "wire": (
                f"Bytes of {self.wire_rounds} rounds, two labels a client, 2 local epochs"
            ),
            "diloco": f"Test loss after {self.steps} steps on photographs' patches",
        }
        for name, rows in tables.items():
            if rows:
                drawn = figure if name == "rounds" else ""
                cells = [as_text(row) for row in rows]
                shown.append(Table(titles[name], cells, drawn, "measured here"))
        return shown


def _word(text: str) -> str:
    """Text as a part of a file name."""
    words = "".join(c if c.isalnum() else " " for c in text.lower()).split()
    return "-".join(words)


def _said(result: Mapping[str, Any]) -> str:
    if "loss" in result:
        return f"test loss {result['loss']:.3f}, {result['bytes'] / 1e6:.3f} MB"
    last = result["scores"][-1]
    return f"accuracy {last:.1%} after {len(result['scores'])} rounds"
