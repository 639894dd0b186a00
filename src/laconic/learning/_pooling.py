"""Max-pooling whose gradient is fast on CPU, in the place of XLA's where a model's layers use that."""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, JaxprEqn, jaxpr_as_fun
from jaxtyping import Array, Float

_MOST = 16  # pixels of a window: the operations on each are written out


def with_fast_pooling(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function of trees of arrays, with the same values and gradients, traced with `max_pool`.

    Keras, Flax and Equinox pool by `jax.lax.reduce_window`, whose gradient XLA's CPU compiler makes one entry at a
    time: with it a training step of the tutorial's CNN takes a third longer (benchmarks/engines/steps.py). Where
    windows neither overlap nor reach beyond the array, as most do, it is replaced in what JAX has traced of the
    function, so that nobody's model has to change. A function without such a pooling is called as it is.
    """

    @functools.wraps(function)
    def traced(*arguments: Any) -> Any:
        closed, outputs = jax.make_jaxpr(function, return_shape=True)(*arguments)
        if not _pools(closed.jaxpr):
            return function(*arguments)
        replaced = jaxpr_as_fun(closed.replace(jaxpr=_replaced(closed.jaxpr)))
        return jax.tree.unflatten(jax.tree.structure(outputs), replaced(*jax.tree.leaves(arguments)))

    return traced


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(x: Float[Array, "..."], window: tuple[int, ...]) -> Float[Array, "..."]:
    """The maxima of windows that lie side by side; what is left at an axis's end is dropped.

    Of equal maxima the gradient goes to the first one in C order, as with `jax.lax.reduce_window`.

    Args:
      x: any array.
      window: its size along each axis.
    """
    return functools.reduce(jnp.maximum, _members(x, window))


def _forward(x: Array, window: tuple[int, ...]) -> tuple[Array, tuple[Array, Array]]:
    largest = max_pool(x, window)
    return largest, (x, largest)


def _backward(window: tuple[int, ...], kept: tuple[Array, Array], slope: Array) -> tuple[Array]:
    x, largest = kept
    slopes, is_taken = [], jnp.zeros(largest.shape, bool)
    for member in _members(x, window):
        is_largest = member == largest
        slopes.append(jnp.where(is_largest & ~is_taken, slope, 0))
        is_taken |= is_largest
    joined = _side_by_side(slopes, window)
    return (jnp.pad(joined, [(0, whole - used) for whole, used in zip(x.shape, joined.shape, strict=True)]),)


max_pool.defvjp(_forward, _backward)


def _members(x: Array, window: tuple[int, ...]) -> list[Array]:
    """The first entry of each window, the second of each, and so on."""
    counts = [size // width for size, width in zip(x.shape, window, strict=True)]
    used = x[tuple(slice(count * width) for count, width in zip(counts, window, strict=True))]
    apart = used.reshape([size for pair in zip(counts, window, strict=True) for size in pair])
    places = itertools.product(*map(range, window))
    return [apart[tuple(index for place in own for index in (slice(None), place))] for own in places]


def _side_by_side(members: Sequence[Array], window: tuple[int, ...]) -> Array:
    """The inverse of `_members`. Axis by axis, since XLA on CPU stacks faster than it transposes."""
    for axis in reversed(range(len(window))):
        width = window[axis]
        if width > 1:
            groups = [members[start : start + width] for start in range(0, len(members), width)]
            members = [_interleaved(group, axis) for group in groups]
    (joined,) = members
    return joined


def _interleaved(arrays: Sequence[Array], axis: int) -> Array:
    shape = list(arrays[0].shape)
    shape[axis] *= len(arrays)
    return jnp.stack(arrays, axis + 1).reshape(shape)


def _replaced(jaxpr: Jaxpr) -> Jaxpr:
    """The same function with `max_pool`."""
    return jaxpr.replace(eqns=list(map(_with_max_pool, jaxpr.eqns)))


def _with_max_pool(equation: JaxprEqn) -> JaxprEqn:
    if _is_pooling(equation):
        window, x = tuple(equation.params["window_dimensions"]), _spec_of(equation)
        (call,) = jax.make_jaxpr(lambda x: max_pool(x, window))(x).eqns
        return equation.replace(primitive=call.primitive, params=call.params)
    inner = _inner(equation)
    if inner is None or not _pools(inner.jaxpr):
        return equation
    return equation.replace(params={**equation.params, "jaxpr": inner.replace(jaxpr=_replaced(inner.jaxpr))})


def _pools(jaxpr: Jaxpr) -> bool:
    """Whether there is anything to replace."""
    inner = [_inner(equation) for equation in jaxpr.eqns]
    return any(map(_is_pooling, jaxpr.eqns)) or any(each is not None and _pools(each.jaxpr) for each in inner)


def _inner(equation: JaxprEqn) -> Any:
    """The function that an equation calls, if it is compiled by itself."""
    return equation.params["jaxpr"] if equation.primitive.name in ("jit", "pjit") else None


def _is_pooling(equation: JaxprEqn) -> bool:
    if equation.primitive.name != "reduce_window_max":
        return False
    parameters, x = equation.params, _spec_of(equation)
    window = parameters["window_dimensions"]
    is_dense = all(step == 1 for name in ("base_dilation", "window_dilation") for step in parameters[name])
    is_inside = not any(itertools.chain(*parameters["padding"]))
    fits = 1 < math.prod(window) <= _MOST and all(size >= width for size, width in zip(x.shape, window, strict=True))
    is_float = jnp.issubdtype(x.dtype, jnp.floating)
    return is_float and is_dense and is_inside and fits and tuple(window) == tuple(parameters["window_strides"])


def _spec_of(equation: JaxprEqn) -> jax.ShapeDtypeStruct:
    """Of what an equation of one operand takes."""
    (operand,) = equation.invars
    array: Any = operand.aval
    return jax.ShapeDtypeStruct(array.shape, array.dtype)
