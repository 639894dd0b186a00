"""The engine for accelerators: many clients as one compiled program, spread over all devices.

An accelerator is idle between one client's small steps. Clients of about one size are padded into a stack: one scan
over steps, each for all clients of the stack. Devices compute a stack and encode its messages while the host codes the
bytes of the stack before and loads the one after.
"""

import collections
import contextlib
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

import jax

from laconic.engines._mesh import ClientsMesh, clients_mesh
from laconic.engines._stacks import Stack, stacks
from laconic.engines._workers import number_of_workers
from laconic.errors import ArgumentError, ArgumentTypeError
from laconic.federated import Client, ClientOutput, ClientPass, PassResult

_IN_FLIGHT = 2  # stacks: one computes while the other's bytes are coded
_WINDOW = 4  # full stacks' clients; their order is the cohort's again when the window is over


class DeviceEngine:
    """Runs clients in stacks on devices, and reduces in cohort order."""

    def __init__(self, devices: Sequence[jax.Device], clients_per_stack: int, workers: int):
        self.devices = tuple(devices)
        self.clients_per_stack = clients_per_stack
        self.workers = workers
        self._meshes: dict[int, ClientsMesh] = {}

    def run(self, client_pass: ClientPass, clients: Sequence[Client]) -> PassResult:
        """Runs the pass for all clients; a few stacks' outputs are held at a time, however large the cohort."""
        # Closed, so that no thread goes on after an error in the reduction.
        with contextlib.closing(self.outputs(client_pass, clients)) as outputs:
            return client_pass.reduce(outputs)

    def outputs(self, client_pass: ClientPass, clients: Sequence[Client]) -> Generator[ClientOutput, None, None]:
        """The clients' outputs, in the order given; close it to drop clients that are not yet begun."""
        coming: dict[int, Future[ClientOutput]] = {}
        in_flight: collections.deque[list[Future[ClientOutput]]] = collections.deque()
        due = 0
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="laconic-client")
        try:
            for begun in self._begun(client_pass, clients, pool):
                coming |= begun
                in_flight.append(list(begun.values()))
                if len(in_flight) == _IN_FLIGHT:
                    wait(in_flight.popleft())
                while due in coming and coming[due].done():
                    yield coming.pop(due).result()
                    due += 1
            for position in range(due, len(clients)):
                yield coming.pop(position).result()
        finally:
            # On an error or Ctrl-C what is not yet begun is dropped.
            pool.shutdown(wait=True, cancel_futures=True)

    def plan(self, sizes: Sequence[int]) -> list[Stack]:
        """The stacks of a cohort whose clients have these numbers of batches, each at least 1.

        A stack's members are positions in the cohort. They are of one window, a stretch of the cohort of four full
        stacks, so that outputs, which are summed in the cohort's order, never wait for more than that.
        """
        return [stack for start in self._windows(len(sizes)) for stack in self._window(sizes, start)]

    def __repr__(self) -> str:
        kinds = sorted({device.platform for device in self.devices})
        return f"engines.device({len(self.devices)} x {'/'.join(kinds)}, clients_per_stack={self.clients_per_stack})"

    @property
    def _window_size(self) -> int:
        return _WINDOW * self.clients_per_stack * len(self.devices)

    def _windows(self, count: int) -> range:
        return range(0, count, self._window_size)

    def _window(self, sizes: Sequence[int], start: int) -> list[Stack]:
        found = stacks(
            sizes[start : start + self._window_size],
            devices=len(self.devices),
            clients_per_device=self.clients_per_stack,
        )
        return [
            Stack(tuple(start + position for position in stack.members), stack.rows, stack.steps, stack.devices)
            for stack in found
        ]

    def _begun(
        self, client_pass: ClientPass, clients: Sequence[Client], pool: ThreadPoolExecutor
    ) -> Iterator[dict[int, Future[ClientOutput]]]:
        """Begins one stack after the other: each client's output, to come, by position in the cohort."""
        for start in self._windows(len(clients)):
            sized = [client_pass.sized(client) for client in clients[start : start + self._window_size]]
            own, sizes = [client for client, _ in sized], [size for _, size in sized]
            for stack in self._window(sizes, 0):
                finish = client_pass.run_stack(
                    [own[position] for position in stack.members],
                    rows=stack.rows,
                    steps=stack.steps,
                    devices=self._mesh(stack.devices),
                )
                yield {start + at: pool.submit(function) for at, function in zip(stack.members, finish, strict=True)}

    def _mesh(self, count: int) -> ClientsMesh:
        if count not in self._meshes:
            self._meshes[count] = clients_mesh(self.devices[:count])
        return self._meshes[count]


def device(
    *, clients_per_stack: int = 64, workers: int | None = None, devices: Sequence[jax.Device] | None = None
) -> DeviceEngine:
    """An engine that runs clients in stacks on accelerators; on processors it works too, more slowly than `local`.

    Clients of about the same number of batches make a stack, so that at most 15 % of what is computed is padding. Each
    stack is one compiled program, sharded over the devices along an axis of clients; compiled programs are kept by
    the stack's shape. Messages are encoded on the devices too, and their bytes coded in threads of the host while the
    devices go on. Where a codec remembers (error feedback) or promises a rate, each client encodes by itself.

    Results are those of `local` within rounding: an accelerator adds in another order. They are summed in the
    cohort's order.

    Args:
      clients_per_stack: the most clients in a stack on each device. Each takes a device's memory for its batches, its
        model and optimizer, and its encoded update.
      workers: threads of the host; None takes as many as the environment variable LACONIC_WORKERS says, or else one for
        each processor.
      devices: of one kind; None takes all local devices of JAX's default backend.

    Raises:
      ArgumentTypeError: if a number is not whole, or a device is none.
      ArgumentError: if a number is not positive, or there are no devices or several kinds.
    """
    if isinstance(clients_per_stack, bool) or not isinstance(clients_per_stack, int):
        raise ArgumentTypeError(
            f"clients_per_stack must be a whole number, got {clients_per_stack!r} of type "
            f"{type(clients_per_stack).__name__}"
        )
    if clients_per_stack < 1:
        raise ArgumentError(f"clients_per_stack must be at least 1, got {clients_per_stack}")
    return DeviceEngine(_checked(devices), clients_per_stack, number_of_workers(workers))


def _checked(devices: Sequence[jax.Device] | None) -> Sequence[jax.Device]:
    if devices is None:
        return jax.local_devices()
    for each in devices:
        if not isinstance(each, jax.Device):
            raise ArgumentTypeError(f"devices must be JAX devices, as jax.local_devices() gives them, got {each!r:.60}")
    if len({each.platform for each in devices}) != 1 or len(set(devices)) != len(devices):
        raise ArgumentError(
            f"devices must be at least one, different, and of one kind, got {list(devices)}; None takes all local ones"
        )
    return devices
