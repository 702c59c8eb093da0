"""C++ kernels, their build on first use, and the library that holds them all.

``builder`` compiles the sources in ``kernels`` by the user's compiler, ``shared_object``
loads the result. Rooms call its functions by modules of their own:
:mod:`elision.engines.native.library` the sparse products.
"""
