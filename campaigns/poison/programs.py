"""Kinds of programs as text: listings of schedules, and loops that are to be proved."""

from importlib import resources
from pathlib import Path

from campaigns.poison.forms import TEXT
from campaigns.poison.kind import Kind, command, in_process

__all__ = ["KINDS"]


def _listing(folder: Path) -> None:
    shipped = resources.files("elision.accelerators.spatial.schedule") / "listings"
    for name in ("gemm.t2s", "conv.t2s"):
        text = (shipped / name).read_text("utf-8")
        (folder / name).write_text(text, encoding="utf-8")


_C = """assume(M >= 1);
float y[M];
for (int i = 0; i < M; ++i) {
    y[i] = 0;
    for (int k = 0; k < 4; ++k)
        if (i + k < M) y[i] += a[i][k] * x[i + k];
}
"""

_PYTHON = """V = 4
for i in range(M):
    y[i] = 0
    for k in range(V):
        h = i + k
        if h < M:
            y[i] += a[i, k] * x[h]
"""


def _programs(folder: Path) -> None:
    (folder / "ours.c").write_text(_C, encoding="utf-8")
    (folder / "ours.py").write_text(_PYTHON, encoding="utf-8")


def _proved(folder: Path) -> str:
    from elision.verify import equivalent

    texts = [(folder / name).read_text("utf-8") for name in ("ours.c", "ours.py")]
    return equivalent(*texts, sizes={"M": 3}, limit_s=2.0).status


KINDS = (
    *(
        Kind(
            f"listing of {name}",
            _listing,
            (f"{name}.t2s",),
            command("map", "--schedule", f"{{}}/{name}.t2s", "--code", "cpp"),
            TEXT,
        )
        for name in ("gemm", "conv")
    ),
    Kind("loop program", _programs, ("ours.*",), in_process(_proved), TEXT),
)
