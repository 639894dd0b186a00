"""What a client does with a stream of batches: init, step for each, final."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from laconic.codecs._undivided import Undivided
from laconic.errors import PlacementError
from laconic.federated._types import MemberType, member_type

# Steps compiled into one call where a sequence has as many: fewer calls, and XLA sees one step's end and the next one's
# beginning. More of them gained nothing more with the tutorial's model.
_TOGETHER = 4


@dataclasses.dataclass(frozen=True)
class PaddedElements:
    """A sequence inside a compiled program: all elements at once, of which the first ones count.

    Attributes:
      elements: a tree of arrays [steps, ...].
      count: int32, how many elements there are; the others are padding.
    """

    elements: Any
    count: Any


@dataclasses.dataclass(frozen=True, eq=False)
class ClientWork:
    """Work over a sequence, in the shape of a fold, so that an engine may loop over it, scan it or vectorise it.

    Attributes:
      init: other arguments -> carry.
      step: carry, element -> carry of the same type. It is compiled with the carry's buffers donated, by itself and
        four together.
      final: carry, other arguments -> result.
    """

    init: Callable[..., Any]
    step: Callable[[Any, Any], Any]
    final: Callable[..., Any]

    @functools.cached_property
    def _compiled(self) -> "_Programs":
        def fresh(*others: Any) -> Any:
            # Copies, since the first step donates the carry's buffers and `others` belong to all clients.
            return jax.tree.map(jnp.copy, self.init(*others))

        def several(carry: Any, elements: Sequence[Any]) -> Any:
            return functools.reduce(self.step, elements, carry)

        def beginning(elements: Sequence[Any], *others: Any) -> Any:
            return several(self.init(*others), elements)

        return _Programs(
            Undivided(fresh),
            Undivided(beginning),
            Undivided(self.step, donate_argnums=0),
            Undivided(several, donate_argnums=0),
        )

    def fold(self, elements: Iterable[Any] | PaddedElements, *others: Any) -> Any:
        """The last carry, by a loop over compiled steps, which on CPU is several times faster than a scan.

        Padded elements are scanned, since they are there only while a program is traced that does many clients' work.
        """
        if isinstance(elements, PaddedElements):
            return self._scan(elements, *others)
        programs, coming = self._compiled, iter(elements)
        together = list(itertools.islice(coming, _TOGETHER))
        if len(together) < _TOGETHER:
            return functools.reduce(programs.step, together, programs.fresh(*others))
        carry = programs.beginning(together, *others)
        while len(together := list(itertools.islice(coming, _TOGETHER))) == _TOGETHER:
            carry = programs.several(carry, together)
        return functools.reduce(programs.step, together, carry)

    def _scan(self, padded: PaddedElements, *others: Any) -> Any:
        def step(carry: Any, numbered: Any) -> tuple[Any, None]:
            number, element = numbered
            is_own = number < padded.count

            def chosen(after: Any, before: Any) -> Any:
                # What a step passes on stays one array for all clients of a stack if it was one.
                return before if after is before else jnp.where(is_own, after, before)

            # A step on padding must not happen: a stateful optimizer would move even without a gradient.
            return jax.tree.map(chosen, self.step(carry, element), carry), None

        carry = jax.tree.map(jnp.asarray, self.init(*others))
        steps = len(jax.tree.leaves(padded.elements)[0])
        return jax.lax.scan(step, carry, (jnp.arange(steps), padded.elements))[0]

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


class _Programs(NamedTuple):
    """What a fold consists of, compiled.

    Attributes:
      fresh: the first carry.
      beginning: that, and some steps.
      step: one step.
      several: some steps.
    """

    fresh: Callable[..., Any]
    beginning: Callable[..., Any]
    step: Callable[[Any, Any], Any]
    several: Callable[[Any, Sequence[Any]], Any]
