"""Blocks of a campaign that were made, in memory or in the files of a folder."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from elision.common.files import load_tensors, save_tensors, taken_apart
from elision.faults.outcome import Trials

__all__ = ["KeptBlocks", "digest_of"]


def digest_of(model: nn.Module, data: Sequence[Tensor]) -> str:
    """A digest of a model's state and of tensors.

    Example:
        >>> len(digest_of(nn.Linear(1, 1), []))
        64
    """
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if isinstance(value, Tensor):
            digest.update(name.encode())
            digest.update(_bytes(value))
    for tensor in data:
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(x: Tensor) -> bytes:
    flat = x.detach().cpu().contiguous().view(-1)
    return flat.view(torch.uint8).numpy().tobytes()


def _check_mark(known: dict[str, Any], mark: dict[str, Any]) -> None:
    """Raise ValueError, with what is different, unless a campaign is this one."""
    if other := [name for name in mark if known.get(name) != mark[name]]:
        raise ValueError(
            f"a campaign with another {', '.join(other)}; give another folder"
        )


class KeptBlocks:
    """Trials by the number of their block.

    Args:
        folder: where every block is a file; None: in memory alone.
        mark: what the campaign is of, plain values.

    Raises:
        ValueError: the folder's blocks are of another campaign, or damaged.
    """

    def __init__(self, folder: Path | None, mark: dict[str, Any]) -> None:
        self._folder, self._mark = folder, json.loads(json.dumps(mark))
        self._blocks: dict[int, Trials] = {}
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.glob("block-*.safetensors")):
            tensors, facts = load_tensors(path, "block of a campaign")
            with taken_apart(path, "not a block of this campaign"):
                _check_mark(facts["campaign"], self._mark)
                columns = {f.name: tensors[f.name].tolist() for f in fields(Trials)}
                self._blocks[int(facts["number"])] = Trials(**columns)

    def __contains__(self, number: int) -> bool:
        return number in self._blocks

    def __getitem__(self, number: int) -> Trials:
        return self._blocks[number]

    def keep(self, number: int, trials: Trials) -> None:
        """Add a block."""
        self._blocks[number] = trials
        if self._folder is None:
            return
        columns = {n: torch.from_numpy(v) for n, v in trials.columns().items()}
        path = self._folder / f"block-{number:06d}.safetensors"
        save_tensors(path, columns, {"campaign": self._mark, "number": number})
