"""A user's function in a thread, whose transaction is committed at its end or given up before.

One of both happens, and it is known which: who gives up and who commits take the same turn.
"""

from __future__ import annotations

import contextlib
import enum
import threading
from abc import ABC, abstractmethod

import outcome
import trio

from ..errors import SdkError
from ..messages import CheckpointReply, Transact
from ..threads import in_thread


class _State(enum.Enum):
    RUNNING = enum.auto()
    COMMITTING = enum.auto()
    GIVEN_UP = enum.auto()


class GivenUp(Exception):
    """Nobody waits for the transaction any more: undo it."""


class Transacting(ABC):
    """One transaction of a user's function."""

    limited = False
    """Whether ``limit`` of its message counts."""

    def __init__(self, message: Transact) -> None:
        self.message = message
        self._state = _State.RUNNING
        self._turn = threading.Lock()
        self._token = trio.lowlevel.current_trio_token()
        self._began = trio.Event()
        self._done = trio.Event()
        self._result: outcome.Outcome[CheckpointReply]

    # ---- in the thread

    @abstractmethod
    def run(self) -> CheckpointReply:
        """Begin, call the function, save, commit. Raises what is to be raised."""

    @abstractmethod
    def interrupt(self) -> None:
        """Undo what the function has written so far, and let it write no more.

        In another thread.
        """

    def begins(self) -> None:
        """The function is called now. Raises GivenUp."""
        self.check()
        self._token.run_sync_soon(self._began.set)

    def commits(self) -> None:
        """From now on it is not given up. Raises GivenUp: it was."""
        with self._turn:
            self.check()
            self._state = _State.COMMITTING

    def goes_on(self) -> None:
        """The commit has failed: it may be given up again."""
        with self._turn:
            self._state = _State.RUNNING

    def check(self) -> None:
        """Raises GivenUp."""
        if self._state is _State.GIVEN_UP:
            raise GivenUp

    # ---- in the loop

    async def carry_out(self) -> CheckpointReply:
        """The answer. Cancelled, the transaction is given up, unless it is being committed.

        Raises:
          TooSlowError: the limit was over, and nothing is written.
        """
        trio.lowlevel.start_thread_soon(self.run, self._deliver, name="runtara-trio transact")
        with trio.CancelScope() as scope:
            try:
                await self._began.wait()
                if self.limited:
                    scope.deadline = trio.current_time() + self.message.limit
                await self._done.wait()
            except trio.Cancelled:
                with trio.CancelScope(shield=True):
                    if await in_thread(self._give_up):
                        raise
                    await self._done.wait()
        if scope.cancelled_caught:
            raise trio.TooSlowError(
                f"the function of {self.message.checkpoint_id!r} took longer than "
                f"{self.message.limit:g} s, in which nobody else can write to the file; it was "
                "undone: make it shorter, or give limit="
            )
        return self._result.unwrap()

    def _deliver(self, result: outcome.Outcome[CheckpointReply]) -> None:
        def tell() -> None:
            self._result = result
            self._began.set()
            self._done.set()

        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(tell)

    def _give_up(self) -> bool:
        with self._turn:
            if self._state is _State.COMMITTING:
                return False
            self._state = _State.GIVEN_UP
        self.interrupt()
        return True


def ended_by_function(checkpoint_id: str) -> SdkError:
    """The error of a function that has committed or rolled back by itself."""
    return SdkError(
        f"the function of {checkpoint_id!r} has ended its transaction by itself; leave the commit "
        "to sdk.transact, or what it wrote and its saved result are not one"
    )
