"""The native engine: C++ kernels, their build, and what stands on them.

``builder`` compiles the sources beside it, ``library`` calls the result, ``engine`` puts
it behind the common interface. ``ops`` and ``network`` keep a whole network in the
kernels' own layout.
"""
