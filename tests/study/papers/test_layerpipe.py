"""LayerPipe's claim on PipeDream's profiles, by this project's model."""

import json
from pathlib import Path

import pytest

from elision.study.papers.layerpipe.paper import LayerPipe
from elision.study.papers.layerpipe.published import networks


def test_vgg16_gains_eighty_percent_with_seven_to_nine_processors(tmp_path: Path):
    paper = LayerPipe(network=("vgg16",), processors=9)
    tables = paper.run(tmp_path)
    rows = json.loads((tmp_path / "layerpipe.json").read_text())["rows"]
    for row in rows:
        assert row["straight"] >= row["intra"] >= row["bound"] * (1 - 1e-9)
        # Free replication is the even share, which no split can beat.
        assert row["replicated"] <= row["inter"] * (1 + 1e-9)
        assert row["inter"] >= row["bound"] * (1 - 1e-9)
        if row["processors"] >= 7:
            assert row["straight"] / row["inter"] > 1.8
    text = paper.text(tables)
    assert "upwards of 80 %" in text
    assert "2 B0 / 3 + O(n)" in text


def test_the_profiles_are_fourteen_networks():
    counts = {name: len(layers) for name, layers in networks().items()}
    assert len(counts) == 14
    assert (counts["vgg16"], counts["resnet50"], counts["densenet121"]) == (16, 54, 121)
    # Figures of the published profile: the second convolution, its ReLU and pooling.
    second = networks()["vgg16"][1]
    assert second.forward_ms == pytest.approx(46.201 + 4.455 + 3.795)
    assert (second.backward_ms, second.parameter_bytes) == (113.33, 147712)


def test_bad_input():
    with pytest.raises(ValueError, match="unknown profile 'vgg17'"):
        LayerPipe(network=("vgg17",))
    with pytest.raises(ValueError, match=r"must be an integer in \[2, 64\]"):
        LayerPipe(processors=1)
