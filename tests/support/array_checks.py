"""The run-time type checker of the tests: beartype, on annotations that are about arrays.

Other annotations are mypy's business. Checking them at run time too would put beartype's message in front of Laconic's
own, which is the one that users see and the tests are about.
"""

import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any

import beartype
import jaxtyping


def check_arrays(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a function so that its array arguments' and results' shapes and dtypes are checked."""
    kept = {name: hint for name, hint in inspect.get_annotations(function).items() if _is_about_arrays(hint)}
    if not kept:
        return function
    function.__annotations__ = kept
    return beartype.beartype(function)


def spare_others() -> None:
    """Keeps jaxtyping's import hook from wrapping what has no annotation about arrays.

    A wrapper takes tens of microseconds a call even if there is nothing to check: a fifth of the time of tests that
    call many small functions. To be called before what is checked is imported.
    """
    wrapped = jaxtyping.jaxtyped

    @functools.wraps(wrapped)
    def jaxtyped(target: Any = None, /, **options: Any) -> Any:
        if target is None:
            return functools.partial(jaxtyped, **options)
        hints = inspect.get_annotations(target) if inspect.isfunction(target) or inspect.isclass(target) else {}
        return wrapped(target, **options) if any(map(_is_about_arrays, hints.values())) else target

    jaxtyping.jaxtyped = jaxtyped


def _is_about_arrays(hint: Any) -> bool:
    if inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return any(_is_about_arrays(argument) for argument in typing.get_args(hint))
