"""The packages of the extra ``translation``."""

import importlib
from types import ModuleType

__all__ = ["of_the_extra"]


def of_the_extra(module: str, user: str) -> ModuleType:
    """Import a module of a package that the extra installs.

    Args:
        module: its dotted name.
        user: what needs it, the subject of the message.

    Raises:
        ModuleNotFoundError: the package is not installed; the message says how to.

    Example:
        >>> of_the_extra("json.decoder", "a test").__name__
        'json.decoder'
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ModuleNotFoundError(
            f"{user} needs {package}, which is not installed: "
            "pip install 'elision[translation]'",
            name=package,
        ) from error
