"""The engine for one machine's processors: client work in threads.

Two threads, one client each, are faster than one, since XLA's own threading leaves cores idle
between and within a step's operations. Python's lock is free while XLA and zlib run.
"""

import collections
import contextlib
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from laconic.engines._memory import keep_freed_memory
from laconic.engines._workers import number_of_workers
from laconic.federated import Client, ClientOutput, ClientPass, PassResult

A = TypeVar("A")
B = TypeVar("B")


class LocalEngine:
    """Runs clients in worker threads and reduces in cohort order, so that any number of workers gives the same bits."""

    def __init__(self, workers: int):
        self.workers = workers

    def run(self, client_pass: ClientPass, clients: Sequence[Client]) -> PassResult:
        """Runs the pass for all clients; at most two outputs for each worker are held at a time."""
        # Closed, so that no worker goes on after an error in the reduction.
        with contextlib.closing(self.outputs(client_pass, clients)) as outputs:
            return client_pass.reduce(outputs)

    def outputs(self, client_pass: ClientPass, clients: Sequence[Client]) -> Generator[ClientOutput, None, None]:
        """The clients' outputs, in the order given; close it to drop clients that are not yet begun."""
        keep_freed_memory()
        return ordered_map(client_pass.run_client, clients, self.workers)

    def __repr__(self) -> str:
        return f"engines.local(workers={self.workers})"


def local(workers: int | None = None) -> LocalEngine:
    """An engine of `workers` threads on this machine.

    When it first runs, it tells glibc to keep up to 1 GiB of freed memory for this process, unless the environment says
    how memory is to be managed (`GLIBC_TUNABLES`, `MALLOC_TRIM_THRESHOLD_`, `LD_PRELOAD`).

    None takes as many as the environment variable LACONIC_WORKERS says, or else one for each processor that this
    process may use.

    Raises:
      ArgumentTypeError: if workers is not a whole number.
      ArgumentError: if it is not positive, or the environment variable is not a positive whole number.
    """
    return LocalEngine(number_of_workers(workers))


def ordered_map(function: Callable[[A], B], items: Iterable[A], workers: int) -> Generator[B, None, None]:
    """Like `map`, in threads, results in order; no more than `2 * workers` are running or waiting to be taken."""
    if workers == 1:
        yield from map(function, items)
        return
    pending: collections.deque[Future[B]] = collections.deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="laconic-client")
    try:
        for item in items:
            if len(pending) == 2 * workers:
                yield pending.popleft().result()
            pending.append(pool.submit(function, item))
        while pending:
            yield pending.popleft().result()
    finally:
        # On an error or Ctrl-C the clients not yet begun are dropped.
        pool.shutdown(wait=True, cancel_futures=True)
