"""Standing campaigns: what the library survives, counted.

``python -m campaigns`` runs all of them and writes what they found; see
``docs/what-survives.md``.
"""
