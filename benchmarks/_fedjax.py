"""FedJAX 0.0.17 on a JAX that has dropped names which it calls. Runs in peers' environments."""

import importlib
from typing import Any


def restore_dropped_names() -> Any:
    """Puts the names back; returns jax. To be called before FedJAX is imported."""
    jax: Any = importlib.import_module("jax")
    for name in ("tree_map", "tree_leaves", "tree_flatten", "tree_unflatten"):
        if not hasattr(jax, name):
            setattr(jax, name, getattr(jax.tree_util, name))
    return jax
