"""Server: weights, what it sends, and what it makes of the clients' reports."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from elision.common.seeds import seed_at, stream_of
from elision.training.parallel.compressors import State
from elision.training.parallel.compressors.base import Message
from elision.training.parallel.federated.client import Clients, Job, Report
from elision.training.parallel.federated.privacy import clipped
from elision.training.parallel.federated.secure import Codes, Seeds
from elision.training.parallel.outer.rules.base import Memory

__all__ = ["Server"]


@dataclass(frozen=True)
class _Update:
    """A report as the server reads it: tensors that it may add."""

    client: int
    weight: float
    tensors: list[Tensor]
    buffers: dict[str, Tensor]


class Server:
    """The state of a federated run between rounds.

    Args:
        clients: of the run; of them the server reads sizes, shapes and masks.

    Attributes:
        weights: one tensor a parameter.
        buffers: running statistics, by name: the mean of the clients'.
        view: weights that clients hold: :attr:`weights`, or what compressed changes have
            made of them.

    Example:
        >>> from elision.methods import Dense
        >>> from elision.training.parallel.federated import FederatedPlan
        >>> from elision.workloads import Workload
        >>> small = Workload(name="small", dataset="digits", model="mlp", train_images=50)
        >>> clients = Clients(small, Dense(), small.load_dataset(), FederatedPlan())
        >>> server = Server(clients)
        >>> values = sum(weight.numel() for weight in server.weights)
        >>> server.download_bits(0) == 32 * values
        True
    """

    def __init__(self, clients: Clients) -> None:
        self._clients, self._plan = clients, clients.plan
        self._rule = clients.rule
        self._down = self._plan.down_compressor()
        self.weights = clients.first_weights()
        self.buffers = {n: b.detach().clone() for n, b in clients.buffers.items()}
        self.view = [w.clone() for w in self.weights]
        self._shared: list[Memory] = [{} for _ in self.weights]
        self._memories: dict[int, list[Memory]] = {}
        self._sent: dict[int, list[tuple[int, dict[str, Tensor]]]] = {}
        #: By client, the number of changes of the view that it has.
        self._has: dict[int, int] = {}
        self._changes: list[int] = []
        self._states = [
            State(name=f"down {i}", seed=self._plan.seed, mask=mask)
            for i, mask in enumerate(clients.masks)
        ]
        self._late: list[tuple[int, _Update]] = []

    def job(self, client: int, *, round: int, slow: bool) -> Job:
        """What a client is sent."""
        told = [{n: m[n] for n in self._rule.told if n in m} for m in self._shared]
        return Job(
            client,
            round,
            slow,
            list(self.view),
            dict(self.buffers),
            told,
            self._memories.get(client, []),
            self._sent.get(client, []),
        )

    def download_bits(self, client: int) -> int:
        """Bits by which a client comes to hold what the next job begins with.

        Whole weights; or, where changes are compressed, those that the client has missed,
        if they are fewer bits.
        """
        whole = 32 * sum(w.numel() for w in self.weights)
        if self._down is not None and client in self._has:
            whole = min(whole, sum(self._changes[self._has[client] :]))
        told = sum(
            32 * m[n].numel() for m in self._shared for n in self._rule.told if n in m
        )
        return whole + told + 32 * sum(b.numel() for b in self.buffers.values())

    def note_download(self, client: int) -> None:
        """A client holds the view now."""
        self._has[client] = len(self._changes)

    def upload_bits(self, report: Report) -> int:
        """Bits of a client's messages, running statistics included."""
        buffers = sum(b.numel() for b in report.buffers.values())
        masks = self._plan.secure_sum()
        if masks is not None:
            return masks.bits * (
                sum(_added(m).numel() for m in report.messages) + buffers
            )
        return 32 * buffers + sum(
            m.bits if isinstance(m, Message) else 8 * m.nbytes for m in report.messages
        )

    def keep(self, report: Report) -> None:
        """What a client keeps until its next round, if its messages were used."""
        if any(report.memories):
            self._memories[report.client] = report.memories
        if any(tensors for _, tensors in report.sent) or self._plan.up is not None:
            self._sent[report.client] = report.sent

    @torch.no_grad()
    def finish(
        self,
        round: int,
        drawn: Sequence[int],
        reports: Sequence[Report],
        late: Sequence[Report] = (),
    ) -> tuple[int, int]:
        """Make new weights of a round's reports; clients keep what they are to keep.

        Args:
            round: from 0.
            drawn: clients of the round.
            reports: those that came, in the order of their clients.
            late: those that will come later.

        Returns:
            Messages of earlier rounds that came in this one, and bits of seeds revealed.
        """
        slow = self._plan.slow()
        for report in late:
            assert slow is not None
            self._late.append((round + slow.delay, self._read(report)))
        came = [update for due, update in self._late if due == round]
        self._late = [(due, update) for due, update in self._late if due > round]
        revealed = 0
        masks = self._plan.secure_sum()
        if masks is None or len(reports) >= masks.least:
            for report in (*reports, *late):
                self.keep(report)
        if self._plan.secure is not None:
            revealed = self._secure(round, drawn, reports)
        else:
            updates = [self._read(report) for report in reports] + came
            if updates or self._plan.privacy is not None:
                self._plain(round, updates)
        self._publish()
        return len(came), revealed

    def _weight(self, examples: int) -> float:
        even = not self._rule.weighted or self._plan.privacy is not None
        return 1.0 if even else float(examples)

    def _read(self, report: Report) -> _Update:
        """A report with its messages decompressed, and clipped where that is due."""
        up = self._plan.up_compressor()
        tensors = [
            m if isinstance(m, Tensor) else up.decompress(m)  # pyright: ignore[reportOptionalMemberAccess]
            for m in report.messages
        ]
        noise = self._plan.mechanism()
        if noise is not None:
            # What a compressor made of it may be longer than what it was given.
            tensors, _ = clipped(tensors, noise.clip)
        return _Update(
            report.client, self._weight(report.examples), tensors, report.buffers
        )

    def _plain(self, round: int, updates: Sequence[_Update]) -> None:
        """The weighted mean of updates that the server reads."""
        totals = [torch.zeros_like(w) for w in self.weights]
        if updates:
            totals = [torch.zeros_like(t) for t in updates[0].tensors]
        for update in updates:
            for total, tensor in zip(totals, update.tensors, strict=True):
                total.add_(tensor, alpha=update.weight)
        whole = sum(update.weight for update in updates)
        for name in self.buffers if updates else ():
            buffer = torch.zeros_like(self.buffers[name])
            for update in updates:
                buffer.add_(update.buffers[name], alpha=update.weight)
            self.buffers[name] = buffer / whole
        self._move(round, totals, whole, len({u.client for u in updates}))

    def _secure(
        self, round: int, drawn: Sequence[int], reports: Sequence[Report]
    ) -> int:
        """The sum of masked messages; bits of the seeds that clients revealed."""
        masks = self._plan.secure_sum()
        assert masks is not None
        if len(reports) < masks.least:
            return 0
        # Weights in (0, 1], known to the server, as fixed-point values need.
        most = max(self._weight(r.examples) for r in reports)
        most = max([most, *(self._weight(self._clients.sizes[c]) for c in drawn)])
        seeds = Seeds(f"{self._plan.seed}/{round}")
        sent: list[Codes] = []
        for report in reports:
            flat = [_added(m).flatten() for m in report.messages]
            flat += [report.buffers[n].flatten() for n in self.buffers]
            values = torch.cat(flat).double() * (self._weight(report.examples) / most)
            codes = masks.encode(values.numpy(), len(drawn))
            sent.append(masks.mask(codes, report.client, drawn, seeds))
        reported = [report.client for report in reports]
        total = masks.unmask(sent, reported, drawn, seeds)
        sums = torch.from_numpy(masks.decode(total, len(drawn))).float()
        like: list[Any] = [_added(m) for m in reports[0].messages]
        pieces = sums.split([t.numel() for t in (*like, *self.buffers.values())])
        whole = sum(self._weight(report.examples) for report in reports) / most
        up = self._plan.up_compressor()
        totals = []
        for message, piece in zip(reports[0].messages, pieces, strict=False):
            if isinstance(message, Message):
                assert up is not None
                summed = replace(message, parts=(piece.view(message.parts[0].shape),))
                totals.append(up.decompress(summed))
            else:
                totals.append(piece.view(message.shape))
        for name, piece in zip(self.buffers, pieces[len(like) :], strict=True):
            self.buffers[name] = piece.view(self.buffers[name].shape) / whole
        self._move(round, totals, whole, len(reports))
        return masks.revealed_bits(len(reported), len(drawn) - len(reported))

    def _move(self, round: int, totals: list[Tensor], whole: float, count: int) -> None:
        """The rule's step by the mean of weighted messages."""
        everyone = len(self._clients.sizes)
        noise = self._plan.mechanism()
        if noise is not None:
            seed = seed_at(stream_of("noise", self._plan.seed), round)
            means = noise.noisy_mean(totals, self._plan.participation * everyone, seed)
        else:
            means = [total / whole for total in totals]
        per = len(means) // len(self.weights)
        for i, weight in enumerate(self.weights):
            own = means[i * per : (i + 1) * per]
            self.weights[i] = self._rule.move(
                weight, own, self._shared[i], min(1.0, count / everyone)
            )
            mask = self._clients.masks[i]
            if mask is not None:  # noise and lossy codes know no mask
                self.weights[i] = self.weights[i] * mask

    def _publish(self) -> None:
        """Bring the clients' view to the weights, or near them."""
        if self._down is None:
            self.view = [w.clone() for w in self.weights]
            return
        bits = 0
        for i, (weight, state) in enumerate(
            zip(self.weights, self._states, strict=True)
        ):
            message = self._down.compress((weight - self.view[i]).contiguous(), state)
            self.view[i] = self.view[i] + self._down.decompress(message)
            bits += message.bits
        self._changes.append(bits)

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors from which :meth:`load_state_dict` goes on."""
        return {
            "weights": self.weights,
            "buffers": self.buffers,
            "view": self.view,
            "shared": self._shared,
            "memories": {str(k): v for k, v in self._memories.items()},
            "sent": {str(k): v for k, v in self._sent.items()},
            "has": {str(k): v for k, v in self._has.items()},
            "changes": self._changes,
            "states": [(s.step, s.tensors) for s in self._states],
            "late": [
                (due, [u.client, u.weight, u.tensors, u.buffers])
                for due, u in self._late
            ],
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            ValueError: it is of other weights.
        """
        shapes = [w.shape for w in self.weights]
        if [w.shape for w in saved["weights"]] != shapes:
            raise ValueError("the weights of this run have other shapes")
        self.weights, self.buffers = saved["weights"], saved["buffers"]
        self.view, self._shared = saved["view"], saved["shared"]
        self._memories = {int(k): v for k, v in saved["memories"].items()}
        self._sent = {
            int(k): [(step, tensors) for step, tensors in v]
            for k, v in saved["sent"].items()
        }
        self._has = {int(k): v for k, v in saved["has"].items()}
        self._changes = saved["changes"]
        for state, (step, tensors) in zip(self._states, saved["states"], strict=True):
            state.step, state.tensors = step, tensors
        self._late = [(due, _Update(*update)) for due, update in saved["late"]]


def _added(message: Message | Tensor) -> Tensor:
    """The values of a message that a sum adds."""
    return message if isinstance(message, Tensor) else message.parts[0]
