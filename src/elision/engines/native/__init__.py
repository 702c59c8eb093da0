"""The native engine: C++ kernels, their build, and what stands on them.

``builder`` compiles the sources in ``kernels``, ``library`` calls the result, ``engine`` puts
it behind the common interface. ``blocked`` keeps a whole network in the
kernels' own layout.
"""
