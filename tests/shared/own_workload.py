"""Data and a network as a user has them: a folder of pictures, and a module."""

from pathlib import Path

from PIL import Image

__all__ = ["write_own_workload"]

_NET = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, num_classes, width=4):
        super().__init__(
            nn.Conv2d(3, width, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(width, num_classes),
        )
"""


def write_own_workload(folder: Path) -> None:
    """Write ``pictures``, two classes of ten, and ``mypkg/net.py`` with ``Net``."""
    for name, level in (("day", 200), ("night", 30)):
        (folder / "pictures" / name).mkdir(parents=True)
        for i in range(10):
            picture = Image.new("RGB", (16, 16), (level + i,) * 3)
            picture.save(folder / "pictures" / name / f"{i}.png")
    (folder / "mypkg").mkdir()
    (folder / "mypkg" / "net.py").write_text(_NET)
