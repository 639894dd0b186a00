"""The run-time type checker of the tests: beartype, on annotations that are about arrays.

Other annotations are mypy's business. Checking them at run time too would put beartype's message in front of Laconic's
own, which is the one that users see and the tests are about.
"""

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


def _is_about_arrays(hint: Any) -> bool:
    if inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return any(_is_about_arrays(argument) for argument in typing.get_args(hint))
