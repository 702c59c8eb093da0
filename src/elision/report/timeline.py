"""Schedules as timelines: a Chrome trace for Perfetto, and a small SVG for a report."""

import gzip
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from elision.accelerators.schedule import Slice
from elision.files import replacing

__all__ = ["chrome_trace", "save_chrome_trace", "timeline_svg"]

#: Fill colours, taken in turn by the tracks: Paul Tol's "bright" scheme.
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")

#: Room that a letter is given, in pixels, when a name is written into its slice.
LETTER = 7


def chrome_trace(slices: Sequence[Slice], title: str = "schedule") -> dict[str, Any]:
    """A schedule in the Chrome trace format, one thread per track.

    The format knows microseconds only: one cycle is written as one microsecond, and the
    process name and the metadata say so.

    Args:
        slices: busy intervals, in any order.
        title: name of the process.

    Raises:
        ValueError: two slices of a track overlap, or one ends before it starts.
    """
    tracks = _checked(slices)
    unit = "1 us = 1 cycle"
    named = [("process_name", 0, f"{title} ({unit})")]
    named += [("thread_name", n, track) for n, track in enumerate(tracks, start=1)]
    events: list[dict[str, Any]] = [
        {"ph": "M", "pid": 1, "tid": tid, "name": kind, "args": {"name": name}}
        for kind, tid, name in named
    ]
    for tid, ordered in enumerate(tracks.values(), start=1):
        events += [
            {
                "ph": "X",
                "pid": 1,
                "tid": tid,
                "name": piece.name,
                "ts": piece.start,
                "dur": piece.end - piece.start,
            }
            for piece in ordered
        ]
    return {"traceEvents": events, "otherData": {"time_unit": unit, "title": title}}


def save_chrome_trace(
    slices: Sequence[Slice], path: Path, title: str = "schedule"
) -> None:
    """Write :func:`chrome_trace` as gzipped JSON, which ui.perfetto.dev opens as it is.

    Equal schedules give equal files.

    Raises:
        OSError: the file cannot be written.
    """
    text = json.dumps(chrome_trace(slices, title), separators=(",", ":"))
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(text.encode(), mtime=0))


def timeline_svg(
    slices: Sequence[Slice],
    start: int = 0,
    end: int | None = None,
    width: int = 720,
) -> str:
    """A window of a schedule as a small SVG, one row per track.

    Names are tooltips, and stand in the slice where there is room.

    Args:
        slices: busy intervals, in any order.
        start: first cycle shown.
        end: one past the last cycle shown; None: the end of the schedule.
        width: of the picture, in pixels.

    Raises:
        ValueError: slices overlap, or the window is empty.
    """
    tracks = _checked(slices)
    last = max((piece.end for piece in slices), default=0) if end is None else end
    if last <= start:
        raise ValueError(f"timeline_svg: the window {start}..{last} is empty")
    label_width, row, gap = 84, 16, 6
    height = len(tracks) * (row + gap) + 24
    scale = (width - label_width - 8) / (last - start)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="11">',
        f"<title>cycles {start} to {last}</title>",
    ]
    for number, (track, ordered) in enumerate(tracks.items()):
        y = number * (row + gap) + 2
        parts.append(f'<text x="0" y="{y + 12}" fill="#333">{escape(track)}</text>')
        for piece in ordered:
            left, right = max(piece.start, start), min(piece.end, last)
            if left >= right:
                continue
            x, wide = label_width + (left - start) * scale, (right - left) * scale
            parts.append(
                f'<rect x="{x:.2f}" y="{y}" width="{wide:.2f}" height="{row}" '
                f'fill="{COLOURS[number % len(COLOURS)]}" stroke="white" '
                f'stroke-width="0.5"><title>{escape(piece.name)}: cycles '
                f"{piece.start} to {piece.end}</title></rect>"
            )
            if len(piece.name) * LETTER < wide:
                parts.append(
                    f'<text x="{x + 3:.2f}" y="{y + 12}" fill="white" '
                    f'pointer-events="none">{escape(piece.name)}</text>'
                )
    for share, anchor in ((0, "start"), (0.5, "middle"), (1, "end")):
        cycle = start + share * (last - start)
        parts.append(
            f'<text x="{label_width + (cycle - start) * scale:.2f}" y="{height - 8}" '
            f'text-anchor="{anchor}" fill="#333">{cycle:,.0f} cycles</text>'
        )
    return "\n".join([*parts, "</svg>\n"])


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
