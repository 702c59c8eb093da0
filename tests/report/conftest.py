"""A browser for the tests that look at pages."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.shared.in_a_browser import CHROMIUM


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        # A container has no sandbox of its own to give.
        started = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        )
        yield started
        started.close()
