"""Policies: which codec keeps which saved tensor."""
