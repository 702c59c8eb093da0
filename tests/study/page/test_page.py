"""The whole page of a study that was made without training."""

import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser

from tests.shared.made_study import HOSTILE, made_study

from elision.study.page.overview import study_table
from elision.study.page.page import study_page


@cache
def made_page() -> str:
    return study_page(made_study())


class _Reader(HTMLParser):
    """Ids, tags and figures of a page, and the text of its verdict."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.images: list[bool] = []
        self.tags: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.add(tag)
        if "id" in found:
            self.ids.append(found["id"] or "")
        if tag == "svg":
            self.images.append(found.get("role") == "img")


def test_the_page_is_the_same_twice_and_every_id_is_there_once() -> None:
    page = made_page()
    assert page == study_page(made_study())
    reader = _Reader(page)
    assert len(set(reader.ids)) == len(reader.ids)
    assert {"verdict", "accuracy", "cycles-and-energy"} <= set(reader.ids)
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', page))
    assert used <= set(reader.ids)


def test_every_figure_has_a_role_and_a_title() -> None:
    page = made_page()
    reader = _Reader(page)
    assert len(reader.images) > 8
    assert all(reader.images)
    starts = re.findall(r"<svg [^>]*>\s*<title>([^<]+)</title>", page)
    assert len(starts) == len(reader.images)


def test_names_stay_text() -> None:
    page = made_page()
    assert HOSTILE not in page
    assert "&lt;img src=x onerror" in page
    assert "img" not in _Reader(page).tags
    turned = study_page(replace(made_study(seeds=1), source="data\u202egnp"))
    assert "<bdi>data\\u202egnp</bdi>" in turned
    assert "\u202e" not in turned


def test_the_page_ends_with_the_command_that_made_it() -> None:
    page = made_page()
    end = page.partition('id="where-this-ran"')[2]
    assert "elision study --workload digits-cnn --recipe dense " in end.replace(
        "--accelerator dense scnn ant systolic:rows=8,columns=8 ", ""
    )


def test_the_terminal_shows_every_machine_and_probe() -> None:
    outcome = made_study(seeds=1)
    outcome.outcomes[0].findings["speed:rounds=5"] = {
        "seconds": {"dense": 0.2, "masked": 0.2, "engine": 0.1}
    }
    dense, *_ = study_table(outcome)
    for machine in outcome.config.accelerators:
        assert dense[f"gain, cycles on {machine}"].endswith("x")
    assert dense["gain, cycles on dense"] == "1x"
    assert dense["speed:rounds=5"] == "2.00x as fast"


def test_titles_of_any_length_fit() -> None:
    page = made_page()
    assert "meprop-unified:</text>" in page or "meprop-unified:keep=0.1</text>" in page
