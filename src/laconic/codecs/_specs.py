"""What an array is, without its values."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import PyTreeDef

from laconic.errors import ArgumentError, ArgumentTypeError

# Position is the code on the wire: append, never reorder.
DTYPES: tuple[np.dtype, ...] = tuple(
    np.dtype(name)
    for name in (
        "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
        "float16", jnp.bfloat16, "float32", "float64",
    )
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """Name, shape and dtype of one tensor."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the array in memory."""
        return self.size * self.dtype.itemsize

    @property
    def is_float(self) -> bool:
        """Whether the dtype is a floating-point one, bfloat16 included."""
        return bool(jnp.issubdtype(self.dtype, jnp.floating))

    @property
    def struct(self) -> jax.ShapeDtypeStruct:
        """The same as JAX's own description."""
        return jax.ShapeDtypeStruct(self.shape, self.dtype)

    def is_of(self, value: Any) -> bool:
        """Whether it is an array's; False of anything else, too. Faster than making its spec."""
        is_array = isinstance(value, (np.ndarray, jax.Array))
        return is_array and value.shape == self.shape and value.dtype == self.dtype

    def __str__(self) -> str:
        dimensions = ",".join(map(str, self.shape))
        return f"{self.dtype.name}[{dimensions}]" if self.shape else self.dtype.name


def path_name(path: tuple[Any, ...]) -> str:
    """A tree path as users write it: `dense/kernel`, `0/bias`; empty for a tree that is one array."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def spec_of(value: Any, name: str = "") -> TensorSpec:
    """The spec of an array, a scalar, or anything with a shape and a dtype; in the machine's byte order.

    Raises:
      ArgumentTypeError: if it is not an array of a supported dtype.
    """
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        dtype = _plain_dtype(value.dtype)
        if dtype is None:
            raise ArgumentTypeError(
                f"{name or 'value'} must be of one of the dtypes {', '.join(d.name for d in DTYPES)}, got {value.dtype}"
            )
        return TensorSpec(name, tuple(int(n) for n in value.shape), dtype)
    # As JAX reads Python numbers: what a user sees after jnp.asarray.
    for kind, dtype in ((bool, np.dtype(np.bool_)), (int, np.dtype(np.int32)), (float, np.dtype(np.float32))):
        if isinstance(value, kind):
            return TensorSpec(name, (), dtype)
    raise ArgumentTypeError(
        f"{name or 'value'} must be an array or a number, got {value!r:.60} of type {type(value).__name__}; "
        "a tree's leaves are arrays"
    )


def tree_specs(tree: Any) -> tuple[tuple[TensorSpec, ...], PyTreeDef]:
    """Specs of a tree's leaves, named by their paths, and the tree's structure. A `TensorSpec` with a name keeps it.

    Raises:
      ArgumentError: if JAX cannot order the tree's leaves.
      ArgumentTypeError: if a leaf is not an array of a supported dtype.
    """
    try:
        leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    except ValueError as error:
        raise ArgumentError(f"the tree cannot be flattened, are a dict's keys all of one type? {error}") from error
    return tuple(
        leaf if isinstance(leaf, TensorSpec) and leaf.name else spec_of(leaf, path_name(path)) for path, leaf in leaves
    ), structure


def _plain_dtype(dtype: Any) -> np.dtype | None:
    """The entry of `DTYPES` that it is, in whatever byte order, or None."""
    try:
        plain = np.dtype(dtype).newbyteorder("=")
    except TypeError:  # an extended dtype of JAX's, such as a typed random key, or another library's
        return None
    return plain if plain in DTYPES else None


def specs_beside(tensor: str, tree: Any) -> list[TensorSpec]:
    """Specs of the parameters or reports that go with a tensor, in the order in which they travel."""
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [spec_of(array, f"{tensor}: {path_name(path)}") for path, array in paths]
