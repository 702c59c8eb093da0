"""Settings of every test."""

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
