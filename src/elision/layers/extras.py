"""Values and hooks that live on an elided module until it is restored.

A room above (moving masks, for example) keeps here what belongs to one elided model:
it is copied and pickled with the model, and :func:`elision.restore` removes it.
"""

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

from torch import nn

__all__ = [
    "Extras",
    "Finalizable",
    "Removable",
    "attach_extra",
    "drop_extra",
    "extra",
    "give_extras",
    "remove_all",
    "remove_extras",
    "take_extras",
    "tell_extras",
]

#: Attribute of a module: name -> (value, handles).
_EXTRAS = "_elision_extras"


@runtime_checkable
class Finalizable(Protocol):
    """An extra that has a word to say before :func:`elision.export.finalize`.

    Example:
        >>> isinstance("a note", Finalizable)
        False
    """

    def finalizing(self, model: nn.Module) -> None: ...  # noqa: D102


class Removable(Protocol):
    """A handle with ``remove()``, such as the ones of torch's hooks."""

    def remove(self) -> None: ...  # noqa: D102


#: Extras of a module by name: a value and its handles.
Extras = dict[str, tuple[Any, list[Removable]]]


def attach_extra(
    module: nn.Module, name: str, value: Any, handles: Iterable[Removable] = ()
) -> None:
    """Attach a named value, and hooks that go when it goes, to a module.

    An extra of the same name is removed first, its hooks included.

    Args:
        module: the module that was elided, or a layer in it.
        name: key for :func:`extra`.
        value: anything that can be copied and pickled.
        handles: hooks that ``restore`` removes.

    Example:
        >>> from torch import nn
        >>> model = nn.ReLU()
        >>> attach_extra(model, "note", "kept until elision.restore(model)")
        >>> extra(model, "note")
        'kept until elision.restore(model)'
    """
    extras: Extras = vars(module).setdefault(_EXTRAS, {})
    _remove(extras, name)
    extras[name] = (value, list(handles))


def extra(module: nn.Module, name: str) -> Any:
    """The value attached to this very module under ``name``; None if there is none."""
    return vars(module).get(_EXTRAS, {}).get(name, (None,))[0]


def drop_extra(module: nn.Module, name: str) -> None:
    """Remove what is attached to this very module under ``name``, if anything is."""
    _remove(vars(module).get(_EXTRAS, {}), name)


def tell_extras(model: nn.Module) -> None:
    """Tell the extras of a model that its training ends."""
    for module in model.modules():
        for value, _ in vars(module).get(_EXTRAS, {}).values():
            if isinstance(value, Finalizable):
                value.finalizing(module)


def remove_extras(module: nn.Module) -> None:
    """Remove every extra of a module and its hooks."""
    remove_all(take_extras(module))


def take_extras(module: nn.Module) -> Extras:
    """Take a module's extras off it; their hooks stay."""
    return vars(module).pop(_EXTRAS, {})


def give_extras(module: nn.Module, extras: Extras) -> None:
    """Give a module extras that were taken off it."""
    if extras:
        vars(module)[_EXTRAS] = extras


def remove_all(extras: Extras) -> None:
    """Remove extras that were taken off a module, and their hooks."""
    for name in list(extras):
        _remove(extras, name)


def _remove(extras: Extras, name: str) -> None:
    for handle in extras.pop(name, (None, []))[1]:
        handle.remove()
