"""The native engine: products by C++ kernels that leave zeros out.

``library`` calls the kernels of :mod:`elision.native`, ``engine`` puts them behind the
common interface. ``blocked`` keeps a whole network in the kernels' own layout.
"""
