"""A teacher's lessons on disk: computed once, read by every run that asks the same."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from elision.common.checks import integer
from elision.common.files import load_tensors, save_tensors

__all__ = ["LessonCache"]

#: Bytes that a folder of lessons may take unless more are given; own choice.
USUAL_BYTES = 256 * 2**20


class LessonCache:
    """Folder of tensors, one file a question; whole or absent, and bounded in bytes.

    A question is plain values: the digests of teacher and data, the seed, the epoch.
    Several processes may write the same file; they write the same bytes.

    Args:
        folder: made when something is written.
        limit_bytes: of all files together; what would exceed it is not written.

    Raises:
        ValueError: ``limit_bytes`` is no integer above or at 0.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cache = LessonCache(Path(folder), limit_bytes=2000)
        ...     cache.write({"epoch": 0}, {"scores": torch.ones(4)})
        ...     cache.write({"epoch": 1}, {"scores": torch.ones(4000)})
        ...     cache.read({"epoch": 0})["scores"].tolist(), cache.read({"epoch": 1})
        True
        False
        ([1.0, 1.0, 1.0, 1.0], None)
    """

    def __init__(self, folder: Path, limit_bytes: int = USUAL_BYTES) -> None:
        self.folder = folder
        self.limit_bytes = integer("LessonCache", "limit_bytes", limit_bytes, ">= 0")

    def _path(self, question: Mapping[str, Any]) -> Path:
        text = json.dumps(question, sort_keys=True)
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        return self.folder / f"lesson-{name}.safetensors"

    @property
    def room_bytes(self) -> int:
        """Bytes that may still be written."""
        held = sum(p.stat().st_size for p in self.folder.glob("lesson-*.safetensors"))
        return max(0, self.limit_bytes - held)

    def read(self, question: Mapping[str, Any]) -> dict[str, Tensor] | None:
        """The tensors of a question; None: it has not been answered.

        Raises:
            ValueError: the file is damaged.
        """
        path = self._path(question)
        if not path.is_file():
            return None
        tensors, facts = load_tensors(path, "lesson")
        return tensors if facts == json.loads(json.dumps(question)) else None

    def write(self, question: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bool:
        """Keep the tensors of a question; False: there is no room, and nothing is written.

        Raises:
            OSError: the file cannot be written; no temporary file remains.
        """
        if sum(t.nbytes for t in tensors.values()) > self.room_bytes:
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        # Two distillations may read one tensor, which a file holds twice.
        apart = {name: tensor.clone() for name, tensor in tensors.items()}
        save_tensors(self._path(question), apart, dict(question))
        return True
