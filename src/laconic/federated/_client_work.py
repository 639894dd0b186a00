"""What a client does with a stream of batches: init, step for each, final."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from laconic.errors import PlacementError
from laconic.federated._types import MemberType, member_type


@dataclasses.dataclass(frozen=True, eq=False)
class ClientWork:
    """Work over a sequence, in the shape of a fold, so that an engine may loop over it, scan it or vectorise it.

    Attributes:
      init: other arguments -> carry.
      step: carry, element -> carry of the same type. It is compiled with the carry's buffers donated.
      final: carry, other arguments -> result.
    """

    init: Callable[..., Any]
    step: Callable[[Any, Any], Any]
    final: Callable[..., Any]

    @functools.cached_property
    def _compiled(self) -> tuple[Callable[..., Any], Callable[[Any, Any], Any]]:
        def fresh(*others: Any) -> Any:
            # Copies, since the first step donates the carry's buffers and `others` belong to all clients.
            return jax.tree.map(jnp.copy, self.init(*others))

        return jax.jit(fresh), jax.jit(self.step, donate_argnums=0)

    def fold(self, elements: Iterable[Any], *others: Any) -> Any:
        """The last carry, by a loop over compiled steps, which on CPU is several times faster than a scan."""
        init, step = self._compiled
        carry = init(*others)
        for element in elements:
            carry = step(carry, element)
        return carry

    def types(self, element: MemberType, others: list[Any]) -> tuple[MemberType, MemberType]:
        """The types of the carry and of the result.

        Raises:
          PlacementError: if `step` changes the carry's type.
        """
        carry = jax.eval_shape(self.init, *others)
        after = jax.eval_shape(self.step, carry, element.structs)
        if member_type(after) != member_type(carry):
            raise PlacementError(
                f"client work's step must give back a carry of the type it takes, {member_type(carry)}, "
                f"got {member_type(after)}"
            )
        return member_type(carry), member_type(jax.eval_shape(self.final, carry, *others))
