"""The engine for several machines: client work in Ray actors.

What travels to an actor once are the computation, as the Python function it was built from, and each data set; in each
round, what clients receive. What travels back are not clients' updates but the few parts of their sum that each actor
has made of its clients', in the encoded domain where the codec's stages commute with it.
"""

import contextlib
import functools
import logging
import os
from collections.abc import Sequence
from types import ModuleType, TracebackType
from typing import Any

import jax

from laconic.engines._ray_pool import Pool
from laconic.engines._ray_worker import Origin, Task, Worker
from laconic.engines._workers import wanted_workers
from laconic.errors import ArgumentError, ArgumentTypeError, require
from laconic.federated import Client, ClientPass, PassResult, PortableClient, PortablePass

_SOURCES = 4  # data sets that are held in the object store
_PROGRAMS = 16
_TASKS = 4  # for each worker in a round, where there are enough clients: the last one to end keeps the others waiting
_PATIENCE = 120.0  # seconds
# What else changes bits, since flags of XLA travel by themselves; and what saves a new worker from compiling.
_SETTINGS = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


class RayEngine:
    """Runs clients in actors of a Ray cluster, and reduces in cohort order; made by `ray`."""

    def __init__(self, module: ModuleType, workers: int | None, num_cpus: float, num_gpus: float | None):
        self.workers = workers
        self.num_cpus = num_cpus
        self.num_gpus = num_gpus
        self._ray = module
        self._pool: Pool | None = None
        self._programs: dict[Any, Any] = {}
        self._sources: dict[Any, Any] = {}
        self._received: dict[tuple[Any, ...], tuple[Any, Any]] = {}

    def run(self, client_pass: ClientPass, clients: Sequence[Client]) -> PassResult:
        """Runs the pass for all clients; each worker adds up what it can by itself.

        Raises:
          EngineError: if no worker can be started, or some clients' workers die again and again.
        """
        pool = self._ready_pool()
        parts = client_pass.parts()
        with contextlib.closing(pool.gather(self._tasks(client_pass, clients))) as given:
            for extents in given:
                for extent, part in extents.items():
                    parts.add(extent, part)
        return client_pass.total(parts)

    @property
    def replaced_workers(self) -> int:
        """Workers that were lost and replaced so far."""
        return 0 if self._pool is None else self._pool.replaced

    def close(self) -> None:
        """Ends all workers, and forgets what they had; the next run starts new ones."""
        if self._pool is not None:
            self._pool.close()
        self._pool = None
        for held in (self._programs, self._sources, self._received):
            held.clear()

    def __enter__(self) -> "RayEngine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise ArgumentTypeError(
            "an engine cannot be sent to its own workers: a function that clients run holds it, perhaps as an "
            "attribute of an object that the function uses; give the function what it needs by itself"
        )

    def __repr__(self) -> str:
        return f"engines.ray(workers={self.workers}, num_cpus={self.num_cpus:g}, num_gpus={self.num_gpus})"

    def _tasks(self, client_pass: ClientPass, clients: Sequence[Client]) -> list[Task]:
        program = self._stored(self._programs, client_pass.program, _PROGRAMS)
        inputs = self._inputs(client_pass)
        tasks = []
        for extent in client_pass.extents(len(clients) // (_TASKS * self._size())):
            sent = [self._client(client, client_pass) for client in clients[extent.start : extent.stop]]
            tasks.append(Task(program, inputs, extent, sent))
        return tasks

    def _inputs(self, client_pass: ClientPass) -> Any:
        """A reference to what the pass begins with; what is the same as in the pass before is not sent again."""
        portable = PortablePass.of(client_pass)
        before, self._received = self._received, {}
        positions = {node: position for position, node in enumerate(client_pass.program.nodes)}
        references = {}
        for node, value in client_pass.inputs.received.items():
            if positions[node] not in portable.received:
                continue
            # The value is held beside its reference, so that no other object gets its identity meanwhile.
            leaves, structure = jax.tree.flatten(value)
            key = structure, *map(id, leaves)
            sent = portable.received[positions[node]]
            self._received[key] = before.get(key) or self._received.get(key) or (value, self._ray.put(sent))
            references[positions[node]] = self._received[key][1]
        return self._ray.put(PortablePass(**{**vars(portable), "received": references}))

    def _client(self, client: Client, client_pass: ClientPass) -> PortableClient:
        portable = PortableClient.of(client, client_pass.program)
        return PortableClient(
            portable.id, {position: self._argument(value) for position, value in portable.arguments.items()}
        )

    def _argument(self, value: Any) -> Any:
        origin = getattr(value, "origin", None)
        if not isinstance(origin, tuple):
            return value
        source, arguments = origin
        return Origin(self._stored(self._sources, source, _SOURCES), arguments)

    def _stored(self, held: dict[Any, Any], value: Any, most: int) -> Any:
        """A reference to a value that is in the object store; the oldest of too many is dropped."""
        if value not in held:
            while len(held) >= most:
                del held[next(iter(held))]
            held[value] = self._sent(value)
        return held[value]

    def _sent(self, value: Any) -> Any:
        try:
            return self._ray.put(value)
        except TypeError as error:
            # Ray's own text is a page; what it is about is the cause.
            raise ArgumentTypeError(f"{value!r:.80} cannot be sent to workers: {error.__cause__ or error}") from error

    def _ready_pool(self) -> Pool:
        if self._pool is None:
            self._pool = Pool(self._ray, self._start, _PATIENCE)
        self._pool.resize(self._size())
        return self._pool

    def _size(self) -> int:
        """As many workers as asked for, or as the cluster has room for now: nodes come and go."""
        if self.workers is not None:
            return self.workers
        has = self._ray.cluster_resources()
        gpus = self._gpus()
        room = has.get("CPU", 0) / self.num_cpus
        if gpus:
            room = min(room, has.get("GPU", 0) / gpus)
        return max(1, int(room))

    def _gpus(self) -> float:
        if self.num_gpus is not None:
            return self.num_gpus
        return 1.0 if self._ray.cluster_resources().get("GPU", 0) >= 1 else 0.0

    def _start(self) -> Any:
        gpus = self._gpus()
        settings = {name: getattr(jax.config, name) for name in _SETTINGS if hasattr(jax.config, name)}
        if not gpus:
            settings["jax_platforms"] = "cpu"
        actor = self._ray.remote(num_cpus=self.num_cpus, num_gpus=gpus, max_restarts=0)(Worker)
        return actor.remote(functools.partial(_get), settings, os.environ.get("XLA_FLAGS"), max(1, int(self.num_cpus)))


def _get(reference: Any) -> Any:
    import ray as module

    return module.get(reference)


def ray(
    address: str | None = None,
    *,
    workers: int | None = None,
    num_cpus: float = 1,
    num_gpus: float | None = None,
) -> RayEngine:
    """An engine that runs clients in actors of a Ray cluster, on one machine or many.

    Each worker compiles once and keeps the data sets it has seen. It takes clients that follow each other in the
    cohort, as far as it can, adds up what they send, and gives back few parts of the whole sum. A worker that dies,
    alone or with its node, is replaced, and its clients are run again; no client is lost or counted twice. Results have
    the bits of `local` where all processors are of one kind, whatever the number of workers, and whoever died.

    Functions travel as Ray sends them, by cloudpickle, between machines that trust each other. A data set travels once
    to each node; one that is read from a file travels as the file's path, so the file must be there on all nodes.

    Args:
      address: of a running cluster, "auto" for the one on this machine; None is the one that Ray is connected to, or
        that RAY_ADDRESS names, or else a new one on this machine.
      workers: actors; None takes as many as the environment variable LACONIC_WORKERS says, or else as the cluster has
        room for, looked up anew in each round, so that nodes may be added.
      num_cpus: processors that Ray reserves for each worker, which runs as many clients at a time.
      num_gpus: GPUs for each worker, which then runs clients in stacks, as `device` does; None is one where the cluster
        has any.

    Raises:
      MissingExtraError: if Ray is not installed.
      ArgumentTypeError: if a number is none.
      ArgumentError: if a number is out of its range.
      ConnectionError: if there is no cluster at the address.
    """
    workers = wanted_workers(workers)
    for name, value, least in (("num_cpus", num_cpus, "positive"), ("num_gpus", num_gpus, "not negative")):
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise ArgumentTypeError(f"{name} must be a number, got {value!r} of type {type(value).__name__}")
        if value is not None and (value < 0 or (value == 0 and name == "num_cpus")):
            raise ArgumentError(f"{name} must be {least}, got {value}")
    module = require("ray", extra="ray", purpose="the engine for several machines")
    if not module.is_initialized():
        module.init(address=address, logging_level=logging.WARNING)
    elif address is not None:
        raise ArgumentError(
            f"address must be left out, since Ray is connected already, got {address!r}; or call ray.shutdown() first"
        )
    return RayEngine(module, workers, num_cpus, num_gpus)
