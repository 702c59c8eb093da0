"""Published claims about activations in fewer bytes, each with its source and caution."""

from dataclasses import dataclass

__all__ = ["PUBLISHED", "PublishedFigure"]


@dataclass(frozen=True)
class PublishedFigure:
    """A claim about one technique.

    Attributes:
        technique: its name.
        policy: our nearest policy.
        figure: what is claimed.
        source: where it is stated.
        caution: why it is not to be expected here.

    Example:
        >>> PUBLISHED[1].technique
        'JPEG-ACT'
    """

    technique: str
    policy: str
    figure: str
    source: str
    caution: str = ""


PUBLISHED = (
    PublishedFigure(
        "vDNN",
        "offload",
        "average GPU memory down by up to 89 % (AlexNet), 91 % (OverFeat), 95 % "
        "(GoogLeNet); VGG-16 at batch 256 at 18 % performance loss",
        "abstract, arXiv 1602.08124",
        "Offloads to host memory over PCIe; ours goes to files on a CPU.",
    ),
    PublishedFigure(
        "JPEG-ACT",
        "jpeg",
        "2.4x training performance over offloading accelerators, 1.6x over other "
        "activation compression",
        "abstract, ISCA 2020",
        "A hardware unit, simulated. Per-network ratios (8.5x is often quoted) could "
        "not be verified.",
    ),
    PublishedFigure(
        "AC-GC",
        "guaranteed(0.1)",
        "15.1x on average at 0.1 % accuracy change",
        "abstract, NeurIPS 2021",
        "The released code's own logs come to 4.8x on the quantised tensors, and it "
        "compresses after the forward pass, so its peak does not fall.",
    ),
    PublishedFigure(
        "ActNN",
        "bits(2.5)",
        "12x less activation memory at 2 bits, 6.6-14x larger batches",
        "project documentation, ICML 2021",
        "Groups of 256 with 1/8 bit of offset and scale per value; ours of 64 with 1/2.",
    ),
    PublishedFigure(
        "GACT",
        "bits(4)",
        "up to 8.1x less activation memory, 4.2-24.7x larger batches",
        "abstract and documentation, ICML 2022",
    ),
    PublishedFigure(
        "BLPA",
        "blpa",
        "4-bit activations close to exact training",
        "abstract, NeurIPS 2019",
        "Its networks are built for it; ours are unmodified.",
    ),
)
