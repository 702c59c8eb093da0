"""The same work done by this library and by others, each in an environment of its own.

``python -m benchmarks.peers`` installs and measures; ``python -m benchmarks.peers.page``
writes what was measured into ``docs/peers.md``.
"""
