"""The warning that something asked for has no effect."""

__all__ = ["NoEffectWarning"]


class NoEffectWarning(UserWarning):
    """A recipe, a pattern in one, or a replaced function changed nothing.

    Example:
        >>> import warnings, elision
        >>> from torch import nn
        >>> with warnings.catch_warnings(record=True, action="always") as caught:
        ...     _ = elision.elide(nn.ReLU(), elision.methods.Swat(0.5, dense=()))
        >>> caught[0].category.__name__
        'NoEffectWarning'
    """
