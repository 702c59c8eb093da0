"""The files that pages of the documentation take for a user's own."""

from pathlib import Path

import numpy as np
import pytest
from own_workload import write_own_workload

from elision.native.builder import cache_folder


@pytest.fixture
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that the pages take for a user's own."""
    monkeypatch.chdir(tmp_path)
    # The kernels that are built already; a page of its own would build them again.
    monkeypatch.setenv("ELISION_CACHE", str(cache_folder()))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.csv").write_text(
        "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, "
        "Channels, Num Filter, Strides,\nconv, 10, 10, 3, 3, 4, 8, 1,\n"
    )
    write_own_workload(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    cifar = tmp_path / "data" / "cifar-10-batches-bin"
    cifar.mkdir(parents=True)
    records = np.zeros((20, 3073), dtype=np.uint8)
    records[:, 0] = np.arange(20) % 10
    for name in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"):
        records.tofile(cifar / f"{name}.bin")
