"""Engines: who computes a product on this machine.

``torch`` computes densely and is the oracle; ``native`` leaves out the zeros; ``auto``
times both once and keeps the faster. The engine of a layer never changes its results,
beyond the rounding of float32.
"""

from collections.abc import Callable

from elision.common.names import lookup
from elision.engines.auto import AutoEngine
from elision.engines.base import NO_HINT, Engine, Hint
from elision.engines.decision import Decision, Decisions, decisions
from elision.engines.native.direct import DirectEngine
from elision.engines.native.engine import NativeEngine
from elision.engines.torch_engine import TorchEngine

__all__ = [
    "ENGINES",
    "NO_HINT",
    "AutoEngine",
    "Decision",
    "Decisions",
    "DirectEngine",
    "Engine",
    "Hint",
    "NativeEngine",
    "TorchEngine",
    "decisions",
    "make_engine",
]

#: Engines by name.
ENGINES: dict[str, Callable[[], Engine]] = {
    "auto": AutoEngine,
    "torch": TorchEngine,
    "native": NativeEngine,
}


def make_engine(name: str) -> Engine:
    """A new engine, for one layer.

    Raises:
        ValueError: ``name`` is not a key of :data:`ENGINES`.
        RuntimeError: the engine cannot be used here; the message gives the reason.
    """
    engine = lookup("engine", name, ENGINES)()
    reason = engine.unavailable()
    if reason is not None:
        raise RuntimeError(f"the {name} engine cannot be used here: {reason}")
    return engine
