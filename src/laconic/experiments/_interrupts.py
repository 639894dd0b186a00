"""Ctrl-C that ends a run between two rounds."""

import contextlib
import signal
import sys
import threading
import types
from collections.abc import Iterator
from typing import Self


class Interrupts:
    """While this context lasts, Ctrl-C waits for `check`; pressed again, it raises KeyboardInterrupt at once.

    Not at once the first time, because an exception anywhere in JAX is not safe: while it compiles, the interpreter may
    crash when it exits (jax 0.10, one time in ten); and in JAX's callback of the garbage collector, the exception is
    dropped, so that nothing happens at all.

    Where the program has its own handler of Ctrl-C, or outside the main thread, which Ctrl-C does not reach, this does
    nothing.
    """

    def __init__(self) -> None:
        self._presses = 0
        self._is_whole = False
        self._is_installed = False

    def __enter__(self) -> Self:
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        ):
            signal.signal(signal.SIGINT, self._handle)
            self._is_installed = True
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def check(self) -> None:
        """Raises KeyboardInterrupt if Ctrl-C was pressed."""
        if self._presses:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """Lets the block end, however often Ctrl-C is pressed; then checks."""
        self._is_whole = True
        try:
            yield
        finally:
            self._is_whole = False
        self.check()

    def _handle(self, number: int, frame: types.FrameType | None) -> None:
        self._presses += 1
        if self._presses == 1:
            with contextlib.suppress(RuntimeError):  # the signal came in the middle of another message
                sys.stderr.write("stopping after this round; Ctrl-C again stops at once\n")
        elif not self._is_whole:
            signal.default_int_handler(number, frame)
