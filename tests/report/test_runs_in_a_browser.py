"""The pages of several runs in a real browser: a comparison, and the list that is live."""

import threading
from collections.abc import Iterator
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
    waits_for,
)
from tests.shared.made_checkpoints import begun_run, checkpoint_of
from tests.shared.made_runs import run_folder

from elision.common.locking import alone_in
from elision.study.comparison import contests
from elision.study.page.comparison import comparison_page
from elision.study.served import RunServer

pytestmark = NEEDED

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("comparison")
    machines = {"dense": {"dense": 8, "swat": 8}, "ant": {"dense": 9, "swat": 4}}
    scores = {"dense": [0.8, 0.9], "swat": [0.7, 0.9]}
    runs = [
        run_folder(top / "a", scores, cycles=machines, env={"threads": 1}),
        run_folder(top / "b", {HOSTILE: [0.75, 0.8]}, seed=1),
        run_folder(top / "c", {"dense": [0.5], "set": [0.25]}, workload={"name": "v"}),
    ]
    path = top / "page.html"
    path.write_text(comparison_page(contests(runs)), encoding="utf-8")
    return path


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name in ("first", "second", HOSTILE):
        begun_run(tmp_path / name)
    checkpoint_of(tmp_path / "first", "dense", 0.5, 0.75)
    (tmp_path / "first" / "report.html").write_text(
        "<title>made</title><script>document.title = 'ran'</script>", encoding="utf-8"
    )
    (tmp_path / HOSTILE / "summary.json").write_text("{", encoding="utf-8")
    return tmp_path


@pytest.fixture
def server(runs: Path) -> Iterator[RunServer]:
    with RunServer(runs, port=0) as found:
        serving = {"poll_interval": 0.02}
        thread = threading.Thread(target=found.serve_forever, kwargs=serving)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_comparison_fits_and_says_nothing(
    browser: Any, comparison: Path, width: int
) -> None:
    scheme = "dark" if width == WIDTHS[0] else "light"
    page = opened(browser, comparison, width, color_scheme=scheme)
    assert page.said == [comparison.as_uri()]
    for shown in page.query_selector_all(".costs > label"):
        shown.click()
        assert page.evaluate(FITS)
    assert page.evaluate(LETTERS) >= SMALLEST
    assert page.evaluate(CONTRAST) >= AA


def test_each_workload_has_a_verdict_of_its_own(browser: Any, comparison: Path) -> None:
    page = opened(browser, comparison)
    first, second = page.locator(".verdict").all()
    before = second.locator(".answer").inner_text()
    assert before.startswith("dense, 50.0 % test accuracy, stays")
    first.locator("input[type=number]").fill("20")
    first.locator(".costs > label").nth(1).click()
    assert second.locator(".answer").inner_text() == before
    assert second.locator("#cost-2-1").is_checked()
    second.locator("input[type=number]").fill("30")
    assert second.locator("[aria-current]").count() == second.locator(".rungs").count()
    table = page.locator(".verdict ~ section table").first
    table.locator("th button").nth(1).click()
    scores = table.locator("tbody tr td:nth-child(2)").all_inner_texts()
    assert scores == sorted(scores)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_list_of_runs_fits_and_says_nothing(
    browser: Any, server: RunServer, width: int
) -> None:
    scheme = "dark" if width == WIDTHS[0] else "light"
    page = opened(browser, server.url, width, color_scheme=scheme)
    assert page.evaluate(FITS)
    assert page.evaluate(CONTRAST) >= AA
    waits_for(page.locator("#live"), "This list follows the folders.")
    assert page.evaluate(FITS)
    assert {text.partition("?")[0] for text in page.said} == {
        f"{server.url}/",
        f"{server.url}/runs.json",
    }


def test_the_list_follows_the_runs_and_keeps_its_place(
    browser: Any, server: RunServer, runs: Path
) -> None:
    page = opened(browser, server.url, 420)
    rows = page.locator("table.runs tbody tr")
    row = page.locator('tr[data-run="first"]')
    cell = row.locator('[data-field="epochs"]')
    assert cell.inner_text() == "2 of 8"
    page.locator("th button").first.click()
    page.locator("th button").first.click()  # from the last name to the first
    order = [row.get_attribute("data-run") for row in rows.all()]
    assert order == ["second", "first", HOSTILE]
    sheet = page.locator("section.sheet").first
    sheet.evaluate("sheet => { sheet.scrollLeft = 90; }")
    with alone_in(runs / "second"):
        checkpoint_of(runs / "first", "swat(0.9)", 0.5)
        waits_for(cell, "3 of 8")
        waits_for(page.locator('tr[data-run="second"] [data-field="state"]'), "running")
    begun_run(runs / "third")
    page.wait_for_selector('tr[data-run="third"]')
    assert [row.get_attribute("data-run") for row in rows.all()] == [*order, "third"]
    assert sheet.evaluate("sheet => sheet.scrollLeft") == 90
    assert page.locator("img").count() == 0  # the hostile name is a name
    bad = page.locator("tr", has_text=HOSTILE).locator('[data-field="state"]')
    assert bad.inner_text().startswith("damaged: summary.json: not JSON")
    row.get_by_role("link").click()
    assert page.title() == "made"  # the page's script did not run


def test_the_list_is_whole_without_a_script(browser: Any, server: RunServer) -> None:
    page = opened(browser, server.url, java_script_enabled=False)
    assert page.locator("table.runs tbody tr").count() == 3
    assert page.locator("#live").inner_text().startswith("Load the page again")
    assert page.locator('tr[data-run="first"] a').get_attribute("href") == (
        "/files/first/report.html"
    )
