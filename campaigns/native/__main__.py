"""``python -m campaigns.native WHICH COUNT SEED``: calls in the variant of this process.

Prints, as JSON, the fields of a :class:`campaigns.campaign.Row`.
"""

import json
import random
import sys
from collections import Counter
from typing import Any

from campaigns.native import CASES, KINDS
from campaigns.native.call import Call, Values, judged
from campaigns.native.values import NOT_FINITE
from elision.native import shared_object

#: What a process tries: operands about 1, or those at the ends of the range.
WHICH = ("rounding", "ends")


def main() -> None:
    """Call kernel after kernel, and print what came of it."""
    which, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if which not in WHICH:
        sys.exit(f"{which!r}: must be one of {', '.join(WHICH)}")
    counts, bad, errors = Counter[str](), list[str](), dict[str, float]()
    names = list(CASES)
    for trial in range(count):
        name = names[trial % len(names)]
        drawn = random.Random(f"{seed}/{name}/{trial}")
        call = CASES[name].draw(drawn, False)
        if call is None:
            counts["no such kernel"] += 1
            continue
        kind = "about 1" if which == "rounding" else _kind(call, drawn)
        found = judged(call, _changed(call, kind, drawn))
        counts["agree" if found.wrong is None else "differ"] += 1
        counts["sums beyond the range"] += found.overflowed > 0
        errors[name] = max(errors.get(name, 0.0), found.error)
        if found.wrong is not None:
            bad.append(f"{name}, {kind}, trial {trial}: {found.wrong}")
    facts: dict[str, Any] = {"library": shared_object.path().stem}
    if which == "rounding":
        facts["error over the bound"] = {
            n: float(f"{e:.3g}") for n, e in errors.items()
        }
    print(json.dumps({"counts": dict(counts), "bad": bad, "facts": facts}))


def _kind(call: Call, drawn: random.Random) -> str:
    return drawn.choice(list(KINDS if call.of_floats else NOT_FINITE))


def _changed(call: Call, kind: str, drawn: random.Random) -> Values:
    change = KINDS.get(kind)
    if change is None:
        return call.values
    return tuple(change(x, drawn) if x.is_floating_point() else x for x in call.values)


if __name__ == "__main__":
    main()
