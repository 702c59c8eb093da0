"""Tensors between processors: who sends what to whom, in an order that both sides know."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

__all__ = ["Mail", "Message"]

#: Receives that are posted ahead on each link, so that a tensor is on its way while its
#: receiver still computes.
_AHEAD = 4


@dataclass(frozen=True)
class Message:
    """One or more tensors from one processor to another.

    Attributes:
        what: ``"activation"``, ``"gradient"``, ``"operands"`` of a weight gradient that
            is computed elsewhere, ``"weight gradient"`` on its way back, ``"half's
            operands"`` of a share of an input gradient that is computed elsewhere, or
            ``"half"`` on its way back.
        stage: whose input, output gradient or weight gradient it is.
        microbatch: from 0.
        part: of the stage's weight gradient; else 0.
    """

    what: str
    stage: int
    microbatch: int
    part: int = 0

    def __str__(self) -> str:
        return f"{self.what} of micro-batch {self.microbatch} at stage {self.stage}"


class _Link:
    """What comes from one other processor, in the order in which it is sent."""

    def __init__(
        self,
        source: int,
        expected: Iterable[Message],
        shapes: Mapping[tuple[str, int, int], Sequence[Tensor]],
    ) -> None:
        self.source, self.shapes = source, shapes
        self.expected = deque(expected)
        self.posted: deque[tuple[Message, list[tuple[distributed.Work, Tensor]]]]
        self.posted = deque()
        self.found: dict[Message, list[Tensor]] = {}

    def post(self) -> None:
        while self.expected and len(self.posted) < _AHEAD:
            message = self.expected.popleft()
            like = self.shapes[message.what, message.stage, message.part]
            works = []
            for one in like:
                into = torch.empty_like(one)
                work = distributed.irecv(into, self.source)
                assert work is not None
                works.append((work, into))
            self.posted.append((message, works))

    def take(self, message: Message) -> list[Tensor]:
        while message not in self.found:
            self.post()
            came, works = self.posted.popleft()
            for work, _ in works:
                work.wait()
            self.found[came] = [tensor for _, tensor in works]
        self.post()
        return self.found.pop(message)


class Mail:
    """This processor's sends and receives.

    Every processor knows the whole schedule, so that messages carry no header: those from
    one processor to another arrive in the order in which they are sent.

    Args:
        expected: the messages of each other processor to this one, in their order.
        shapes: tensors of the shape and type of each kind of message, by what, stage and
            part.
    """

    def __init__(
        self,
        expected: Mapping[int, Sequence[Message]],
        shapes: Mapping[tuple[str, int, int], Sequence[Tensor]],
    ) -> None:
        self._links = {s: _Link(s, m, shapes) for s, m in expected.items()}
        self._sent: deque[tuple[distributed.Work, Tensor]] = deque()
        for link in self._links.values():
            link.post()

    def send(self, tensors: Sequence[Tensor], to: int) -> None:
        """Send without waiting; the tensors must not change afterwards."""
        while self._sent and self._sent[0][0].is_completed():
            self._sent.popleft()[0].wait()
        for tensor in tensors:
            held = tensor.contiguous()
            work = distributed.isend(held, to)
            assert work is not None
            self._sent.append((work, held))

    def take(self, message: Message, source: int) -> list[Tensor]:
        """Wait for a message."""
        return self._links[source].take(message)

    def finish(self) -> None:
        """Wait until everything sent has been received."""
        while self._sent:
            self._sent.popleft()[0].wait()
