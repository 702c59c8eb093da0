"""Engines: who computes a product on this machine."""

from elision.engines.base import Engine
from elision.engines.native.engine import NativeEngine
from elision.engines.torch_engine import TorchEngine

__all__ = ["Engine", "NativeEngine", "TorchEngine"]
