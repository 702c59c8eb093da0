"""Several runs on one page: pairs of seeds, sections, what is not compared, errors."""

import re
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from made_runs import run_folder

from elision.study.compared_table import short_rows
from elision.study.comparison import contests, environments
from elision.study.page.comparison import comparison_figures, comparison_page

HERE = {"processor": "one", "threads": 2, "torch": "2", "elision": "0.1.0"}
THERE = {**HERE, "processor": "another", "elision": "0.2.0"}
HOSTILE = "<img src=x onerror=alert(1)>"


def notes_of(*runs: Path) -> str:
    (found,) = contests(runs)
    return "\n".join(found.notes)


def test_losses_are_over_the_seeds_that_two_recipes_share(tmp_path: Path) -> None:
    a = run_folder(
        tmp_path / "a", {"dense": [0.5, 0.75, 1.0], "swat": [0.25, 0.5, 0.5]}
    )
    b = run_folder(tmp_path / "b", {"rigl": [0.5, 0.0]}, seed=2)
    c = run_folder(tmp_path / "c", {"set": [0.5]}, seed=7)
    (found,) = contests([a, b, c])
    standing = {s.recipe: s for s in found.verdict.standings}
    assert [s.seeds for s in standing.values()] == [3, 3, 1, 0]
    assert standing["swat"].loss == pytest.approx(1 / 3)
    assert standing["swat"].loss_error == pytest.approx(0.25 / 3)
    # rigl has seeds 2 and 3, dense 0 to 2: seed 2 alone is a pair.
    assert standing["rigl"].loss == 0.5
    assert standing["rigl"].score == 0.25
    assert standing["rigl"].loss_error is None
    assert standing["set"].loss == 0.25
    # The table says the same as the verdict: the difference over the shared seeds.
    gaps = {r["recipe"]: r["against the first"] for r in short_rows(found)}
    assert gaps == {
        "dense": "baseline",
        "swat": "-33.3 ± 14.4 points",
        "rigl": "-50.0 points",
        "set": "-25.0 points",
    }
    said = found.verdict.sureness()
    assert "Means of 0 to 3 seeds, those in common with dense" in said
    assert "untested: set." in said


def test_a_recipe_is_compared_within_its_workload_only(tmp_path: Path) -> None:
    short, long = ({"name": "w", "epochs": n} for n in (1, 9))
    other = {"name": "other", "epochs": 1}
    a = run_folder(tmp_path / "a", {"dense": [0.5]}, workload=short)
    b = run_folder(tmp_path / "b", {"swat": [0.9]}, workload=long)
    c = run_folder(tmp_path / "c", {"rigl": [0.1], "dense": [0.2]}, workload=other)
    found = contests([a, b, c])
    assert [(f.title, tuple(f.rows)) for f in found] == [
        ("w (epochs=1)", ("dense",)),
        ("w (epochs=9)", ("swat",)),
        ("other", ("rigl", "dense")),
    ]
    page = comparison_page(found)
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(set(ids)) == len(ids)
    assert {"workload-1", "workload-3", "allowed-1", "cost-2-1"} <= set(ids)
    assert page.index("w (epochs=9)") < page.index(
        "swat: 90.0 % test accuracy. No other"
    )
    assert page.count("<script>") == 1
    # An unknown file of one workload alone has nothing to set it apart.
    assert [f.title for f in contests([c])] == ["other"]


def test_rows_of_one_recipe_say_how_they_differ(tmp_path: Path) -> None:
    a = run_folder(tmp_path / "a", {"dense": [0.5]})
    b = run_folder(
        tmp_path / "b",
        {"dense": [0.6], "swat": [0.5]},
        engine="auto",
        memory="bits(4)",
        kept=(80, 20),
    )
    (found,) = contests([a, b])
    assert list(found.rows) == [
        "dense, engine=torch, memory=None",
        "dense, engine=auto, memory=bits(4)",
        "swat",
    ]
    # The first recipe ran without a policy: there is nothing that bytes are compared with.
    assert "bytes" not in {kind.key for kind in found.kinds}
    assert "without --memory: dense, engine=torch, memory=None." in found.notes[-1]
    (found,) = contests([b])
    (kept,) = (kind for kind in found.kinds if kind.key == "bytes")
    assert kept.ratios == {"dense": 0.25, "swat": 0.25}


def test_what_cannot_be_compared_is_left_out_and_named(tmp_path: Path) -> None:
    two = {"dense": [0.5], "swat": [0.4]}
    times = {"dense": 1.0, "swat": 0.5}
    a = run_folder(
        tmp_path / "a",
        two,
        cycles={"dense": {"dense": 8, "swat": 8}, "ant": {"dense": 9, "swat": 4}},
        env=HERE,
        seconds=times,
        record=2,
    )
    b = run_folder(
        tmp_path / "b",
        {"rigl": [0.3]},
        cycles={"ant": {"rigl": 1}},
        env=THERE,
        seconds={"rigl": 9.0},
        record=5,
    )
    again = run_folder(tmp_path / "copy", two, env=HERE, seconds=times, record=2)
    (found,) = contests([a, b, again])
    kinds = {kind.key: kind for kind in found.kinds}
    assert kinds["cycles:ant"].ratios == {"dense": 9 / 8, "swat": 0.5}
    assert kinds["seconds"].ratios == {"dense": 1.0, "swat": 0.5}
    assert kinds["work"].ratios == {"dense": 0.5, "swat": 0.5, "rigl": 0.5}
    notes = "\n".join(found.notes)
    assert (
        "Cycles and energy of rigl are left out: its runs recorded other steps (record=5)."
        in notes
    )
    assert "another machine, or with other threads, than those of dense: rigl." in notes
    assert "copy has the same seeds and scores of dense; swat as another run" in notes
    assert kinds["seconds"].of == "seconds by the wall clock of a training step, dense"
    page = comparison_page([found])
    assert "Runs of several versions: 0.1.0, 0.2.0." in page
    assert "not measured side by side" in page
    assert "recorded other steps (record=5)" in page


def test_runs_without_a_machine_in_common(tmp_path: Path) -> None:
    a = run_folder(tmp_path / "a", {"dense": [0.5]}, cycles={"ant": {"dense": 8}})
    b = run_folder(
        tmp_path / "b",
        {"swat": [0.4]},
        cycles={"ant": {"swat": 4}, "dense": {"swat": 9}},
    )
    c = run_folder(tmp_path / "c", {"rigl": [0.3]})
    # The dense array did not simulate the first recipe, and is no reference.
    (found,) = contests([a, b])
    kinds = {kind.key: kind for kind in found.kinds}
    assert kinds["cycles:ant"].ratios == {"dense": 1, "swat": 0.5}
    assert kinds["cycles:ant"].of == "dense on ant"
    assert "Cycles and energy on dense are not known of: dense." in found.notes
    page = comparison_page([found])
    assert "compared with dense on the same machine" in page
    (found,) = contests([a, c])
    said = "cycles on ant (not known of all); energy on chip of ant (not known of all)."
    assert f"The same for every recipe: {said}" in comparison_page([found])
    (found,) = contests([c, b])
    assert [kind.key for kind in found.kinds] == ["work"]
    assert "No run simulated rigl" in found.notes[-1]


def test_a_run_given_twice_counts_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = run_folder(tmp_path / "a", {"dense": [0.5, 0.6]})
    (tmp_path / "link").symlink_to(a)
    assert notes_of(a, a / "summary.json", tmp_path / "link") == ""
    # The same seed with another result is none that was looked at twice.
    b = run_folder(tmp_path / "b", {"dense": [0.7, 0.6]})
    (found,) = contests([a, b])
    (dense,) = found.verdict.standings
    assert dense.score == pytest.approx(0.6)
    assert "with other results, at seed 0: the mean counts" in "\n".join(found.notes)
    # Three results of two seeds: the table's mean is the verdict's, over two seeds.
    c = run_folder(tmp_path / "x" / "a", {"dense": [0.9, 0.6]})
    (found,) = contests([a, c])
    assert short_rows(found)[0]["test accuracy"] == "65.0 ± 7.1 %"
    assert short_rows(found)[0]["seeds"] == "2"
    assert found.verdict.standings[0].score == pytest.approx(0.65)
    assert found.rows["dense"].names == f"{tmp_path.name}/a, x/a"


def test_two_spellings_of_a_recipe_are_one(tmp_path: Path) -> None:
    names = "swat:sparsity=0.9", "swat(0.9)"
    machines = "scnn:startup_cycles=5", "scnn(startup_cycles=5)"
    runs = [
        run_folder(
            tmp_path / str(seed),
            {"dense": [0.5], name: [0.25]},
            seed,
            cycles={machine: {"dense": 8, name: 4}},
            env=HERE,
            seconds={"dense": 2.0, name: 1.0 + seed},
        )
        for seed, (name, machine) in enumerate(zip(names, machines, strict=True))
    ]
    (found,) = contests(runs)
    assert list(found.rows) == ["dense", names[0]]
    assert [len(row.scores) for row in found.rows.values()] == [2, 2]
    kinds = {kind.key: kind.ratios for kind in found.kinds}
    assert kinds[f"cycles:{machines[0]}"] == {"dense": 1, names[0]: 0.5}
    assert kinds["seconds"] == {"dense": 1, names[0]: 0.75}
    assert [(row["seeds"], row["folder"]) for row in environments([found])] == [
        ("0", "0"),
        ("1", "1"),
    ]


def test_names_stay_text(tmp_path: Path) -> None:
    run_folder(
        tmp_path / HOSTILE,
        {HOSTILE: [0.5], "dense": [0.4]},
        workload={"name": HOSTILE},
        env={**HERE, "processor": HOSTILE},
        cycles={"dense": {HOSTILE: 3, "dense": 3}},
    )
    page = comparison_page(contests([tmp_path / HOSTILE]))
    assert HOSTILE not in page
    assert "&lt;img src=x" in page


def test_a_figure_alone_has_the_kind_of_its_suffix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machines = {"dense": {"dense": 8, "swat": 8}, "ant": {"dense": 9, "swat": 4}}
    a = run_folder(tmp_path / "a", {"dense": [0.5], "swat": [0.4]}, cycles=machines)
    b = run_folder(tmp_path / "b", {"dense": [0.5]}, workload={"name": "v"})
    for suffix, starts in ((".svg", b"<svg "), (".pdf", b"%PDF"), (".png", b"\x89PNG")):
        out = tmp_path / f"figure{suffix}"
        assert run(f"compare {a} --out {out} --cost cycles:ant") == 0
        first = out.read_bytes()
        assert first.startswith(starts)
        assert run(f"compare {a} --out {out} --cost cycles:ant") == 0
        assert out.read_bytes() == first
        assert f"figure: {out}" in capsys.readouterr().out
    found = contests([a, b])
    panels = comparison_figures(found)
    assert [p.title for p in panels] == [
        "w: Test accuracy over training work",
        "v: Test accuracy over training work",
    ]
    assert len(comparison_figures(found, "cycles:ant")) == 1
    page = comparison_page(found, "cycles:ant")
    assert page.index(">cycles on ant<") < page.index(">training work<")
    assert run(f"compare {a} --out {tmp_path / 'page.html'} --cost cycles:atn") == 2
    assert "did you mean 'cycles:ant'?" in capsys.readouterr().err
    assert run(f"compare {a} --cost work") == 2
    assert "--cost work would be ignored" in capsys.readouterr().err


def test_every_summary_that_is_refused_has_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = run_folder(tmp_path / "good", {"dense": [0.5]})
    files: dict[str, Any] = {"torn": "{", "later": '{"schema": 2}', "odd": "[]"}
    for name, text in files.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(text, encoding="utf-8")
    # Interrupted at once, and with one recipe and one seed done.
    run_folder(tmp_path / "young", {"dense": [0.5]})
    (tmp_path / "young" / "summary.json").unlink()
    half = run_folder(tmp_path / "half", {"dense": [0.5], "swat": [0.5]})
    config = (half / "config.toml").read_text(encoding="utf-8")
    config = config.replace('"swat"', '"swat", "rigl"').replace(
        "seeds = 1", "seeds = 2"
    )
    (half / "config.toml").write_text(config, encoding="utf-8")
    assert run(f"compare {half}") == 0
    said = capsys.readouterr().err
    assert "half has not finished rigl, which no row is of." in said
    assert "half has finished 1 of its 2 seeds." in said
    names = " ".join(
        str(tmp_path / name) for name in ("none", *files, "young", "good/..")
    )
    out = tmp_path / "page.html"
    assert run(f"compare {good} {names} --out {out}") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6
    assert "none: no such run folder" in lines[0]
    assert "young: was interrupted before it had a summary.json" in lines[4]
    assert "no run folder, but it holds some; give them:" in lines[5]
    assert "torn/summary.json: not JSON" in lines[1]
    assert "a summary of schema 2; this version reads schema 1" in lines[2]
    assert "a summary of schema None" in lines[3]
    assert not out.exists()
