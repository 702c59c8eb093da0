"""Settings of every test."""

import os

# Workers of pytest-xdist that each compute with every core wait for one another: on two
# cores the suite takes three times as long. Read when torch is first imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# A shared or slow machine must not fail a property by the clock.
settings.register_profile("elision", deadline=None, print_blob=True)
settings.load_profile("elision")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every-model",
        action="store_true",
        help="compare the engines on every library's network, not on one per family",
    )
