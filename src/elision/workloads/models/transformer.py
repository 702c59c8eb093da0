"""A small vision transformer: Dosovitskiy et al., ICLR 2021, arXiv 2010.11929.

Pre-normalised encoder blocks over patches cut by a strided convolution. The scores are
read from the mean of the tokens, not from a class token (an own choice, as are the
default sizes). Every product with a weight is an ``nn.Linear`` or the ``nn.Conv2d``.
"""

import torch
import torch.nn.functional as F
from torch import nn

from elision.workloads.models.base import check_positive

__all__ = ["Transformer", "transformer"]

#: Hidden units of a block's perceptron in multiples of the width (ViT, table 1).
MLP_RATIO = 4
#: Standard deviation of the weights at the start, as in ViT code (truncated normal).
WEIGHT_STD = 0.02


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al., 2017)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(N, tokens, width)`` to the same shape."""
        n, tokens, width = x.shape
        split = self.qkv(x).view(n, tokens, 3, self.heads, width // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).reshape(n, tokens, width))


class Block(nn.Module):
    """Attention and a two-layer perceptron, each pre-normalised and residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, MLP_RATIO * width)
        self.fc2 = nn.Linear(MLP_RATIO * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(N, tokens, width)`` to the same shape."""
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Transformer(nn.Module):
    """Patches, learned positions, encoder blocks, mean of the tokens, linear layer.

    Args:
        in_channels: channels of the image.
        classes: outputs.
        image_size: (height, width) of the image.
        patch: side of a patch; divides both.
        width: size of a token.
        depth: encoder blocks.
        heads: attention heads; divides the width.

    Raises:
        ValueError: the patch does not divide the image, or the heads the width.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        classes: int,
        image_size: tuple[int, int],
        patch: int,
        width: int,
        depth: int,
        heads: int,
    ) -> None:
        super().__init__()
        check_positive(
            "Transformer", patch=patch, width=width, depth=depth, heads=heads
        )
        check_positive("Transformer", in_channels=in_channels, classes=classes)
        if image_size[0] % patch or image_size[1] % patch:
            raise ValueError(
                f"Transformer(patch={patch}): must divide image_size={image_size}"
            )
        if width % heads:
            raise ValueError(f"Transformer(heads={heads}): must divide width={width}")
        tokens = (image_size[0] // patch) * (image_size[1] // patch)
        self.patches = nn.Conv2d(in_channels, width, patch, patch)
        self.position = nn.Parameter(torch.empty(1, tokens, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, classes)
        nn.init.trunc_normal_(self.position, std=WEIGHT_STD)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=WEIGHT_STD)
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores ``(N, classes)`` of images ``(N, in_channels, H, W)``."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.position
        return self.classifier(self.norm(self.blocks(tokens)).mean(1))


def transformer(
    *,
    in_channels: int,
    classes: int,
    image_size: tuple[int, int],
    patch: int = 4,
    width: int = 64,
    depth: int = 4,
    heads: int = 4,
) -> Transformer:
    """Four encoder blocks of width 64 over 4x4 patches."""
    return Transformer(
        in_channels=in_channels,
        classes=classes,
        image_size=image_size,
        patch=patch,
        width=width,
        depth=depth,
        heads=heads,
    )
