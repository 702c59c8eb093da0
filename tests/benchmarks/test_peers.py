"""The command that measures other libraries beside this one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.peers.__main__ import told
from benchmarks.peers.base import OURS, PEERS, Agreement, Work, load
from benchmarks.peers.environment import last_line
from benchmarks.peers.worker import measured

ROOT = Path(__file__).parents[2]


def test_a_peer_is_compared_from_end_to_end(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.peers", "save_on_cpu", "--small"]
    command += ["--rounds", "2", "--cache", str(tmp_path), "--out", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    row = json.loads((tmp_path / "save_on_cpu.json").read_text("utf-8"))
    assert row["reason"] == ""
    assert row["machine"]["threads"] == 1
    (work,) = row["works"]
    assert [a["error"] for a in work["agreement"]] == [0.0, 0.0, 0.0]
    sides = work["sides"]
    assert sides.keys() >= {OURS, "save_on_cpu", "torch dense"}
    for side in sides.values():
        assert len(side["seconds"]) == 2
        assert side["quartiles"] == sorted(side["quartiles"])
    assert sides[OURS]["over"][OURS] == [1.0, 1.0, 1.0]
    # On a CPU it keeps every tensor as it is; the codecs of this library do not.
    peaks = {name: figures["peak MiB"] for name, figures in work["figures"].items()}
    assert peaks[f"{OURS}, bits(4)"] < peaks["save_on_cpu"]
    assert all(name in told(row) for name in sides)
    assert told(row) in done.stdout


def test_what_does_not_agree_is_not_timed() -> None:
    calls: list[str] = []
    sides = {OURS: lambda: calls.append("ours"), "peer": lambda: calls.append("peer")}
    row = measured(Work("sums", sides, (Agreement("the sum", 0.5, 0.1),)), rounds=3)
    assert "sides" not in row
    assert calls == []
    agreeing = Work("sums", sides, (Agreement("the sum", 0.1, 0.1),), rounds=2)
    assert len(measured(agreeing, rounds=3)["sides"]["peer"]["seconds"]) == 2
    assert not Agreement("not a number", float("nan"), 1.0).holds


def test_every_peer_says_what_it_is_and_how_it_is_installed() -> None:
    for name in PEERS:
        # Its package is not imported before its work is made.
        peer = load(name)
        assert peer.title
        assert peer.about
        assert (peer.works is None) == bool(peer.uncompared)
        assert bool(peer.distribution) == bool(peer.requirements or peer.source)
    with pytest.raises(
        ValueError, match=r"no peer 'sparsprop'; there are .*sparseprop"
    ):
        load("sparsprop")


def test_the_reason_is_the_last_line_that_says_what_went_wrong() -> None:
    output = """\
Collecting mine
  error: subprocess-exited-with-error
  × Getting requirements to build wheel did not run successfully.
      RuntimeError: CUDA_HOME is not set

      [end of output]
  note: This error originates from a subprocess, and is likely not a problem with pip.
ERROR: Failed to build 'mine' when getting requirements to build wheel
"""
    assert last_line(output) == "RuntimeError: CUDA_HOME is not set"
    assert last_line("ERROR: No matching distribution found for mine\n") == (
        "ERROR: No matching distribution found for mine"
    )
    assert last_line("killed\n") == "killed"
