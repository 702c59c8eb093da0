"""Compilation of simulator kernels: announced once, cached, and the same as Python."""

import importlib
import logging

import numpy as np
import pytest
from accelerator_oracles import GEOMETRIES, KINDS, random_product

from elision.accelerators.compiled import compiled
from elision.accelerators.outer.anticipation import rectangles, scan
from elision.accelerators.outer.planes import planes_of

SOURCE = "def double(x):\n    return 2 * x\n"


def test_only_the_first_compilation_is_announced(tmp_path, caplog, monkeypatch):
    (tmp_path / "kernel_of_this_test.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("kernel_of_this_test")
    for expected in (1, 0):
        caplog.clear()
        double = compiled(module.double)
        with caplog.at_level(logging.WARNING):
            assert (double(4), double(5)) == (8, 10)
        messages = [r.getMessage() for r in caplog.records]
        assert len(messages) == expected
        assert all("double, once for this installation" in m for m in messages)


def test_without_a_place_to_cache(caplog):
    namespace = {}
    exec(SOURCE, namespace)  # a function of no file: nothing can be kept beside it
    assert compiled(namespace["double"])(4) == 8
    assert "for this process only" in caplog.text


@pytest.mark.parametrize("kernel", [rectangles, scan])
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_equals_plain_python(kernel, kind):
    product = random_product(np.random.default_rng(0), kind, GEOMETRIES["stride"])
    outer = planes_of(product)
    axes = (outer.rows.as_tuple, outer.columns.as_tuple)
    arguments = (outer.images, outer.kernels, *axes, 3, 2, 5)
    compiled_totals = kernel(*arguments)
    assert compiled_totals.tolist() == kernel.__wrapped__(*arguments).tolist()
