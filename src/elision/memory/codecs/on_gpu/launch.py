"""What the kernels' launches have in common."""

from typing import Any

__all__ = ["EXACT", "word"]

#: No product and sum become one operation of a single rounding: results are those of the
#: torch version, bit for bit.
EXACT: dict[str, Any] = {"enable_fp_fusion": False}


def word(number: int) -> int:
    """A number of 32 bits as a signed one, which is passed as an ``int32``."""
    return (number & 0xFFFFFFFF) - (2**32 if number & 0x80000000 else 0)
