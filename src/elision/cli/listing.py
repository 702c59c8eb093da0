"""The part of elision map that reads a listing."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from elision.accelerators.spatial.schedule import Design, Schedule
    from elision.products import Geometry

    Layers = list[tuple[str, Geometry]]

__all__ = ["ListingJob"]


@dataclass(frozen=True)
class ListingJob:
    """What elision map does with a listing.

    Attributes:
        path: of the listing.
        sizes: ``M=64,N=32``, or numbers in the order of the listing's sizes.
        array: rows and columns at hand.
        verify, run, code, clock_mhz, threads, out: the flags of those names.

    Example:
        >>> job = ListingJob(Path("gemm.t2s"), sizes="96,64,32")
        >>> job.given_sizes()
        {'M': 96, 'N': 64, 'K': 32}
    """

    path: Path
    sizes: str | None = None
    array: tuple[int, int] | None = None
    verify: bool = False
    run: bool = False
    code: str | None = None
    clock_mhz: float | None = None
    threads: int = 1
    out: Path | None = None

    def given_sizes(self) -> dict[str, int]:
        """The sizes by name.

        Raises:
            ValueError: words that are no sizes, or more than the listing has.
        """
        from elision.accelerators.spatial.schedule import read, sizes_in

        if self.sizes is None:
            return {}
        open_sizes = list(read(self.path).recurrence.sizes)
        words = self.sizes.split(",")
        if all("=" not in word for word in words) and len(words) > len(open_sizes):
            raise ValueError(
                f"--sizes {self.sizes}: {self.path} has {len(open_sizes)} sizes: "
                f"{', '.join(open_sizes)}"
            )
        found = {}
        for place, word in enumerate(words):
            name, is_named, number = word.rpartition("=")
            if not number.isdecimal() or (is_named and not name):
                raise ValueError(
                    f"--sizes {self.sizes}: write numbers in the order of "
                    f"{', '.join(open_sizes)}, or NAME=NUMBER,...; known: "
                    f"{', '.join(sizes_in(self.path))}"
                )
            found[name or open_sizes[place]] = int(number)
        return found

    def show(self) -> None:
        """Print map, network and cycles, and do what the flags say."""
        from elision.accelerators.spatial.schedule import read
        from elision.accelerators.spatial.schedule.code import LANGUAGES
        from elision.common.checks import integer, number
        from elision.common.names import lookup

        if self.code is not None:
            lookup("language of --code", self.code, LANGUAGES)
        if self.clock_mhz is not None:
            number("map", "clock_mhz", self.clock_mhz, "> 0")
        integer("map", "threads", self.threads)
        schedule = read(self.path, self.given_sizes())
        design = schedule.design(self.array)
        sizes = ", ".join(f"{n}={v}" for n, v in schedule.recurrence.sizes.items())
        print(f"{self.path}: {schedule.recurrence}; {sizes}\n")
        tables = self._tables(design)
        for title, rows in tables.items():
            self._print(title, rows)
        print(self._summary(design))
        if self.verify:
            self._verify(schedule)
        if self.run:
            self._run(schedule)
        self._write(schedule, design, tables)

    def check_for_network(self) -> None:
        """Raise ValueError for a flag that a table of layers would ignore."""
        flags = {
            "--sizes": self.sizes,
            "--verify": self.verify or None,
            "--code": self.code,
            "--run": self.run or None,
            "--clock-mhz": self.clock_mhz,
        }
        for flag, value in flags.items():
            if value is not None:
                raise ValueError(
                    f"{flag} would be ignored: a network gives a table of its layers; "
                    "give --sizes of one of them instead of --model"
                )

    def show_network(self, network: str, layers: "Layers") -> None:
        """Print a row for each layer of a network."""
        from elision.accelerators.spatial.schedule import (
            layer_sizes,
            read,
            sizes_in,
        )

        names = sizes_in(self.path)
        rows, left = [], []
        work = cycles = elements = 0
        for name, geometry in layers:
            try:
                sizes, passes = layer_sizes(geometry, names)
            except ValueError as error:
                left.append(f"{name} {error}")
                continue
            design = read(self.path, sizes).design(self.array)
            rows.append(
                {
                    "layer": name,
                    "sizes": " ".join(f"{n}={v}" for n, v in sizes.items()),
                    "passes": passes,
                    "cycles": passes * design.cycles,
                    "in use": f"{100 * design.utilisation:.1f} %",
                    "memory": _memory(design),
                }
            )
            work += passes * design.multiplies
            cycles += passes * design.cycles
            elements = max(elements, design.elements)
        if not rows:
            raise ValueError(f"{network} has no layer for {self.path}: {left[0]}")
        share = f"{100 * work / (cycles * elements):.1f} %"
        rows.append({"layer": "all", "cycles": cycles, "in use": share})
        print(f"{network}, forward products by {self.path}, simulated\n")
        self._print("", rows)
        for words in left:
            print(f"Left out: {words}.")
        if self.out is not None:
            from elision.common.files import to_csv, write_text
            from elision.study.config import file_name

            self.out.mkdir(parents=True, exist_ok=True)
            stem = f"{self.path.stem}-{file_name(network)}"
            write_text(self.out / f"{stem}.csv", to_csv(rows))
            print(f"table: {self.out}")

    @staticmethod
    def _print(title: str, rows: list[dict[str, Any]]) -> None:
        from elision.report.table import rows_as_text

        if rows:
            print(f"{title}\n\n{rows_as_text(rows)}\n".lstrip("\n"))

    @staticmethod
    def _tables(design: "Design") -> dict[str, list[dict[str, Any]]]:
        return {
            "Map: loops in space and their weights in time": design.map_rows(),
            "Ways of the tensors in the array": design.tensor_rows(),
            "I/O network": design.channel_rows(),
            "Buffers": design.tile_rows(),
        }

    def _summary(self, design: "Design") -> str:
        lines = [
            f"class {design.letters}; {design.elements:,} PEs, "
            f"{100 * design.utilisation:.1f} % in use; {design.accumulators:,} sums a PE",
            f"{design.cycles:,} cycles: {design.fill:,} until the first tiles are there, "
            f"{design.working:,} of the array, {design.skew:,} of skew, "
            f"{design.waits_for_drain + design.drain:,} until all results are out",
            f"{design.words_per_cycle():.3g} words of memory a cycle",
        ]
        if self.clock_mhz is not None:
            lines.append(
                f"at {self.clock_mhz:g} MHz: {design.seconds(self.clock_mhz):.4g} s, "
                f"{design.gflops(self.clock_mhz):.4g} GFLOP/s"
            )
        return "\n".join(["Simulated:", *lines]) + "\n"

    @staticmethod
    def _verify(schedule: "Schedule") -> None:
        from elision.accelerators.spatial.schedule.code import (
            mapped_program,
            specification,
        )
        from elision.verify import equivalent

        recurrence = schedule.recurrence
        fixed = {name: recurrence.sizes[name] for name in recurrence.coefficients}
        verdict = equivalent(
            mapped_program(schedule), specification(schedule), sizes=fixed
        )
        where = "".join(f" at {name}={value}" for name, value in fixed.items())
        print(f"Mapped program against the recurrence{where}: {verdict}\n")
        if verdict.status == "refuted":
            raise RuntimeError(f"the mapped program is refuted: {verdict.witness}")

    def _run(self, schedule: "Schedule") -> None:
        from elision.study.schedules import compare_with_torch

        language = self.code or "cpp"
        try:
            found = compare_with_torch(schedule, language, self.threads)
        except ArithmeticError as error:
            raise RuntimeError(str(error)) from error
        self._print(f"Run here, {language} beside torch", [found.row()])

    def _write(
        self,
        schedule: "Schedule",
        design: "Design",
        tables: dict[str, list[dict[str, Any]]],
    ) -> None:
        from elision.accelerators.spatial.schedule.code import source

        text = source(schedule, self.code) if self.code is not None else None
        if self.out is None:
            if text is not None:
                print(text, end="")
            return
        from elision.common.files import to_csv, write_text
        from elision.report.network_figure import network_svg

        self.out.mkdir(parents=True, exist_ok=True)
        stem = self.path.stem
        names = ("map", "tensors", "network", "buffers")
        for name, rows in zip(names, tables.values(), strict=True):
            if rows:
                write_text(self.out / f"{stem}-{name}.csv", to_csv(rows))
        write_text(self.out / f"{stem}.svg", network_svg(design, str(self.path)))
        if text is not None:
            suffix = {"cpp": "cpp", "python": "py"}[self.code or ""]
            write_text(self.out / f"{stem}.{suffix}", text)
        print(f"tables, figure and code: {self.out}")


def _memory(design: "Design") -> str:
    return "hidden" if all(tile.hidden for tile in design.tiles) else "array waits"
