"""Energy is counts times prices and nothing else; tables of one's own are checked."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from accelerator_oracles import GEOMETRIES, KINDS, pairs, random_product

from elision.accelerators import (
    ACCELERATORS,
    Ant,
    Dense,
    InterGrad,
    Intersection,
    OneSided,
    Scnn,
    Systolic,
    energy_table,
)
from elision.accelerators.design.grid import machines
from elision.accelerators.energy import prices_unused, shipped_text
from elision.accelerators.outer.planes import planes_of

TABLE = """
name = "mine"
node_nm = 7
source = "made up for this test"
register_pj = 0.5
dram_pj = 100.0

[energy_pj]
multiply = 2.0
add = 1.0
add_int32 = 0.25
compare = 0.125

[area_um2]
multiply = 1000.0
add = 100.0
add_int32 = 50.0
compare = 10.0

[sram_pj]
8 = 4.0
32 = 8.0
"""

MACHINES = (
    Ant,
    Dense,
    Intersection,
    OneSided,
    Scnn,
    lambda **how: Scnn(mapping="planar", **how),
)


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(TABLE)
    return str(path)


@pytest.mark.parametrize("build", MACHINES)
@pytest.mark.parametrize("kind", KINDS)
def test_energy_is_counts_times_prices(build, kind, mine):
    product = random_product(np.random.default_rng(0), kind, GEOMETRIES["same"])
    costs = {name: build(energy=name).cost(product) for name in ("aladdin-40nm", mine)}
    shipped, own = costs.values()
    # The table changes no count.
    assert (shipped.cycles, shipped.accesses) == (own.cycles, own.accesses)
    for cost in costs.values():
        counts = {**cost.operations, **cost.accesses}
        assert set(cost.energy_breakdown_pj) == set(counts)
        total = sum(n * cost.prices_pj[name] for name, n in counts.items())
        assert cost.energy_pj == pytest.approx(total)
    assert own.energy_breakdown_pj["multiply"] == 2.0 * own.multiplies


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_range_unit_saves_and_costs(kind):
    """ANT trades comparisons for multiplications and kernel reads."""
    product = random_product(np.random.default_rng(1), kind, GEOMETRIES["same"])
    scnn, ant = Scnn().cost(product), Ant().cost(product)
    for name in ("multiply", "coordinate"):
        assert ant.operations[name] <= scnn.operations[name]
    for name in ("kernel_buffer.read", "image_buffer.read"):
        assert ant.accesses[name] <= scnn.accesses[name]
    assert ant.operations["compare"] > 0 == scnn.operations["compare"]
    # Each group of four computes a range for each kernel plane: a low end per axis.
    met = [-(-len(left) // 4) for left, right in pairs(planes_of(product)) if right]
    assert ant.operations["bound"] == 2 * sum(met) > 0 == scnn.operations["bound"]
    for name in ("accumulator.read", "accumulator.write", "global_buffer.write"):
        assert ant.accesses[name] == scnn.accesses[name]


def test_sram_price_grows_with_capacity(mine):
    table = energy_table(mine)
    assert table.access_pj(8) == pytest.approx(4.0)
    assert table.access_pj(32) == pytest.approx(8.0)
    assert table.access_pj(16) == pytest.approx(math.sqrt(4.0 * 8.0))
    assert table.access_pj(128) == pytest.approx(16.0)  # the last segment, extended
    assert (table.access_pj(0), table.access_pj(math.inf)) == (0.5, 100.0)


def test_areas(mine):
    """One 4x4 element: 16 multipliers and adders, 32 coordinate subtractors."""
    product = random_product(np.random.default_rng(2), KINDS[0], GEOMETRIES["same"])
    arrays = 64 * (16 * 1000 + 16 * 100 + 32 * 50) / 1e6
    scnn, ant = Scnn(energy=mine), Ant(energy=mine)
    assert scnn.cost(product).area_mm2 == pytest.approx(arrays)
    # 2 x 16 window comparators, 2 x 3 for the group's columns, 2 subtractors; 8 bits.
    unit = (38 * 10 + 2 * 50) / 4 / 1e6
    assert ant.range_unit_area_mm2 == pytest.approx(unit)
    assert ant.cost(product).area_mm2 == pytest.approx(arrays + 64 * unit)
    wider = Ant(energy=mine, window=32, index_bits=16)
    assert wider.range_unit_area_mm2 == pytest.approx((70 * 10 + 100) / 2 / 1e6)


def test_a_table_without_areas_gives_none(mine, tmp_path):
    path = tmp_path / "flat.toml"
    path.write_text(without("area_um2"))
    product = random_product(np.random.default_rng(0), KINDS[0], GEOMETRIES["same"])
    for build in (*MACHINES, Systolic, InterGrad):
        cost = build(energy=str(path)).cost(product)
        assert cost.area_mm2 is None
        assert (cost + cost).area_mm2 is None
    assert Ant(energy=str(path)).range_unit_area_mm2 is None


def without(section: str) -> str:
    """The table less one of its sections."""
    return "".join(
        f"[{part}" if index else part
        for index, part in enumerate(TABLE.split("["))
        if not part.startswith(section)
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("compare = 0.125", "", "'mine' has no price for the action 'compare'"),
        ("compare = 10.0", "", "'mine' has areas, but none for 'compare'"),
        ("8 = 4.0\n32 = 8.0", "", "'mine' has no SRAM price"),
        ("node_nm = 7", "", "missing node_nm"),
        ("multiply = 2.0", "multiply = -2.0", "multiply must be a number >= 0"),
        ("add = 1.0", "add = nan", "add must be a number >= 0"),
        ("add = 1.0", 'add = "cheap"', "could not convert add = 'cheap' to a number"),
        ("add = 1.0", 'add = "1.0"', "could not convert add = '1.0' to a number"),
        ("add = 1.0", "add = true", "could not convert add = True to a number"),
        ("dram_pj = 100.0", 'dram_pj = "100"', "could not convert dram_pj = '100'"),
        ("register_pj = 0.5", "register_pj = nan", "register_pj must be a number >= 0"),
        (
            "8 = 4.0",
            "eight = 4.0",
            "a capacity in KiB, which must be positive, got 'ei",
        ),
        ("8 = 4.0", "-8 = 4.0", "a capacity in KiB, which must be positive, got '-8'"),
        ("add = 1.0", "ad = 1.0", r"unknown action in \[energy_pj\] 'ad' .*'add'"),
        (
            "compare = 10.0",
            "comparison = 1",
            r"unknown action in \[area_um2\] 'compari",
        ),
        ("dram_pj", "drampj", r"unknown key 'drampj' \(did you mean 'dram_pj'\?\)"),
        ("[area_um2]", "[area_mm2]", "unknown key 'area_mm2'"),
        ("node_nm = 7", 'node_nm = "7"', "could not convert node_nm = '7'"),
        ('name = "mine"', "name = 7", "name must be a text, got 7"),
        ("node_nm = 7", "node_nm = 7\nsram_pj = 5", "not TOML"),
        ("node_nm = 7", "node_nm = 7\nsram_extended_kib = 8", "must be a list of KiB"),
        (
            "node_nm = 7",
            "node_nm = 7\nsram_extended_kib = [-1]",
            "must be a number >= 0",
        ),
        ("8 = 4.0", "8 = 0.0", "must be positive, got 8 = 0.0"),
        ("[energy_pj]", "[energy_pj", "not TOML"),
    ],
)
def test_a_bad_table_is_named(tmp_path, old, new, message):
    assert old in TABLE
    path = tmp_path / "bad.toml"
    path.write_text(TABLE.replace(old, new))
    product = random_product(np.random.default_rng(0), KINDS[0], GEOMETRIES["same"])
    with pytest.raises(ValueError, match=message) as failure:
        Ant(energy=str(path)).cost(product)
    assert len(str(failure.value).splitlines()) == 1


def test_all_that_a_machine_misses_is_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    lines = ("compare = 0.125", "add_int32 = 0.25", "8 = 4.0", "32 = 8.0")
    path.write_text("".join(f"{x}\n" for x in TABLE.split("\n") if x not in lines))
    product = random_product(np.random.default_rng(0), KINDS[0], GEOMETRIES["same"])
    with pytest.raises(ValueError, match="'add_int32', 'compare' and no SRAM price;"):
        Ant(energy=str(path)).cost(product)


def test_all_that_several_machines_miss_is_named_at_once(tmp_path: Path) -> None:
    """A systolic array needs registers and a DRAM, ANT comparisons and their area."""
    path = tmp_path / "bad.toml"
    lines = ("register_pj = 0.5", "dram_pj = 100.0", "compare = 0.125")
    text = "".join(f"{x}\n" for x in TABLE.split("\n") if x not in lines)
    path.write_text(text.replace("compare = 10.0\n", ""))
    with pytest.raises(ValueError, match="energy table 'mine' has") as failure:
        machines(["systolic", "ant", "dense"], {"energy": [str(path)]})
    for gap in (
        "no price for the action 'compare'",
        "no DRAM price",
        "no register price",
        "areas, but none for 'register_bit', 'compare'",
    ):
        assert gap in str(failure.value)


def test_an_sram_outside_the_capacities_is_told_once(
    mine: str, caplog: pytest.LogCaptureFixture
) -> None:
    table = energy_table(mine)
    caplog.clear()
    for size in (8, 16, 32, 0, math.inf):
        table.access_pj(size)
    assert not caplog.records
    with prices_unused():
        table.access_pj(128)
    for size in (64, 64.0, 4, 64):
        table.access_pj(size)
    assert [record.getMessage() for record in caplog.records] == [
        "energy table 'mine' prices SRAMs of 8 to 32 KiB; the price of one of "
        f"{size} KiB is extrapolated"
        for size in (64, 4)
    ]


@pytest.mark.parametrize("machine", list(ACCELERATORS))
def test_the_machines_as_they_are_stay_within_the_shipped_tables(
    machine: str, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("horowitz-45nm", "aladdin-40nm"):
        machines([machine], {"energy": [name]})
    assert not caplog.records
    size = 9000 + list(ACCELERATORS).index(machine)  # each is told once a process
    arrays = ("systolic", "systolic-mixed", "intergrad", "spatial")
    machines([f"{machine}:{'buffers' if machine in arrays else 'buffer_kib'}={size}"])
    assert len(caplog.records) == 1
    assert f"8 to 1024 KiB; the price of one of {size} KiB" in caplog.text


@pytest.mark.parametrize("name", ["horowitz-45nm", "aladdin-40nm"])
def test_a_shipped_table_is_a_start_for_ones_own(name: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(shipped_text(name).replace(f'"{name}"', '"own"'), "utf-8")
    assert replace(energy_table(path), name=name) == energy_table(name)
    with pytest.raises(ValueError, match="unknown energy table 'none'; known: aladdin"):
        shipped_text("none")


def test_energy_has_two_scopes() -> None:
    product = random_product(np.random.default_rng(0), KINDS[0], GEOMETRIES["same"])
    for build in MACHINES:
        cost = build().cost(product)
        assert cost.energy_dram_pj is None
        assert cost.energy_on_chip_pj == cost.energy_pj
    for machine in (Systolic(), InterGrad()):
        cost = machine.cost(product)
        breakdown = cost.energy_breakdown_pj
        assert cost.energy_dram_pj == breakdown["dram.read"] + breakdown["dram.write"]
        total = cost.energy_on_chip_pj + cost.energy_dram_pj
        assert cost.energy_pj == pytest.approx(total)


@pytest.mark.parametrize("name", ["ant", "scnn"])
def test_an_unknown_table_is_found_at_once(name, tmp_path):
    with pytest.raises(ValueError, match="did you mean 'horowitz-45nm'"):
        ACCELERATORS[name](energy="horowitz-45")
    with pytest.raises(ValueError, match="no such file"):
        ACCELERATORS[name](energy=str(tmp_path / "none.toml"))


@pytest.mark.parametrize("name", ["horowitz-45nm", "aladdin-40nm"])
def test_shipped_tables_price_every_machine(name):
    assert energy_table(name).source
    product = random_product(np.random.default_rng(0), KINDS[0], GEOMETRIES["same"])
    for build in MACHINES:
        cost = build(energy=name).cost(product)
        assert cost.energy_pj > 0
        assert cost.area_mm2 > 0
