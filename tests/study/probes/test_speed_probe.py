"""The speed probe of a study, its section of the report, and the bench's tables."""

import json
from types import SimpleNamespace

import pytest
import torch

import elision
from elision import methods
from elision.cli.bench import bench as bench_command
from elision.engines import bench as module
from elision.engines import roofline
from elision.engines.bench import BenchRow
from elision.engines.native import library
from elision.engines.roofline import Ceilings
from elision.study.page.sections.speed import speed
from elision.study.probes import Speed, Trained
from elision.workloads import Workload

TINY = Workload(
    name="digits-tiny",
    dataset="digits",
    model="cnn",
    epochs=1,
    train_images=200,
    test_images=50,
)


def trained(method):
    torch.manual_seed(0)
    dataset = TINY.load_dataset()
    model = elision.elide(TINY.make_model(dataset), method, engine="torch")
    return Trained(model.train(), method, TINY, dataset, seed=0)


@pytest.mark.parametrize(
    "method", [methods.Swat(sparsity=0.8), methods.RigL(sparsity=0.8), methods.Dense()]
)
def test_each_way_is_timed_on_the_trained_model(tmp_path, monkeypatch, method):
    library.unavailable()  # the kernels are built before the cache is another
    monkeypatch.setenv("ELISION_CACHE", str(tmp_path))
    subject = trained(method)
    before = {k: v.clone() for k, v in subject.model.state_dict().items()}
    threads = torch.get_num_threads()
    found = Speed(rounds=3, batch=16, threads=2).run(subject)
    assert torch.get_num_threads() == threads
    assert json.loads(json.dumps(found)) == found
    assert list(found["seconds"]) == ["dense", "masked", "engine"]
    assert all(s > 0 for s in found["seconds"].values())
    assert (found["batch"], found["threads"]) == (16, 2)
    for name, value in subject.model.state_dict().items():
        assert torch.equal(value, before[name])


def test_what_is_timed_is_the_workload_s_own_step(tmp_path, monkeypatch):
    library.unavailable()
    monkeypatch.setenv("ELISION_CACHE", str(tmp_path))
    made = []
    make = Workload.make_optimizer

    def spy(workload, *args, **kwargs):
        optimizer = make(workload, *args, **kwargs)
        made.append((workload.batch_size, optimizer.defaults["nesterov"]))
        return optimizer

    monkeypatch.setattr(Workload, "make_optimizer", spy)
    found = Speed(rounds=3).run(trained(methods.Swat(sparsity=0.8)))
    assert TINY.nesterov
    assert made == [(TINY.batch_size, True)] * 3
    assert found["batch"] == TINY.batch_size


def test_parameters_out_of_range():
    for wrong in ({"rounds": 2}, {"batch": -1}, {"threads": -1}):
        with pytest.raises(ValueError, match=rf"speed\({next(iter(wrong))}="):
            Speed(**wrong)


def test_the_section_keeps_measured_and_simulated_apart():
    def outcome(spec, cycles, seconds):
        cost = SimpleNamespace(cycles=cycles)
        row = SimpleNamespace(accelerator="ant", product="forward", cost=cost)
        row.cost = type("Cost", (), {"cycles": cycles, "__add__": lambda a, b: a})()
        found = {
            "seconds": dict(zip(("dense", "masked", "engine"), seconds, strict=True)),
            "dense_over_engine_spread": 0.25,
            "batch": 32,
            "threads": 1,
            "clock": "CPU",
            "kernels": "native",
            "decided": ["step of Net: network"],
        }
        return SimpleNamespace(spec=spec, costs=[row], findings={"speed": found})

    outcomes = [outcome("dense", 800, (1, 1, 1)), outcome("swat", 200, (1, 2, 0.5))]
    section = speed(SimpleNamespace(outcomes=outcomes))
    assert section.tag == "measured here"
    assert "2.00 ± 0.25" in section.sheets[0]
    assert '<th scope="col">simulated, ant</th>' in section.sheets[0]
    assert "4.00x" in section.sheets[0]
    assert "step of Net: network" in section.sheets[1]
    for o in outcomes:
        o.findings = {}
    assert speed(SimpleNamespace(outcomes=outcomes)) is None


def test_bench_prints_break_even_points_and_ratios(monkeypatch, capsys, tmp_path):
    def row(sparsity, ratio):
        return BenchRow(
            layer="conv 64",
            product="forward",
            sparsity=sparsity,
            sparse_seconds=1.0,
            dense_seconds=ratio,
            bf16_seconds=ratio / 2,
            sparse_gflops=50.0,
            dense_gflops=100.0,
            bf16_gflops=200.0,
            ratio=ratio,
            ratio_bf16=ratio / 2,
            spread=0.1,
            break_even=0.0,
            break_even_bf16=0.83,
            error=1e-7,
            intensity=85.3,
            bound="compute",
            dense_of_roof=0.87,
        )

    monkeypatch.setattr(module, "bench", lambda **_: [row(0.8, 1.5), row(0.9, 3.0)])
    here = Ceilings(115.0, 20.0, 100.0, 5.0, threads=1)
    monkeypatch.setattr(roofline, "measured_ceilings", lambda: here)
    threads = torch.get_num_threads()
    try:
        bench_command(out=tmp_path / "rows.json")
    finally:
        torch.set_num_threads(threads)
    told = capsys.readouterr().out
    assert "< 80%" in told
    assert "83%" in told
    assert "3.00 ± 0.10" in told
    assert "compute, at 87%" in told
    assert "5.75" in told  # the balance
    record = json.loads((tmp_path / "rows.json").read_text())
    assert [r["ratio"] for r in record["products"]] == [1.5, 3.0]
    assert record["machine"]["torch"] == torch.__version__
    assert record["ceilings"] == here.to_dict()
    with pytest.raises(ValueError, match=r"sparsity=1\.5"):
        bench_command(sparsity=(1.5,))
