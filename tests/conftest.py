"""Settings of every test."""

from hypothesis import settings

# A shared or slow machine must not fail a property by the clock.
settings.register_profile("elision", deadline=None, print_blob=True)
settings.load_profile("elision")
