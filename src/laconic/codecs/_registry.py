"""Names on the wire to classes, so that bytes can say what decodes them."""

from typing import Any, TypeVar

from laconic.errors import ArgumentError, ArgumentTypeError, DecodeError

T = TypeVar("T", bound=type[Any])

_components: dict[str, type[Any]] = {}


def register(component: T) -> T:
    """Class decorator: lets payloads that name this stage or coder be decoded wherever its module is imported.

    Raises:
      ArgumentError: if another class has the name already.
      ArgumentTypeError: if the class has no name.
    """
    check_name(component)
    _components[component.name] = component
    return component


def check_name(component: type[Any]) -> None:
    """Raises unless the class has a name on the wire that is its own; it need not be registered."""
    name = getattr(component, "name", None)
    if not isinstance(name, str) or not name:
        raise ArgumentTypeError(
            f"{component.__qualname__} needs a name on the wire, as in name: ClassVar[str] = 'mylab.topk', got {name!r}"
        )
    present = _components.get(name, component)
    # The same class may be defined anew, as when a notebook cell or a module is run again.
    if (present.__module__, present.__qualname__) != (component.__module__, component.__qualname__):
        raise ArgumentError(
            f"name {name!r} of {component.__qualname__} is taken by {present.__module__}.{present.__qualname__}; "
            "choose another, prefixed with your project's"
        )


def lookup(name: str) -> type[Any]:
    """The class with this name on the wire, or a DecodeError that says what to import."""
    try:
        return _components[name]
    except KeyError:
        raise DecodeError(
            f"the payload was made with {name[:60]!r}, which is not among the known stages and coders "
            f"({', '.join(sorted(_components))}); import the module that registers it with codecs.register"
        ) from None
