"""The engine that suits the machine."""

import jax

from laconic.engines._device import DeviceEngine, device
from laconic.engines._local import LocalEngine, local


def auto(workers: int | None = None) -> LocalEngine | DeviceEngine:
    """The engine that is faster on this machine: `device` where JAX has an accelerator, else `local`.

    Args:
      workers: threads of the host; None takes as many as the environment variable LACONIC_WORKERS says, or else one for
        each processor.

    Raises:
      ArgumentTypeError: if workers is not a whole number.
      ArgumentError: if it is not positive, or the environment variable is not a positive whole number.
    """
    has_accelerator = any(each.platform != "cpu" for each in jax.local_devices())
    return device(workers=workers) if has_accelerator else local(workers)
