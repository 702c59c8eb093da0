"""The page of a study in a real browser: widths, both colour schemes, script and none.

Needs Playwright, which the dependency group ``test`` installs, and a Chromium of the system:
the browsers that Playwright would download are not used.
"""

from pathlib import Path
from typing import Any

import pytest
from tests.shared.in_a_browser import (
    AA,
    CONTRAST,
    FITS,
    LETTERS,
    NEEDED,
    SMALLEST,
    WIDTHS,
    opened,
)
from tests.shared.made_study import made_study

from elision.study.page.page import study_page

pytestmark = NEEDED


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(study_page(made_study(seeds=1)), encoding="utf-8")
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_fits_and_says_nothing(
    browser: Any, report: Path, width: int, scheme: str
) -> None:
    page = opened(browser, report, width, color_scheme=scheme)
    assert page.said == [report.as_uri()]  # no request but for itself, no message
    for shown in page.query_selector_all(".costs > label"):
        shown.click()
        assert page.evaluate(FITS)
    assert page.evaluate(LETTERS) >= SMALLEST  # figures scroll before they get smaller
    assert page.evaluate(CONTRAST) >= AA


def test_the_page_is_whole_without_a_script(browser: Any, report: Path) -> None:
    page = opened(browser, report, java_script_enabled=False)
    panels = page.locator(".panel")
    count = panels.count()
    for number in range(count):  # the switch of the cost is no script
        page.locator(".costs > label").nth(number).click()
        assert panels.nth(number).is_visible()
        assert sum(panels.nth(other).is_visible() for other in range(count)) == 1
    assert page.locator("#allowed").is_hidden()
    assert page.locator("th button").count() == 0
    assert page.locator(".rungs tbody tr").count() > count


def test_no_script_runs_but_the_pages_own(
    browser: Any, report: Path, tmp_path: Path
) -> None:
    forged = tmp_path / "forged.html"
    page = report.read_text(encoding="utf-8")
    added = "<script>document.title = 'forged'</script></main>"
    forged.write_text(page.replace("</main>", added), encoding="utf-8")
    shown = opened(browser, forged)
    assert shown.title() == "Elision study: digits-cnn"
    assert any("Content Security Policy" in text for text in shown.said)


def test_the_verdict_follows_what_may_be_lost(browser: Any, report: Path) -> None:
    page = opened(browser, report)
    said = page.locator(".answer")
    assert said.inner_text().startswith("dense, 80.0 % test accuracy, stays")
    page.locator("#allowed").fill("1")
    assert said.inner_text().startswith("swat:sparsity=0.9: 1.0 points less, 88 %")
    chosen = page.locator(".rungs >> visible=true").locator("[aria-current]")
    assert chosen.count() == 1
    page.locator("#allowed").fill("0.9")
    assert said.inner_text().startswith("dense")


def test_tables_sort_and_filter_by_the_keyboard(browser: Any, report: Path) -> None:
    page = opened(browser, report)
    table = page.locator("#cycles-and-energy ~ section table").first
    cycles = table.locator("th button").nth(2)
    column = table.locator("tbody tr td:nth-child(3)")

    def numbers() -> list[int]:
        return [int(text.replace(",", "")) for text in column.all_inner_texts()]

    cycles.focus()
    page.keyboard.press("Enter")
    assert numbers() == sorted(numbers())
    page.keyboard.press("Enter")
    assert numbers() == sorted(numbers(), reverse=True)
    assert table.locator("th").nth(2).get_attribute("aria-sort") == "descending"
    page.locator("#cycles-and-energy ~ section input[type=search]").first.fill("ANT")
    rows = table.locator("tbody tr >> visible=true")
    assert 0 < rows.count() < len(numbers())
    assert all("ant" in text for text in rows.all_inner_texts())


def test_dots_show_their_values_to_pointer_and_keyboard(
    browser: Any, report: Path
) -> None:
    page = opened(browser, report)
    box, point = page.locator("#hover"), page.locator(".panel .point").first
    assert box.is_hidden()
    point.hover()
    assert box.inner_text() == "dense: 80.0 %, 1x"
    page.mouse.move(0, 0)
    assert box.is_hidden()
    point.focus()
    page.keyboard.press("ArrowRight")
    assert box.inner_text().startswith("swat:sparsity=0.9: 79.0 %")
