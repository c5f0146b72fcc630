"""SIGTERM and the like: one handler a process for all its blocks.

The handler is installed by the first block, in the main thread only and only where nobody
else has one; it ends all blocks, and the last of them to end raises SystemExit, so that
the process ends as a shell expects it (128 + the signal's number).
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable
from types import FrameType

import trio

from ..errors import ConfigError

Stop = Callable[[str], None]
"""Ends one block; it is given the reason."""


class StopSignals:
    """The blocks of the process and the signal that ends them."""

    def __init__(self) -> None:
        self._blocks: dict[Stop, trio.lowlevel.TrioToken] = {}
        self._installed: list[int] = []
        self._received: int | None = None

    def join(self, signals: Iterable[int], stop: Stop) -> None:
        """Have ``stop`` called with the reason when a signal comes, until :meth:`leave`."""
        if self._received is not None:  # a process that ends starts nothing new
            raise SystemExit(128 + self._received)
        self._install(signals)
        self._blocks[stop] = trio.lowlevel.current_trio_token()

    def leave(self, stop: Stop) -> int | None:
        """Take the block off; twice is fine. The signal's number, where this block was the
        last that it ended."""
        if self._blocks.pop(stop, None) is None or self._blocks:
            return None
        received, self._received = self._received, None
        self._restore()
        return received

    def _install(self, signals: Iterable[int]) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in signals:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, self._handle)
                self._installed.append(number)

    def _restore(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # the next block of the main thread finds the handler its own
        for number in self._installed:
            if signal.getsignal(number) == self._handle:
                signal.signal(number, signal.SIG_DFL)
        self._installed.clear()

    def forget(self) -> None:
        """There are no blocks here: after a fork, in the child."""
        if self._installed:
            signal.set_wakeup_fd(-1)  # the parent's Trio would be woken
        self._blocks.clear()
        self._received = None
        self._restore()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._blocks:  # the last one ended in another thread, which cannot restore
            self._restore()
            signal.raise_signal(number)
            return
        self._received = number
        for stop, token in list(self._blocks.items()):
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(stop, _reason(number))


def _reason(number: int) -> str:
    return f"stopped by {signal.Signals(number).name}"


def signal_numbers(numbers: Iterable[int]) -> tuple[int, ...]:
    """The argument ``stop_signals``, checked. Raises ConfigError."""
    try:
        checked = tuple(signal.Signals(number) for number in numbers)
    except (TypeError, ValueError) as exc:
        raise ConfigError(
            f"stop_signals must be signals, such as (signal.SIGTERM,), not {numbers!r}"
        ) from exc
    for number in checked:
        if number in (signal.SIGKILL, signal.SIGSTOP):
            raise ConfigError(f"stop_signals holds {number.name}, which nothing can handle")
    return checked


STOP_SIGNALS = StopSignals()

# A forked child has the handlers, and no block that they would end.
os.register_at_fork(after_in_child=STOP_SIGNALS.forget)
