"""Sweeps: what is counted, and that a killed one goes on with the same rows."""

import json
import re
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from elision.accelerators import Ant, Cost, Dense, Scnn, Systolic
from elision.accelerators.design.rows import Row, by_product
from elision.accelerators.design.sweep import (
    COLUMNS,
    Machine,
    Recorded,
    as_frame,
    machines,
    read_rows,
    sweep,
)
from elision.accelerators.energy import shipped_text
from elision.accelerators.step import training_products
from elision.products import (
    OPERANDS,
    Conv2dGeometry,
    MatmulGeometry,
    Trace,
    synthetic_products,
)

NETWORKS = {
    "small": [("conv", Conv2dGeometry(1, 2, 8, 8, 3, 3, 1, 1))],
    "linear": [("fc", MatmulGeometry(2, 30, 10)), ("out", MatmulGeometry(2, 10, 4))],
}
SPARSITIES = (0.5, 0.9)
MACHINES = machines(["ant", "scnn", "dense"], {"multipliers": [2, 4], "window": [8]})


def rows_of(path):
    return sorted(tuple(row[c] for c in COLUMNS) for row in read_rows(path))


def totals(path: Path) -> list[Row]:
    """The sums, a row a machine."""
    return [row for row in read_rows(path) if row["product"] == "all"]


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
    layers = sum(map(len, NETWORKS.values()))
    # Three products a layer, less the input gradient of the first, and the sum.
    each = 3 * layers - len(NETWORKS) + len(NETWORKS)
    assert len(rows) == len(SPARSITIES) * len(MACHINES) * each
    costs = {}
    for product in training_products(synthetic_products(NETWORKS["linear"], 0.9)):
        costs[product.name, product.kind.value] = Scnn(multipliers=2).cost(product)
    costs["all", "all"] = sum(costs.values(), start=Cost())
    wanted = ("linear", "0.9", "0", "scnn:multipliers=2", "256")
    names = ("network", "sparsity", "seed", "machine", "multiplier_count")
    found = [r for r in rows if tuple(r[c] for c in names) == wanted]
    assert [(row["layer"], row["product"]) for row in found] == list(costs)
    for row, cost in zip(found, costs.values(), strict=True):
        assert int(row["cycles"]) == cost.cycles
        assert float(row["energy_on_chip_pj"]) == cost.energy_pj
        assert row["energy_dram_pj"] == row["energy_pj"] == ""
        assert row["parameter_multipliers"] == "2"
        assert row["parameter_window"] == ""


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
    path = tmp_path / "s.csv"
    sweep(small, [0.5], chosen, path, first_input_grad=True, workers=1)
    rows = read_rows(path)
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
    parameters = ["parameter_multipliers", "parameter_window"]
    assert list(frame.columns) == [*COLUMNS, *parameters]
    assert set(frame["parameter_window"]) == {8}
    total = frame[frame["product"] == "all"]["cycles"].sum()
    parts = frame[frame["product"] != "all"]["cycles"].sum()
    assert total == parts > 0


def test_another_file_is_not_overwritten(tmp_path):
    path = tmp_path / "notes.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="not a sweep's file"):
        sweep(NETWORKS, SPARSITIES, MACHINES, path)
    assert path.read_text() == "a,b\n1,2\n"


SMALL = {"small": NETWORKS["small"]}
#: As much work as SMALL, in another shape.
RESHAPED = {"small": [("conv", Conv2dGeometry(1, 2, 4, 16, 3, 3, 1, 1))]}


def edit_layers(path: Path) -> None:
    sweep(RESHAPED, [0.5], machines(["dense", "ant"]), path, workers=1)


def fresh(count, tmp_path: Path) -> list[tuple[str, ...]]:
    """The rows that ``count`` gives in a file of its own."""
    path = tmp_path / "fresh.csv"
    path.unlink(missing_ok=True)
    count(path)
    return rows_of(path)


def test_an_edited_network_is_counted_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s.csv"
    sweep(SMALL, [0.5], machines(["dense", "ant"]), path, workers=1)
    before = rows_of(path)
    edit_layers(path)
    assert rows_of(path) == fresh(edit_layers, tmp_path) != before
    (told,) = caplog.records
    assert "its rows of small were counted from something else" in told.getMessage()


@pytest.mark.parametrize("name", ["s.csv", "s.json"])
def test_an_edited_trace_is_counted_again(tmp_path: Path, name: str) -> None:
    trace = tmp_path / "t.safetensors"

    def count(path: Path) -> None:
        recorded = {"t": Recorded(str(trace))}
        sweep(recorded, [0.5], machines(["scnn"]), path, workers=1)

    found = []
    for sparsity in (0.5, 0.9):
        Trace.of(synthetic_products(NETWORKS["small"], sparsity)).save(trace)
        count(tmp_path / name)
        found.append(rows_of(tmp_path / name))
        assert found[-1] == fresh(count, tmp_path)
    assert found[0] != found[1]


def test_an_edited_energy_table_is_read_again(tmp_path: Path) -> None:
    table = tmp_path / "mine.toml"
    found = []
    for price in ("3.7", "5.5"):
        text = shipped_text("horowitz-45nm")
        table.write_text(text.replace("multiply = 3.7 ", f"multiply = {price} "))
        chosen = machines(["ant", "systolic"], {"energy": [str(table)]})
        rows = totals(sweep(SMALL, [0.5], chosen, tmp_path / "s.csv", workers=1))
        assert len(rows) == 2
        found.append([float(row["energy_on_chip_pj"]) for row in rows])
    assert all(dearer > cheaper for cheaper, dearer in zip(*found, strict=True))


def test_another_rule_or_version_is_counted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.csv"
    sweep(SMALL, [0.5], machines(["dense"]), path, workers=1)
    (old,) = totals(path)
    monkeypatch.setattr("elision.accelerators.design.sweep._version", lambda: "next")
    sweep(SMALL, [0.5], machines(["dense"]), path, workers=1)
    (new,) = totals(path)
    assert old["content"] != new["content"]
    sweep(SMALL, [0.5], machines(["dense"]), path, first_input_grad=True, workers=1)
    with_gradient = totals(path)
    assert [row["first_input_grad"] for row in with_gradient] == ["no", "yes"]
    assert (
        int(with_gradient[1]["cycles"])
        == 3 * Dense().cost(next(iter(synthetic_products(NETWORKS["small"], 0)))).cycles
    )


@pytest.mark.parametrize(
    "sparsities",
    [
        (0.9, 0.90, 9e-1),
        (0, -0.0, {}),
        (0.5, dict.fromkeys(OPERANDS, 0.5)),
    ],
)
def test_equal_sparsities_are_counted_once(tmp_path: Path, sparsities: tuple) -> None:
    path = sweep(SMALL, sparsities, machines(["ant"]), tmp_path / "s.csv", workers=1)
    assert len(totals(path)) == 1
    sweep(SMALL, sparsities[::-1], machines(["ant"]), path, workers=1)
    assert len(totals(path)) == 1


def test_equal_machines_are_counted_once(tmp_path: Path) -> None:
    specs = ["ant", "ant:multipliers=4", "ant:window=16", "ant:window=16,multipliers=4"]
    path = sweep(SMALL, [0.5], machines(specs), tmp_path / "s.csv", workers=1)
    assert [row["machine"] for row in totals(path)] == ["ant"]


def test_sweeps_at_the_same_time_double_no_row(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    with ThreadPoolExecutor(4) as pool:
        runs = [
            pool.submit(sweep, NETWORKS, SPARSITIES, MACHINES[i:], path, workers=1)
            for i in (0, 0, 2, 3)
        ]
        for run in runs:
            run.result()
    whole = sweep(NETWORKS, SPARSITIES, MACHINES, tmp_path / "whole.csv", workers=1)
    assert rows_of(path) == rows_of(whole)
    assert {entry.name for entry in tmp_path.iterdir()} == {"s.csv", "whole.csv"}


def test_json_holds_the_rows_of_csv(tmp_path: Path) -> None:
    chosen = machines(["ant", "systolic"], {"window": [8]})
    text = sweep(NETWORKS, SPARSITIES, chosen, tmp_path / "s.csv", workers=1)
    objects = sweep(NETWORKS, SPARSITIES, chosen, tmp_path / "s.json", workers=1)
    assert rows_of(text) == rows_of(objects)
    first = json.loads(objects.read_text())[0]
    assert (first["layer"], first["sparsity"], first["seed"]) == ("conv", 0.5, 0)
    assert first["parameter_window"] == 8
    assert first["stall_cycles"] is None
    sweep(NETWORKS, SPARSITIES, chosen, objects, workers=1)
    assert rows_of(text) == rows_of(objects)
    objects.write_text("{}")
    with pytest.raises(ValueError, match=r"s\.json: not a sweep's file"):
        sweep(NETWORKS, SPARSITIES, chosen, objects)


def test_layers_add_to_products_and_to_all(tmp_path: Path) -> None:
    for name in ("scnn", "intergrad"):
        chosen = machines([name])
        path = sweep(NETWORKS, [0.5], chosen, tmp_path / f"{name}.csv", workers=1)
        rows = [row for row in read_rows(path) if row["network"] == "linear"]
        *products, total = by_product(rows)
        assert total == rows[-1]
        for column in ("cycles", "multiplies", "dense_macs", "multiplier_slots"):
            assert sum(int(row[column]) for row in products) == int(total[column])


def test_a_sparsity_for_each_operand(tmp_path: Path) -> None:
    share = {"input": 0.5, "weight": 0.9}
    path = sweep(NETWORKS, [share], machines(["scnn"]), tmp_path / "s.csv", workers=1)
    row = totals(path)[1]
    shares = [row[f"{name}_sparsity"] for name in ("input", "weight", "grad_output")]
    assert (row["sparsity"], *shares) == ("", "0.5", "0.9", "0.0")
    products = training_products(synthetic_products(NETWORKS["linear"], share))
    assert int(row["cycles"]) == sum(Scnn().cost(p).cycles for p in products)
    with pytest.raises(ValueError, match=r"unknown operand 'weights' .*'weight'"):
        sweep(NETWORKS, [{"weights": 0.5}], MACHINES, tmp_path / "x.csv")


@pytest.mark.parametrize("workers", [0, -1, 1.5])
def test_workers_out_of_range_are_named(tmp_path: Path, workers: float) -> None:
    match = re.escape(f"sweep(workers={workers}): must be an integer >= 1")
    with pytest.raises(ValueError, match=match):
        sweep(NETWORKS, [0.5], MACHINES, tmp_path / "s.csv", workers=workers)  # pyright: ignore[reportArgumentType]
    assert not list(tmp_path.iterdir())


def test_nothing_to_count_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="empty: layer list: it has no rows"):
        sweep({"empty": []}, [0.5], MACHINES, tmp_path / "s.csv")
    Trace().save(tmp_path / "t.safetensors")
    recorded = {"t": Recorded(str(tmp_path / "t.safetensors"))}
    with pytest.raises(ValueError, match="t: no product to cost"):
        sweep(recorded, [0.5], MACHINES, tmp_path / "s.csv", workers=1)
    for nothing in (({}, [0.5], MACHINES), (SMALL, [], MACHINES), (SMALL, [0.5], [])):
        with pytest.raises(
            ValueError, match="give a network, a sparsity and a machine"
        ):
            sweep(*nothing, tmp_path / "s.csv")
    assert not (tmp_path / "s.csv").exists()


def test_value_blind_machines_draw_no_operands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("operands were drawn")

    monkeypatch.setattr("elision.accelerators.design.sweep.synthetic_products", refuse)
    large = {"1080p": [("conv", Conv2dGeometry(8, 64, 1080, 1920, 64, 3, 1, 1))]}
    blind = machines(["dense", "systolic", "intergrad", "systolic-mixed"])
    tracemalloc.start()
    path = sweep(large, [0.9], blind, tmp_path / "s.csv", workers=1)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
    assert len(totals(path)) == len(blind)


ALL_MACHINES = ("ant", "scnn", "dense", "systolic", "systolic-mixed", "intergrad")


def test_elements_give_every_machine_as_many_multipliers() -> None:
    names = [*ALL_MACHINES, "one-sided", "intersection", "intersection:lanes=4"]
    found = machines(names, {"elements": [16, 36], "multipliers": [2, 4]})
    counts: dict[str, list[int | None]] = {}
    for machine in found:
        counts.setdefault(machine.name, []).append(machine.build().multiplier_count)
    expected = [16 * 4, 16 * 16, 36 * 4, 36 * 16]
    assert counts.pop("intersection") == 2 * expected
    assert counts == dict.fromkeys([*ALL_MACHINES, "one-sided"], expected)


def test_machines_as_they_are_have_equally_many_multipliers() -> None:
    counts = {m.build().multiplier_count for m in machines(ALL_MACHINES)}
    assert counts == {1024}


def test_an_array_of_given_sides_is_not_resized() -> None:
    found = machines(["systolic:rows=8", "ant"], {"elements": [16]})
    assert found[0].build() == Systolic(8)


@pytest.mark.parametrize(
    ("names", "grid", "message"),
    [
        (
            ["dense"],
            {"multipliers": [2]},
            "multipliers=2 would be ignored: dense lacks",
        ),
        (["ant:window=8"], {"window": [4, 8]}, "window=4, 8 would be ignored: ant"),
        (
            ["systolic:rows=4"],
            {"elements": [4]},
            "elements=4 would be ignored: systolic",
        ),
        (
            ["ant:energy=aladdin-40nm"],
            {"energy": ["horowitz-45nm"]},
            "would be ignored",
        ),
        (["systolic"], {"elements": [0]}, r"elements=0\): must be an integer >= 1"),
        (["intersection:lanes=3"], {"elements": [2]}, "no whole number of elements"),
    ],
)
def test_no_value_of_a_grid_is_ignored(
    names: list[str], grid: dict[str, list], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        machines(names, grid)
