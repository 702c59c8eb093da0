"""Sweeps: what is counted, and that a killed one goes on with the same rows."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from elision.accelerators import Ant, Cost, Scnn
from elision.accelerators.design.sweep import (
    COLUMNS,
    Machine,
    Recorded,
    as_frame,
    machines,
    read_rows,
    sweep,
)
from elision.products import Conv2dGeometry, MatmulGeometry, Trace, synthetic_products

NETWORKS = {
    "small": [("conv", Conv2dGeometry(1, 2, 8, 8, 3, 3, 1, 1))],
    "linear": [("fc", MatmulGeometry(2, 30, 10)), ("out", MatmulGeometry(2, 10, 4))],
}
SPARSITIES = (0.5, 0.9)
MACHINES = machines(["ant", "scnn", "dense"], {"multipliers": [2, 4], "window": [8]})


def rows_of(path):
    return sorted(tuple(row[c] for c in COLUMNS) for row in read_rows(path))


def test_grid_skips_parameters_that_a_machine_lacks():
    expected = [
        Machine("ant", (("multipliers", 2), ("window", 8))),
        Machine("ant", (("multipliers", 4), ("window", 8))),
        Machine("scnn", (("multipliers", 2),)),
        Machine("scnn", (("multipliers", 4),)),
        Machine("dense"),  # its multipliers are not the side of an array
    ]
    assert expected == MACHINES
    assert MACHINES[0].build() == Ant(multipliers=2, window=8)


def test_specs_and_elements():
    """What a spec fixes is not swept; so many elements are the squarest grid."""
    found = machines(["scnn", "scnn:grid=2x8", "ant:elements=16"], {"elements": [32]})
    assert [machine.build() for machine in found] == [
        Scnn(grid=(4, 8)),
        Scnn(grid=(2, 8)),
        Ant(elements=16),
    ]


def test_rows_are_the_machines_own_costs(tmp_path):
    path = sweep(NETWORKS, SPARSITIES, MACHINES, tmp_path / "s.csv", workers=1)
    rows = read_rows(path)
    assert len(rows) == len(NETWORKS) * len(SPARSITIES) * len(MACHINES) * 4
    cost = Cost()
    for product in synthetic_products(NETWORKS["linear"], 0.9):
        cost += Scnn(multipliers=2).cost(product)
    wanted = ("linear", "0.9", "0", "scnn", '{"multipliers": 2}', "all")
    (row,) = [r for r in rows if tuple(r[c] for c in COLUMNS[:6]) == wanted]
    assert int(row["cycles"]) == cost.cycles
    assert float(row["energy_pj"]) == cost.energy_pj


def test_processes_and_executors_give_the_same_rows(tmp_path):
    alone = sweep(NETWORKS, SPARSITIES, MACHINES, tmp_path / "1.csv", workers=1)
    shared = sweep(NETWORKS, [0.5], MACHINES, tmp_path / "2.csv", workers=2)
    with ThreadPoolExecutor(2) as pool:
        sweep(NETWORKS, SPARSITIES, MACHINES, shared, executor=pool)
    assert rows_of(alone) == rows_of(shared)


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.5, 0.77, 1.0])
def test_a_torn_file_is_completed(tmp_path, kept):
    whole = sweep(NETWORKS, SPARSITIES, MACHINES, tmp_path / "whole.csv", workers=1)
    text = whole.read_bytes()
    torn = tmp_path / "torn.csv"
    header = text.index(b"\n") + 1
    torn.write_bytes(text[: max(header, int(len(text) * kept))])
    counted = []
    sweep(
        NETWORKS,
        SPARSITIES,
        MACHINES,
        torn,
        workers=1,
        progress=lambda done, total: counted.append((done, total)),
    )
    assert rows_of(torn) == rows_of(whole)
    # Units that were complete are not counted again.
    assert counted[-1][1] <= round(4 * (1 - kept) + 1)


def test_more_machines_later(tmp_path):
    path = tmp_path / "s.csv"
    sweep(NETWORKS, SPARSITIES, MACHINES[:2], path, workers=1)
    before = rows_of(path)
    sweep(NETWORKS, SPARSITIES, MACHINES, path, workers=1)
    assert set(before) < set(rows_of(path))
    again = path.read_bytes()
    sweep(NETWORKS, SPARSITIES, MACHINES, path, workers=1)
    assert path.read_bytes() == again


@pytest.mark.parametrize(
    ("names", "grid", "message"),
    [
        (["antt"], {}, "did you mean 'ant'"),
        (["ant"], {"windw": [4]}, "did you mean 'window'"),
        (["ant"], {"window": [0]}, "window=0"),
    ],
)
def test_mistakes_are_found_before_the_work(names, grid, message):
    with pytest.raises(ValueError, match=message):
        machines(names, grid)


def test_a_trace_is_counted_once_with_its_own_operands(tmp_path):
    recorded = list(synthetic_products(NETWORKS["small"], 0.7))
    trace = Trace.of(recorded)
    trace.extend(Trace.of(recorded[:1]), prefix="other/", recipe="swat")
    trace.save(tmp_path / "t.safetensors")
    sources = {
        "all of it": Recorded(str(tmp_path / "t.safetensors")),
        "one recipe": Recorded(str(tmp_path / "t.safetensors"), "swat"),
        **NETWORKS,
    }
    path = sweep(sources, SPARSITIES, MACHINES[:1], tmp_path / "s.csv", workers=1)
    rows = [row for row in read_rows(path) if row["product"] == "all"]
    assert [(row["network"], row["sparsity"]) for row in rows] == [
        ("all of it", ""),
        ("one recipe", ""),
        *((name, str(sparsity)) for name in NETWORKS for sparsity in SPARSITIES),
    ]
    ant = MACHINES[0].build()
    once = sum(ant.cost(product).cycles for product in recorded)
    assert int(rows[0]["cycles"]) == once + ant.cost(recorded[0]).cycles
    assert int(rows[1]["cycles"]) == ant.cost(recorded[0]).cycles
    found = read_rows(path)
    only = [row["product"] for row in found if row["network"] == "one recipe"]
    assert only == [recorded[0].kind.value, "all"]
    sweep(sources, SPARSITIES, MACHINES[:1], path, workers=1)
    assert read_rows(path) == found


def test_interleaved_gradients_are_one_row(tmp_path):
    small = {"small": NETWORKS["small"]}
    chosen = machines(["intergrad:buffers=8@0.1", "systolic-mixed"])
    rows = read_rows(sweep(small, [0.5], chosen, tmp_path / "s.csv", workers=1))
    together, apart = (
        {row["product"]: row for row in rows if row["accelerator"] == machine.name}
        for machine in chosen
    )
    assert list(together) == ["forward", "input_grad+weight_grad", "all"]
    pair = int(together["input_grad+weight_grad"]["cycles"])
    separate = [int(apart[name]["cycles"]) for name in ("input_grad", "weight_grad")]
    assert 0 < pair < sum(separate)
    assert together["all"]["dense_macs"] == apart["all"]["dense_macs"]
    stalls = [int(row["stall_cycles"]) for row in together.values()]
    assert stalls[-1] == sum(stalls[:-1]) > 0  # a slow memory


def test_machines_without_a_memory_have_no_stalls(tmp_path):
    small = {"small": NETWORKS["small"]}
    rows = read_rows(sweep(small, [0.5], MACHINES[:1], tmp_path / "s.csv", workers=1))
    assert {row["stall_cycles"] for row in rows} == {""}


def test_machines_are_shared_out_where_units_are_few(tmp_path):
    units = []
    small = {"small": NETWORKS["small"]}
    with ThreadPoolExecutor(3) as pool:
        path = sweep(
            small,
            [0.5],
            MACHINES,
            tmp_path / "s.csv",
            workers=3,
            executor=pool,
            progress=lambda done, total: units.append(total),
        )
    assert units[0] == 3
    alone = sweep(small, [0.5], MACHINES, tmp_path / "1.csv", workers=1)
    assert rows_of(path) == rows_of(alone)


def test_rows_of_another_network_of_the_same_name_are_refused(tmp_path):
    path = sweep(NETWORKS, [0.5], MACHINES[:1], tmp_path / "s.csv", workers=1)
    before = path.read_bytes()
    larger = {"small": [("conv", Conv2dGeometry(1, 2, 9, 9, 3, 3, 1, 1))]}
    with pytest.raises(ValueError, match="rows of 'small' are of other layers"):
        sweep(larger, [0.5], MACHINES[:1], path, workers=1)
    assert path.read_bytes() == before


def test_a_sparsity_out_of_range_is_found_before_the_work(tmp_path):
    with pytest.raises(
        ValueError, match=r"sparsity=1.5\): must be a number in \[0, 1\)"
    ):
        sweep(NETWORKS, [0.5, 1.5], MACHINES, tmp_path / "s.csv")
    assert not (tmp_path / "s.csv").exists()


def test_frame(tmp_path):
    pandas = pytest.importorskip("pandas")
    path = sweep(NETWORKS, [0.5], MACHINES[:1], tmp_path / "s.csv", workers=1)
    frame = as_frame(path)
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == list(COLUMNS)
    total = frame[frame["product"] == "all"]["cycles"].sum()
    parts = frame[frame["product"] != "all"]["cycles"].sum()
    assert total == parts > 0


def test_another_file_is_not_overwritten(tmp_path):
    path = tmp_path / "notes.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="not a sweep's file"):
        sweep(NETWORKS, SPARSITIES, MACHINES, path)
    assert path.read_text() == "a,b\n1,2\n"
