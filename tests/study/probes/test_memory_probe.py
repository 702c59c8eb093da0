"""The study asks about saved activations and the report shows what was found."""

import pytest

from elision.study import StudyConfig, study
from elision.study.page.sections.memory import memory
from elision.study.probes import ActivationMemory
from elision.study.run import kept_findings


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    config = StudyConfig(
        workload="digits-cnn",
        epochs=1,
        recipes=("dense", "swat:sparsity=0.9"),
        accelerators=(),
        probes=("memory:policy=exact", "memory:policy=bits(4),batches=3"),
    )
    folder = tmp_path_factory.mktemp("study")
    return folder, study(config, folder)


def test_the_page_shows_bytes_peaks_errors_and_noise(outcome):
    folder, found = outcome
    section = memory(found)
    table, *sheets = section.sheets
    assert table.count("<tr>") == 5
    assert table.count("0.00, 0.00 %") == 4  # exact, in either sense, of both recipes
    four = found.outcomes[0].findings["memory:policy=bits(4),batches=3"]["row"]
    largest = max(four["gradient_errors"].values())
    assert f", {100 * largest:.2f} %" in table
    page = (folder / "report.html").read_text(encoding="utf-8")
    for text in ("Saved activations", "norm input", "group 4-bit", "codec over batch"):
        assert text in page
    # One figure a recipe: "exact" adds no noise.
    assert sum("<svg" in sheet for sheet in sheets) == 2


def test_what_is_found_agrees_with_itself(outcome):
    folder, found = outcome
    for recipe in found.outcomes:
        exact, four = recipe.findings.values()
        assert not any(share["codec_variance"] for share in exact["noise"])
        assert not any(exact["row"]["gradient_errors"].values())
        assert all(share["batch_variance"] > 0 for share in four["noise"])
        weights = four["row"]["gradient_errors"]
        noisy = [s for s in four["noise"] if s["parameter"] in weights]
        assert all(share["codec_variance"] > 0 for share in noisy)
        for kind in (exact, four):
            stored = sum(entry["stored_bytes"] for entry in kind["ledger"])
            logical = sum(entry["logical_bytes"] for entry in kind["ledger"])
            assert stored == kind["row"]["stored_bytes"]
            assert logical == kind["row"]["logical_bytes"]
    kept = folder / "recipes" / "dense" / "probe-memory-policy-exact.json"
    assert kept_findings(kept) == found.outcomes[0].findings["memory:policy=exact"]


def test_layers_that_run_a_dense_recipe_derive_their_inputs(outcome):
    _, found = outcome
    dense, swat = (o.findings["memory:policy=exact"]["ledger"] for o in found.outcomes)
    derived = [e["module"] for e in dense if e["codec"] == "recompute"]
    assert derived == ["features.3", "features.6"]
    assert not [e for e in swat if e["codec"] == "recompute"]  # they save less of it


def test_nothing_is_shown_where_nothing_was_asked(outcome):
    _, found = outcome
    for recipe in found.outcomes:
        recipe.findings.clear()
    assert memory(found) is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"policy": "bits(99)"}, r"in \[1, 8\]"),
        ({"batches": 1}, "batches"),
        ({"rounds": 0}, "rounds"),
    ],
)
def test_parameters_are_checked(wrong, message):
    with pytest.raises(ValueError, match=message):
        ActivationMemory(**wrong)
