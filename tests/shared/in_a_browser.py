"""What tests in a real browser share: widths, contrast, letters, a page and its messages."""

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest

__all__ = [
    "AA",
    "CHROMIUM",
    "CONTRAST",
    "FITS",
    "LETTERS",
    "NEEDED",
    "SMALLEST",
    "WIDTHS",
    "opened",
    "waits_for",
]

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    None,
)

#: Mark of a module whose tests need a browser.
NEEDED = pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None,
    reason="no Playwright (dependency group test), or no chromium on PATH",
)

#: A phone, a narrow window and a wide one, in CSS pixels.
WIDTHS = (420, 900, 1400)
#: Contrast of text that WCAG 2.2 asks for at level AA (success criterion 1.4.3).
AA = 4.5

#: Lowest contrast of the page's text with what is behind it, figures apart. Relative
#: luminance and contrast as WCAG 2.2 defines them.
CONTRAST = """() => {
  const rgba = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (c) => c.slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = rgba(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const main = document.querySelector("main");
  const walker = document.createTreeWalker(main, NodeFilter.SHOW_TEXT);
  let lowest = 21;
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || e.closest("svg")) continue;
    const [a, b] = [rgba(getComputedStyle(e).color), behind(e)].map(light);
    lowest = Math.min(lowest, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
  }
  return lowest;
}"""


#: Size of the smallest letters that a figure may have, in CSS pixels.
SMALLEST = 7.5
LETTERS = """() => {
  const texts = [...document.querySelectorAll("section.sheet > svg text")];
  const shown = texts.filter((text) => text.closest("svg").clientWidth);
  return Math.min(...shown.map(
    (text) => parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a));
}"""

#: Whether nothing is wider than the window.
FITS = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"


def waits_for(place: Any, text: str) -> None:
    """Wait until an element has a text; a page's policy lets no function be waited for."""
    from playwright.sync_api import expect

    expect(place).to_have_text(text, timeout=30_000)


def opened(browser: Any, place: Path | str, width: int = 900, **settings: Any) -> Any:
    """The page in a context of its own, with what it said in ``page.said``."""
    viewport = {"width": width, "height": 900}
    context = browser.new_context(viewport=viewport, **settings)
    page = context.new_page()
    page.said = []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("request", lambda request: page.said.append(request.url))
    page.goto(place if isinstance(place, str) else place.as_uri())
    return page
