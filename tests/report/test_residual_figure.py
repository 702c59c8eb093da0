"""The figure of ternary residual networks."""

import pytest

from elision.report.residual_figure import accuracy_over_multiplications


def test_every_network_is_drawn() -> None:
    rows = [
        {"fewer": 40.0, "mean_terms": 1.0, "accuracy": 0.4},
        {"fewer": 20.0, "mean_terms": 2.0, "accuracy": 0.9},
    ]
    drawn = accuracy_over_multiplications({"cnn": rows, "resnet": rows}, {"cnn": 0.95})
    assert drawn.startswith("<svg")
    for word in ("cnn", "resnet", "times fewer multiplications"):
        assert word in drawn


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one curve"):
        accuracy_over_multiplications({}, {})
