"""Damage: what a disk, an editor, another program or an attacker makes of a file."""

import json
import random
from collections.abc import Callable
from typing import Any

__all__ = ["changed_bytes", "changed_json", "changed_text"]


def changed_bytes(content: bytes, drawn: random.Random) -> bytes:
    """A file cut, with bits flipped, bytes set, parts repeated, exchanged or inserted."""
    size = max(len(content), 1)
    at, length = drawn.randrange(size), drawn.choice((1, 2, 4, 8, 64))
    kind = drawn.randrange(7)
    if kind == 0:
        return content[:at]
    if kind == 1:
        changed = bytearray(content)
        for _ in range(drawn.choice((1, 1, 1, 8))):
            if changed:
                changed[drawn.randrange(len(changed))] ^= 1 << drawn.randrange(8)
        return bytes(changed)
    if kind == 2:
        filled = drawn.choice((b"\0", b"\xff", b"\x80", b"9", b"[", b"\n")) * length
        return content[:at] + filled + content[at + length :]
    if kind == 3:
        other = drawn.randrange(size)
        part, there = content[at : at + length], content[other : other + length]
        swapped = bytearray(content)
        swapped[at : at + length], swapped[other : other + length] = there, part
        return bytes(swapped)
    if kind == 4:
        return content[:at] + content[max(0, at - length * 16) :]
    if kind == 5:
        return content[:at] + drawn.randbytes(length) + content[at:]
    return drawn.randbytes(drawn.choice((0, 1, 8, 4096)))


#: Values that a number, a text or a list can be replaced with.
_VALUES: tuple[Callable[[], Any], ...] = (
    lambda: 0,
    lambda: -1,
    lambda: 1.5,
    lambda: 10**12,
    lambda: 2**63,
    lambda: 10**400,
    lambda: float("nan"),
    lambda: float("inf"),
    lambda: "",
    lambda: "x" * 10_000,
    lambda: "<script>alert(1)</script>",
    lambda: "../../outside",
    lambda: "=1+1",
    lambda: "a\nb\x1b[31m",
    lambda: "$\\frac{$",
    lambda: "\ud800",
    lambda: None,
    lambda: True,
    list,
    dict,
    lambda: [[[[[[[[]]]]]]]],
)


def changed_json(value: Any, drawn: random.Random) -> Any:
    """A structure with one place replaced, removed, repeated or exchanged."""
    places = list(_places(value))
    if not places:
        return drawn.choice(_VALUES)()
    holder, key = drawn.choice(places)
    kind = drawn.randrange(6)
    if kind < 3:
        holder[key] = drawn.choice(_VALUES)()
    elif kind == 3:
        del holder[key]
    elif kind == 4:
        other_holder, other_key = drawn.choice(places)
        try:
            held, there = holder[key], other_holder[other_key]
            holder[key], other_holder[other_key] = there, held
            json.dumps(value)  # one that now holds itself
        except (KeyError, IndexError, ValueError, RecursionError):
            return {}
    elif isinstance(holder, dict):
        holder[drawn.choice(("", "more", "__class__", "../x"))] = holder[key]
    else:
        holder.append(holder[key])
    return value


def _places(value: Any) -> Any:
    items: Any = ()
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for key, item in items:
        yield value, key
        yield from _places(item)


#: Words that replace a word of a text file.
_WORDS = (
    *(
        "",
        "0",
        "-1",
        "1e308",
        "nan",
        "9" * 400,
        "1000000000000",
        '"',
        "'",
        "[" * 100_000,
    ),
    *(
        "{" * 1000,
        "=",
        "true",
        "\x00",
        "../..",
        "<b>",
        "=cmd|' /C calc'!A0",
        "\u202e",
        "é",
    ),
)


def changed_text(content: bytes, drawn: random.Random) -> bytes:
    """A text file with a word, a line or a few bytes changed."""
    if drawn.random() < 0.3:
        return changed_bytes(content, drawn)
    lines = content.decode("utf-8", "replace").split("\n")
    at = drawn.randrange(len(lines))
    kind = drawn.randrange(5)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(at, lines[drawn.randrange(len(lines))])
    elif kind == 2:
        other = drawn.randrange(len(lines))
        lines[at], lines[other] = lines[other], lines[at]
    else:
        parts = _split(lines[at])
        parts[drawn.randrange(len(parts))] = drawn.choice(_WORDS)
        lines[at] = "".join(parts)
    return "\n".join(lines).encode("utf-8", "replace")


def _split(line: str) -> list[str]:
    """Words and what stands between them."""
    parts, word = [], ""
    for character in line:
        if character.isalnum() or character in "_.-":
            word += character
            continue
        parts += [word, character] if word else [character]
        word = ""
    return [*parts, word] if word or not parts else parts
