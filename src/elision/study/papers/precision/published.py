"""Published claims about number formats, each with its source and caution."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from elision.precision.ternary_counts import PUBLISHED as TERNARY

__all__ = ["PUBLISHED", "PublishedFigure", "claims"]


@dataclass(frozen=True)
class PublishedFigure:
    """A claim about one technique.

    Attributes:
        technique: its name.
        ours: what it is compared with: a key of the findings given to :func:`claims`.
        figure: what is claimed.
        source: where it is stated.
        mark: ``"published"``: read in the source that is named; ``"stated"``: on the
            authors' slides, not checked against a paper.
        caution: why it is not to be expected here.

    Example:
        >>> PUBLISHED[0].technique
        'bf16'
    """

    technique: str
    ours: str
    figure: str
    source: str
    mark: Literal["published", "stated"] = "published"
    caution: str = ""


def _ternary() -> tuple[PublishedFigure, ...]:
    """The rows of the slides; the first two are in the abstract too."""
    rows = []
    for row in TERNARY:
        figure = (
            f"blocks of {row.block}, {row.terms:g} terms: {row.fewer} times fewer "
            "multiplications"
        )
        if row.drop is not None:
            figure += f", {row.smaller:g} times smaller, about {row.drop:g} % lost"
        rows.append(
            PublishedFigure(
                "ternary residual",
                f"ternary, blocks of {row.block}, drop {(row.drop or 1) / 100:g}",
                figure,
                "slides; abstract, arXiv 1707.04679" if row.drop else "slides",
                "published" if row.drop else "stated",
                "ResNet-101 on ImageNet, 8-bit activations, no retraining."
                + ("" if row.drop else " The loss is not stated; ours allows 1 %."),
            )
        )
    return tuple(rows)


PUBLISHED = (
    PublishedFigure(
        "bf16",
        "bf16",
        "GNMT and DeepSpeech2 train along the curves of float32: sums in float32, same "
        "hyper-parameters, no loss scaling",
        "abstract, arXiv 1905.12322",
        caution="Other networks; ours emulates the operands alone.",
    ),
    PublishedFigure(
        "DFP-16",
        "dfp16",
        "ResNet-50 on ImageNet 75.77 % top-1, no new hyper-parameters",
        "ICLR 2018, arXiv 1802.00930",
        caution="ImageNet is not at hand. int16 products in chains of int32 sums; ours "
        "sum in float32.",
    ),
    PublishedFigure(
        "DFP-16",
        "",
        "1.8 times as fast as float32, end to end on Knights Mill",
        "ICLR 2018, arXiv 1802.00930",
        caution="That machine multiplies int16 pairs; nothing is timed here.",
    ),
    *_ternary(),
    PublishedFigure(
        "BCGD",
        "bcgd",
        "ResNet-18 on ImageNet, 1-bit weights in all layers, 4-bit activations: 64.36 % "
        "top-1",
        "abstract, arXiv 1808.05240",
        caution="Starts from a trained float network and runs 200 epochs in the "
        "authors' code for CIFAR-10; ours starts from random weights.",
    ),
    PublishedFigure(
        "BCGD",
        "",
        "the same with float first and last layers: 65.46 % top-1",
        "abstract, arXiv 1808.05240",
        caution="Not among the default recipes: --recipe "
        "\"bcgd(dense=(':first', ':last'))\".",
    ),
    PublishedFigure(
        "K-TanH",
        "k-tanh speed",
        "more than 5 times as fast as SVML's tanh, from a 512-bit table",
        "arXiv 1909.07729",
        caution="AVX-512 against SVML; ours against torch's tanh on this machine.",
    ),
    PublishedFigure(
        "K-TanH",
        "k-tanh lstm",
        "GNMT trained with it reaches an equal BLEU",
        "arXiv 1909.07729",
        caution="Ours is a small LSTM on the rows of digits.",
    ),
    PublishedFigure(
        "softmax alternatives",
        "softmax",
        "some configuration of Taylor, SM or SM-Taylor softmax always wins over softmax",
        "arXiv 2011.11538",
        caution="A statement about the best of about twenty, up to ten terms.",
    ),
)


def claims(
    findings: Mapping[str, str],
    figures: tuple[PublishedFigure, ...] = PUBLISHED,
) -> list[dict[str, str]]:
    """Rows: a published figure, its source and mark, our own finding, the caution.

    Args:
        findings: our own, in words, by the key ``ours`` of a figure.
        figures: what was published.

    Example:
        >>> claims({"bf16": "97.1 %"})[0]["ours, measured here"]
        '97.1 %'
    """
    return [
        {
            "technique": figure.technique,
            "published": figure.figure,
            "source": figure.source,
            "mark": figure.mark,
            "ours, measured here": findings.get(figure.ours, "not measured"),
            "caution": figure.caution,
        }
        for figure in figures
    ]
