"""Continuation: how a trained language model goes on, and what a token costs it."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from elision.common.checks import integer, number
from elision.study.probes.base import Probe, Trained
from elision.study.probes.unigram import unigram_nll
from elision.workloads import Sentences, sample
from elision.workloads.tokens import EOS

__all__ = ["Continuation"]


@dataclass(frozen=True)
class Continuation(Probe):
    """Test sentences continued by sampling, and nats a token beside a unigram model's.

    Bits a character compare models whose vocabularies differ, as perplexity does not.

    Attributes:
        prompt: tokens of a sentence that the model is given.
        temperature: divides the scores before a token is drawn.
        top: tokens that may be drawn, the likeliest; None: all.
        samples: sentences that are shown, spread evenly.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> Continuation(temperature=0)
        Traceback (most recent call last):
        ValueError: continuation(temperature=0): must be a number > 0
    """

    prompt: int = 6
    temperature: float = 0.8
    top: int | None = None
    samples: int = 10

    def __post_init__(self) -> None:
        integer("continuation", "prompt", self.prompt, ">= 0")
        number("continuation", "temperature", self.temperature, "> 0")
        if self.top is not None:
            integer("continuation", "top", self.top)
        integer("continuation", "samples", self.samples, ">= 0")

    def headline(self, found: dict[str, Any]) -> str:
        """Nats a token."""
        return f"{found['nll']:.2f} nats a token"

    def run(self, trained: Trained) -> dict[str, Any]:
        """Negative log-likelihoods of the test's tokens, and sampled sentences.

        Raises:
            ValueError: the study is of another task.
        """
        data, task = trained.dataset, trained.workload.task
        if not isinstance(data, Sentences):
            raise ValueError(
                f"probe continuation: workload {trained.workload.name!r} does not model "
                "sentences"
            )
        batches = task.test_batches(data, trained.workload.batch_size)
        total, tokens = task.counted(trained.model, batches).tolist()
        learned, tested = (
            [[*sentence, EOS] for sentence in part]
            for part in (data.train_tokens, data.test_tokens)
        )
        # The end of a sentence counts as one character.
        characters = sum(len(sentence) + 1 for sentence in data.test)
        return {
            "nll": total / tokens,
            "nll_of_a_unigram_model": unigram_nll(
                learned, tested, len(data.vocabulary)
            ),
            "bits_a_character": total / math.log(2) / characters,
            "sentences": len(data.test),
            "samples": self._samples(trained, data),
        }

    def _samples(self, trained: Trained, data: Sentences) -> list[list[str]]:
        """Of each shown sentence its beginning, the sentence, and what was sampled."""
        count = min(self.samples, len(data.test))
        shown = [i * len(data.test) // count for i in range(count)]
        prompts = [data.test_tokens[i][: self.prompt] for i in shown]
        continued = sample(
            trained.model.eval(),  # pyright: ignore[reportArgumentType]
            prompts,
            temperature=self.temperature,
            top=self.top,
            generator=torch.Generator().manual_seed(trained.seed),
        )
        decode = data.vocabulary.decode
        return [
            [decode(prompt), data.test[i], decode([*prompt, *added])]
            for i, prompt, added in zip(shown, prompts, continued, strict=True)
        ]
