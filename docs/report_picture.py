"""Picture of a study's verdict, the top of its report, as the README shows it.

    elision study --workload digits-cnn --seeds 3 --out runs/picture
    python docs/report_picture.py runs/picture

Needs Playwright, of the dependency group ``test``, and a Chromium of the system.
"""

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright  # pyright: ignore[reportMissingImports]

#: CSS pixels: a window as wide as the page's text, down to the end of the verdict's figure.
WIDTH, LONGEST = 1100, 1600


def main() -> None:
    """Write the picture of a run folder's report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="run folder of a study")
    parser.add_argument("--out", type=Path, default=Path("docs/figures/report.png"))
    asked = parser.parse_args()
    found = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
    browser = next(filter(None, found), None)
    if browser is None:
        parser.error("no chromium and no google-chrome on PATH")
    report = (asked.run / "report.html").resolve()
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = started.new_page(viewport={"width": WIDTH, "height": LONGEST})
        page.goto(report.as_uri())
        figure = page.locator("#verdict ~ .verdict section").first.bounding_box()
        end = LONGEST if figure is None else figure["y"] + figure["height"] + 8
        shown = {"x": 0, "y": 0, "width": WIDTH, "height": min(end, LONGEST)}
        page.screenshot(path=asked.out, clip=shown)
        started.close()


if __name__ == "__main__":
    main()
