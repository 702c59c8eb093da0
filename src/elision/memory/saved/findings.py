"""Where a saver does not pay, by its ledger, and what would help there.

Nothing is guessed from the model: every finding follows from tensors that were saved.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from elision.memory.saved.ledger import Ledger, Row, size_text
from elision.memory.saved.roles import Role

__all__ = ["Finding", "findings"]

#: Below this factor a saver does not pay (own choice: its hooks alone take some percent
#: of a step's time).
_PAYS = 1.1

#: Below this factor it adds little to checkpointing (own choice).
_ADDS = 1.25

#: Custom function of checkpointing with reentrance.
_REENTRANT = "CheckpointFunctionBackward"

#: Names that one finding lists.
_NAMED = 4


@dataclass(frozen=True)
class Finding:
    """One thing that a ledger shows.

    Attributes:
        kind: ``"checkpointed"``, ``"packed again"``, ``"workspace"``, ``"one function"``
            or ``"does not pay"``.
        text: in one sentence or two.
        useless: whether checkpointing or the saver makes the other useless, which a user
            is warned of.
    """

    kind: str
    text: str
    useless: bool = False


def findings(ledger: Ledger) -> list[Finding]:
    """What the ledger shows of a use of the saver.

    Example:
        >>> from elision.memory.saved.ledger import StorageRecord
        >>> from elision.memory.saved.roles import Slot
        >>> ledger, batch = Ledger(), StorageRecord(2**20, held=True)
        >>> ledger.enter(batch)
        >>> slot = Slot("ConvolutionBackward0", "input", Role.BATCH)
        >>> _ = ledger.add(slot, (2**18,), 2**20, batch)
        >>> print(findings(ledger)[0].text)
        the saver does not pay here (1.00x): 1.00 MiB of what it holds are the batch \
(pack_batch=True packs it)
    """
    found: list[Finding] = []
    if not ledger.rows:
        return found
    ratio = ledger.logical_bytes / max(ledger.stored_bytes + ledger.elsewhere_bytes, 1)
    pays = ratio >= _PAYS
    if ledger.checkpointed:
        found.append(_checkpointed(ledger, ratio))
    again = any(row.slot.function == _REENTRANT for row in ledger.rows)
    if again and ledger.recomputed_bytes:
        text = (
            f"packed again: {size_text(ledger.recomputed_bytes)} were saved in the "
            "backward pass, where checkpointing with reentrance runs its regions a second "
            "time inside the saver's block, and were packed only to be brought back at "
            "once; leave the block before backward()"
        )
        found.append(Finding("packed again", text, useless=True))
    if (workspace := _workspace(ledger)) is not None:
        found.append(workspace)
    elif pays and (largest := _one_function(ledger)) is not None:
        found.append(largest)
    if not pays:
        found.append(_does_not_pay(ledger, ratio))
    return found


def _checkpointed(ledger: Ledger, ratio: float) -> Finding:
    names = _names(ledger.checkpointed)
    text = (
        f"checkpointed: the tensors of {names} are computed again in the backward pass, so "
        "the saver has none of them; what these modules are called with is held as it is"
    )
    useless = ratio < _ADDS
    if useless:
        saved = max(ledger.logical_bytes - ledger.stored_bytes, 0)
        text += (
            ". Checkpointing makes the saver useless there, and in the rest of the model "
            f"it saves {size_text(saved)} of {size_text(ledger.logical_bytes)}: take one "
            "of the two (elision.memory.compare_ways measures both)"
        )
    return Finding("checkpointed", text, useless=useless)


def _workspace(ledger: Ledger) -> Finding | None:
    """Recurrent layers of oneDNN, if they keep most of what is saved."""
    rows = ledger.rows_of([Role.WORKSPACE])
    kept = sum(row.logical_bytes for row in rows)
    if 2 * kept < ledger.logical_bytes:
        return None
    text = (
        f"workspaces: {_modules(rows)}, recurrent layers of oneDNN, keep "
        f"{size_text(kept)} of {size_text(ledger.logical_bytes)} in workspaces, which the "
        "backward pass computes again a layer at a time, as a whole: a step's peak falls "
        f"by {ledger.peak_ratio_at_most:.2f}x at most, and oneDNN's own backward pass needs "
        "as much again. `with torch.backends.mkldnn.flags(enabled=False):` around the "
        "forward pass runs them without a workspace; elision.memory.compare_ways measures "
        "that"
    )
    return Finding("workspace", text)


def _one_function(ledger: Ledger) -> Finding | None:
    """A function whose tensors come back at once, if that undoes the saving."""
    if ledger.peak_ratio_at_most >= _PAYS:
        return None
    largest: dict[int, list[Row]] = {}
    for row in ledger.rows:
        largest.setdefault(row.call, []).append(row)
    rows = max(largest.values(), key=lambda rows: sum(r.restored_bytes for r in rows))
    restored = sum(row.restored_bytes for row in rows)
    function = rows[0].slot.function.partition("Backward")[0]
    text = (
        f"one function: the backward pass of {function} in {_modules(rows)} brings back "
        f"{size_text(restored)} of {size_text(ledger.logical_bytes)} at once, so that a "
        f"step's peak hardly falls ({ledger.peak_ratio_at_most:.2f}x at most); smaller "
        "batches, with accumulated gradients, lower it"
    )
    return Finding("one function", text)


def _does_not_pay(ledger: Ledger, ratio: float) -> Finding:
    held: dict[str, int] = {}

    def count(what: str, nbytes: int) -> None:
        held[what] = held.get(what, 0) + nbytes

    for row, stored in ledger.stored_by_row():
        if row.codec != "kept":
            continue
        if row.slot.role is Role.BATCH:
            count("the batch (pack_batch=True packs it)", stored)
        elif row.slot.function == "many":
            count(
                "small tensors that are quicker to keep than to pack (a larger batch, or "
                "fewer and longer calls, make them worth it)",
                stored,
            )
        elif row.slot.function in ("unknown", _REENTRANT) and ledger.checkpointed:
            count("what checkpointed modules are called with", stored)
        else:
            count(f"tensors kept as they are by role ({row.slot.role.value})", stored)
    count(
        "originals that the caller or the model still refers to (drop the references)",
        ledger.elsewhere_bytes,
    )
    most = sorted(held.items(), key=lambda item: -item[1])[:_NAMED]
    parts = [
        f"{size_text(nbytes)} of what it holds are {what}" for what, nbytes in most
    ]
    reasons = "; ".join(part for part, (_, n) in zip(parts, most, strict=True) if n)
    return Finding(
        "does not pay", f"the saver does not pay here ({ratio:.2f}x): {reasons}"
    )


def _modules(rows: Iterable[Row]) -> str:
    return _names(dict.fromkeys(row.slot.module or "the model" for row in rows))


def _names(paths: Iterable[str]) -> str:
    names = [path or "the model" for path in paths]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
