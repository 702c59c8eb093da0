"""Damage that knows a form: JSON, the header of safetensors, what a gzip file holds."""

import gzip
import hashlib
import json
import random
from typing import Any

from campaigns.mutate import changed_bytes, changed_json, changed_text
from campaigns.poison.kind import Damage

__all__ = [
    "JSON",
    "SEALED",
    "TEXT",
    "header_sizes",
    "json_text",
    "or_one_of",
    "resealed_facts",
    "resealed_trace",
    "unzipped",
]


def json_text(content: bytes, drawn: random.Random) -> bytes:
    """JSON with one place changed."""
    return json.dumps(changed_json(json.loads(content), drawn)).encode()


def header_sizes(content: bytes, drawn: random.Random) -> bytes:
    """Safetensors whose header names other sizes, offsets or types."""
    header, body = _parts(content)
    return _whole(changed_json(header, drawn), body)


def resealed_trace(content: bytes, drawn: random.Random) -> bytes:
    """A trace whose facts or values are changed and whose digest fits them: forged."""
    header, body = _parts(content)
    facts = json.loads(header["__metadata__"]["elision"])
    if drawn.random() < 0.8:
        facts = changed_json(facts, drawn)
    else:
        body = changed_bytes(body, drawn)
    if isinstance(facts, dict):
        _reseal(facts, header, body)
    header["__metadata__"]["elision"] = json.dumps(facts)
    return _whole(header, body)


def resealed_facts(content: bytes, drawn: random.Random) -> bytes:
    """A file of tensors with other facts and no checksums, as files of before had none."""
    header, body = _parts(content)
    facts = json.loads(header["__metadata__"]["elision"])
    facts = {k: v for k, v in facts.items() if not k.startswith("elision.")}
    header["__metadata__"]["elision"] = json.dumps(changed_json(facts, drawn))
    return _whole(header, body)


def _parts(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and tensors of a safetensors file."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def _whole(header: Any, body: bytes) -> bytes:
    text = json.dumps(header).encode("utf-8", "replace")
    return len(text).to_bytes(8, "little") + text + body


def _reseal(facts: dict[str, Any], header: dict[str, Any], body: bytes) -> None:
    """A digest as a trace has it, if this is one."""
    facts.pop("digest", None)
    tensors = facts.get("tensors")
    if not isinstance(tensors, dict):
        return
    total = hashlib.blake2b(json.dumps(facts).encode(), digest_size=16)
    for key in tensors:
        for part in ("mask", "values"):
            begin, end = header.get(f"{key}.{part}", {}).get("data_offsets", (0, 0))
            total.update(body[begin:end])
    facts["digest"] = total.hexdigest()


def unzipped(damage: Damage, bomb: bytes = b"") -> Damage:
    """Damage of what a gzip file holds, or in its place a small file that inflates."""

    def damaged(content: bytes, drawn: random.Random) -> bytes:
        if bomb and drawn.random() < 0.02:
            return bomb
        if drawn.random() < 0.2:
            return changed_bytes(content, drawn)
        return gzip.compress(damage(gzip.decompress(content), drawn), 1)

    return damaged


def or_one_of(hostile: tuple[bytes, ...], share: float = 0.2) -> Damage:
    """Damage of the bytes, or a file that was made to do harm."""

    def damaged(content: bytes, drawn: random.Random) -> bytes:
        if drawn.random() < share:
            return drawn.choice(hostile)
        return changed_bytes(content, drawn)

    return damaged


TEXT = (changed_text,)
JSON = (changed_bytes, json_text, json_text)
SEALED = (changed_bytes, header_sizes)
