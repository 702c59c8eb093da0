"""Schedules as timelines: a Chrome trace for Perfetto, and a small SVG for a report."""

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elision.accelerators.design.schedule import Slice
from elision.common.files import replacing
from elision.common.printable import escaped
from elision.report.style import INK, TRACK_COLOURS

__all__ = ["chrome_trace", "save_chrome_trace", "timeline_svg"]

#: Busy intervals by the name of the machine.
Schedules = Mapping[str, Sequence[Slice]]

OTHER = "#777777"

#: Pixels: width of the tracks' names, height of a row, gap below it, and width of a letter
#: of a name in its slice.
LABELS, ROW, GAP, LETTER = 84, 16, 4, 7


def chrome_trace(schedules: Schedules, unit: str = "1 us = 1 cycle") -> dict[str, Any]:
    """Schedules in the Chrome trace format, a process per machine, a thread per track.

    The format knows microseconds only: one cycle is written as one microsecond, and the
    process names and the metadata state it.

    Args:
        schedules: busy intervals by the name of the machine, each in any order.
        unit: what a microsecond of the file stands for.

    Raises:
        ValueError: two slices of a track overlap, or one ends before it starts.
    """
    events: list[dict[str, Any]] = []
    for pid, (machine, slices) in enumerate(schedules.items(), start=1):
        events.append(_name("process_name", pid, 0, f"{machine} ({unit})"))
        for tid, (track, ordered) in enumerate(_checked(slices).items(), start=1):
            events.append(_name("thread_name", pid, tid, track))
            events += [
                {
                    "ph": "X",
                    "pid": pid,
                    "tid": tid,
                    "name": piece.name,
                    "ts": piece.start,
                    "dur": piece.end - piece.start,
                }
                for piece in ordered
            ]
    return {"traceEvents": events, "otherData": {"time_unit": unit}}


def _name(kind: str, pid: int, tid: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "pid": pid, "tid": tid, "name": kind, "args": {"name": name}}


def save_chrome_trace(
    schedules: Schedules, path: Path, unit: str = "1 us = 1 cycle"
) -> None:
    """Write :func:`chrome_trace` as JSON, which ui.perfetto.dev opens as it is.

    Equal schedules give equal files.

    Args:
        schedules: busy intervals by the name of the machine.
        path: the file; gzipped if its name ends in ``.gz``.
        unit: what a microsecond of the file stands for.

    Raises:
        OSError: the file cannot be written.
    """
    text = json.dumps(chrome_trace(schedules, unit), separators=(",", ":")).encode()
    with replacing(path) as temporary:
        temporary.write_bytes(
            gzip.compress(text, mtime=0) if path.suffix == ".gz" else text
        )


def timeline_svg(
    schedules: Schedules, start: float = 0, end: float | None = None, width: int = 960
) -> str:
    """A window of schedules as a small SVG, a heading per machine, one row per track.

    All machines share one scale of cycles. Names are tooltips, and stand in the slice
    if it fits.

    Args:
        schedules: busy intervals by the name of the machine, each in any order.
        start: first cycle shown.
        end: one past the last cycle shown; None: the end of the longest schedule.
        width: of the picture, in pixels.

    Raises:
        ValueError: slices overlap, or the window is empty.
    """
    ends = [piece.end for slices in schedules.values() for piece in slices]
    last = max(ends, default=0) if end is None else end
    if last <= start:
        raise ValueError(f"timeline_svg: the window {start}..{last} is empty")
    window = _Window(start, last, (width - LABELS - 8) / (last - start))
    parts: list[str] = []
    y = 0
    for machine, slices in schedules.items():
        cycles = max((s.end for s in slices if s.track == "product"), default=0)
        heading = f"{machine}: {cycles:,} cycles" if cycles else machine
        parts.append(
            f'<text x="0" y="{y + 13}" font-weight="bold">{escaped(heading)}</text>'
        )
        y += 20
        for track, ordered in _checked(slices).items():
            parts.append(f'<text x="0" y="{y + 12}">{escaped(track)}</text>')
            for piece in ordered:
                parts += window.drawn(piece, y, TRACK_COLOURS.get(track, OTHER))
            y += ROW + GAP
        y += GAP
    for share, anchor in ((0, "start"), (0.5, "middle"), (1, "end")):
        cycle = start + share * (last - start)
        parts.append(
            f'<text x="{window.x(cycle):.2f}" y="{y + 10}" '
            f'text-anchor="{anchor}">{cycle:,.0f} cycles</text>'
        )
    height = y + 16
    return "\n".join(
        [
            '<svg role="img" xmlns="http://www.w3.org/2000/svg" '
            f'viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" font-family="sans-serif" '
            f'font-size="11" fill="{INK}">',
            f"<title>cycles {start} to {last}</title>",
            *parts,
            "</svg>\n",
        ]
    )


@dataclass(frozen=True)
class _Window:
    """Cycles ``start`` to ``end`` of a picture, ``scale`` pixels each."""

    start: float
    end: float
    scale: float

    def x(self, cycle: float) -> float:
        return LABELS + (cycle - self.start) * self.scale

    def drawn(self, piece: Slice, y: int, colour: str) -> list[str]:
        """A slice as a box with a tooltip, and with its name if that fits."""
        left, right = max(piece.start, self.start), min(piece.end, self.end)
        if left >= right:
            return []
        x, wide = self.x(left), (right - left) * self.scale
        where = f"cycles {piece.start:,} to {piece.end:,}"
        parts = [
            f'<rect x="{x:.2f}" y="{y}" width="{wide:.2f}" height="{ROW}" '
            f'fill="{colour}"{_faint(piece)} stroke="white" stroke-width="0.5">'
            f"<title>{escaped(piece.name)}: {where}</title></rect>"
        ]
        for text in (piece.name, piece.name.rsplit(": ")[-1]):
            if len(text) * LETTER < wide:
                parts.append(
                    f'<text x="{x + 3:.2f}" y="{y + 12}" fill="white" '
                    f'pointer-events="none">{escaped(text)}</text>'
                )
                break
        return parts


def _faint(piece: Slice) -> str:
    """Blocks of folds are drawn paler than single ones."""
    return ' fill-opacity="0.55"' if piece.folds > 1 else ""


def _checked(slices: Sequence[Slice]) -> dict[str, list[Slice]]:
    """The slices by track, the tracks as they first appear, each in order of time."""
    tracks: dict[str, list[Slice]] = {piece.track: [] for piece in slices}
    for piece in sorted(slices, key=lambda s: (s.start, s.end)):
        if piece.end < piece.start:
            raise ValueError(f"timeline: {piece} ends before it starts")
        ordered = tracks[piece.track]
        if ordered and piece.start < ordered[-1].end:
            raise ValueError(f"timeline: {ordered[-1]} and {piece} overlap")
        ordered.append(piece)
    return tracks
