"""Sampled sentences: how a language model goes on."""

from collections.abc import Sequence

import torch
from torch import Tensor

from elision.common.checks import integer, number
from elision.workloads.models.language import LstmLanguageModel, States
from elision.workloads.tokens import BOS, EOS, PAD

__all__ = ["sample"]


@torch.no_grad()
def sample(
    model: LstmLanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    temperature: float = 1.0,
    top: int | None = None,
    max_length: int = 50,
    generator: torch.Generator | None = None,
) -> list[list[int]]:
    """Continue sentences by tokens drawn from the model's distribution.

    Args:
        model: a network with a method ``read`` as :class:`LstmLanguageModel` has; in
            evaluation mode, or its dropout is part of the sample.
        prompts: tokens that each sentence begins with, none or more, without the mark.
        temperature: divides the scores; below 1 the likely tokens become likelier still.
        top: draw from so many likeliest tokens; None: from all.
        max_length: most tokens that are added to a sentence, the ending one included.
        generator: of the random numbers; default: torch's global one.

    Returns:
        The tokens added to each prompt, without the one that ends a sentence.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> model = LstmLanguageModel(vocabulary=9, width=8, layers=1).eval()
        >>> (found,) = sample(model, [[5, 7]], max_length=4)
        >>> len(found) <= 4
        True
    """
    number("sample", "temperature", temperature, "> 0")
    integer("sample", "max_length", max_length)
    if top is not None:
        integer("sample", "top", top)
    return [
        _continued(model, prompt, temperature, top, max_length, generator)
        for prompt in prompts
    ]


def _continued(
    model: LstmLanguageModel,
    prompt: Sequence[int],
    temperature: float,
    top: int | None,
    max_length: int,
    generator: torch.Generator | None,
) -> list[int]:
    """One sentence at a time: the prompts' lengths differ, and a token costs little."""
    device = model.embedding.weight.device
    tokens = torch.tensor([[BOS, *prompt]], device=device)
    states: States | None = None
    found: list[int] = []
    for _ in range(max_length):
        scores, states = model.read(tokens, states)
        chosen = _drawn(scores[0, -1].float() / temperature, top, generator)
        if chosen == EOS:
            break
        found.append(chosen)
        tokens = torch.tensor([[chosen]], device=device)
    return found


def _drawn(scores: Tensor, top: int | None, generator: torch.Generator | None) -> int:
    """A token that can follow: neither padding nor the mark that begins a sentence."""
    scores = scores.index_fill(
        0, torch.tensor([PAD, BOS], device=scores.device), -torch.inf
    )
    if top is not None and top < len(scores):
        least = scores.topk(top).values[-1]
        scores = scores.masked_fill(scores < least, -torch.inf)
    # Drawn on the CPU, so that a generator's numbers are the same for every device.
    shares = scores.softmax(0).cpu()
    return int(torch.multinomial(shares, 1, generator=generator))
