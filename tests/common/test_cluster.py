"""A sweep on a Ray cluster that is started here; runs where Ray is installed."""

import socket

import pytest

from elision.accelerators import Dense
from elision.accelerators.design.sweep import machines, read_rows, sweep
from elision.common.cluster import RayExecutor
from elision.products import MatmulGeometry

ray = pytest.importorskip("ray")

NETWORKS = {"linear": [("fc", MatmulGeometry(2, 30, 10))]}


def test_an_address_where_nothing_listens():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ConnectionError, match=f"no Ray cluster at 127.0.0.1:{port}"):
        RayExecutor(f"127.0.0.1:{port}")


@pytest.mark.filterwarnings("ignore")  # Ray's own start-up warns
def test_same_rows_as_without(tmp_path):
    chosen = machines(["dense", "scnn", "ant"])
    here = sweep(NETWORKS, [0.5, 0.9], chosen, tmp_path / "here.csv", workers=1)
    with RayExecutor("local", num_cpus=1, include_dashboard=False) as pool:
        there = sweep(
            NETWORKS, [0.5, 0.9], chosen, tmp_path / "there.csv", executor=pool
        )
        assert pool.submit(Dense).result() == Dense()

    def rows(path):
        return sorted(map(str, read_rows(path)))

    assert rows(here) == rows(there)
