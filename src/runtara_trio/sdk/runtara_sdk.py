"""``RuntaraSdk``: the verbs that a durable program uses.

A verb checks its arguments, makes one message, sends it through the block and gives the
reply a friendly shape. What a signal does to the program is decided below, in the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, ParamSpec, TypeVar, TypeVarTuple, overload

import trio

from .. import logs
from ..clock import Seconds, check_seconds
from ..codec import Codec, Place, at, check_type, decode, decode_sent, encode, schema_of
from ..engine import deadlines
from ..engine.block import Block
from ..errors import CodecError
from ..ids import (
    check_checkpoint_id,
    check_name_of,
    received_id,
    refused_id,
)
from ..messages import (
    GetCheckpoint,
)
from ..types import CustomSignal
from . import waiting
from .asyncio_bridge import AsyncioLoop
from .children import Starting
from .manual import ManualSignals
from .parallel import Parallel
from .paths import Path, current_path, joined
from .results import CheckpointResult, made_result
from .telling import Telling
from .transact import transact as run_transaction

T = TypeVar("T")
P = ParamSpec("P")
Ts = TypeVarTuple("Ts")


class RuntaraSdk(Parallel, Starting, Telling, ManualSignals):
    """The durable side of one instance; ``open_runtara`` gives it.

    Every method that takes a ``checkpoint_id`` refuses one that is longer than 1,024 bytes
    of UTF-8, holds a NUL or a lone surrogate, or begins with ``runtara_trio::``
    (:class:`ConfigError`). Calls after the block's end, and writing calls after its outcome
    was recorded, raise :class:`SdkError`; a write of a lost lease raises
    :class:`LeaseLost`; what the backend cannot do, :class:`StoreError`.
    """

    def __init__(self, block: Block, codec: Codec, checkpoint_id: str | None) -> None:
        Starting.__init__(self, block, checkpoint_id)
        ManualSignals.__init__(self, block)
        self._codec = codec
        self._root = Path(block)
        self._loop = AsyncioLoop(block)

    @property
    def _path(self) -> Path:
        """Where in the tree of ids the calling task works."""
        return current_path(self._block, self._root)

    def _id(self, checkpoint_id: str) -> str:
        """A checkpoint id below the path of the calling task."""
        checked = check_checkpoint_id(checkpoint_id)
        path = self._path
        return check_checkpoint_id(joined(path, checked)) if path.prefix else checked

    def _at(self, checkpoint_id: str) -> Codec:
        """The codec of what is stored under a full id."""
        return at(self._codec, Place(self.instance_id, "state", checkpoint_id))

    # ---- checkpoints and steps

    async def register(self, checkpoint_id: str | None = None, *, revive: bool = False) -> None:
        """Register in a block that was opened with ``register=False``.

        Args:
          checkpoint_id: a resume point, which must exist. None: the one that the block was
            opened with, if any.
          revive: run a finished instance again.

        Raises:
          SdkError: registered already.
          RegistrationError: see :func:`open_runtara`.
        """
        checked = self._checkpoint_id
        if checkpoint_id is not None:
            checked = check_checkpoint_id(checkpoint_id)
        await self._block.register(checked, revive)
        self._checkpoint_id = checked

    async def checkpoint(self, checkpoint_id: str, state: Any = b"") -> CheckpointResult:
        """Save ``state`` under the id, or get back what was saved there: the first wins.

        A boundary, after its save. Cancelled while the save is on its way, it returns what
        the save brought, and the cancel comes at the next await: a replay goes the same way.
        The answer is waited for within ``request_timeout_ms``.

        Args:
          checkpoint_id: unique in the instance.
          state: bytes as they are, anything else by the codec; at most 64 MiB − 4 KiB.

        Raises:
          CodecError: ``state`` has no encoding.
        """
        checkpoint_id = self._id(checkpoint_id)
        self._block.state.check_writable()
        codec = self._at(checkpoint_id)
        data = encode(codec, f"state of checkpoint {checkpoint_id!r}", state)
        self._block.past.touch(checkpoint_id)
        reply = await self._block.requests.checkpoint(checkpoint_id, data)
        logs.checkpoint(
            instance_id=self.instance_id, checkpoint_id=checkpoint_id, found=reply.found
        )
        await self._block.boundary.reach_saved()
        signal = reply.custom_signal
        if signal is not None:
            payload = await self._accepted(checkpoint_id, signal.payload, bytes)
            signal = CustomSignal(signal.checkpoint_id, payload)
        return made_result(checkpoint_id, reply, data, codec, signal)

    @overload
    async def get_checkpoint(self, checkpoint_id: str) -> bytes | None: ...
    @overload
    async def get_checkpoint(self, checkpoint_id: str, type: type[T]) -> T | None: ...
    async def get_checkpoint(self, checkpoint_id: str, type: type[Any] = bytes) -> Any:
        """What is saved under an id; None where nothing is.

        Args:
          checkpoint_id: the id, below the path of the calling task.
          type: what it is decoded to; bytes as they are.

        Raises:
          CodecError: it is not a ``type``.
          ServerError: there is no such instance yet.
        """
        checkpoint_id = self._id(checkpoint_id)
        message = GetCheckpoint(instance_id=self.instance_id, checkpoint_id=checkpoint_id)
        self._block.past.touch(checkpoint_id)
        reply = await self._block.requests.request(message)
        if not reply.found:
            return None
        deadlines.replayed()
        return decode(self._at(checkpoint_id), f"checkpoint {checkpoint_id!r}", reply.state, type)

    def step(self, checkpoint_id: str | None = None) -> AbstractAsyncContextManager[None]:
        """Around work and the checkpoint that saves it: a pause does not tear them apart.

        Entry and exit are boundaries. A cancel still cancels the work; a checkpoint inside
        is shielded, because the effect it saves has happened.

        Args:
          checkpoint_id: what :attr:`step_key` is made of.
        """
        self._block.state.check_writable()
        if checkpoint_id is None:
            return self._block.boundary.step(None)
        return self._block.noted_step(self._id(checkpoint_id))

    async def transact(
        self,
        function: Callable[[Any, *Ts], T],
        *args: *Ts,
        id: str | None = None,
        limit: Seconds = 5.0,
    ) -> T:
        """Run ``function(connection, *args)`` in a transaction of the store's database, which
        saves its result as well: its effect there happens exactly once.

        The connection is an ordinary ``sqlite3.Connection`` or ``psycopg.Connection``, and the
        function runs in a thread. It must not commit or roll back. Where a result is stored it
        does not run. An exception rolls back and leaves; a serialization failure and a deadlock
        are tried again. Cancelled, it is waited for within ``final_timeout``, then undone.

        Args:
          function: sync. Its name and arguments make the id, as for ``@durable``.
          args: behind the connection.
          id: a checkpoint id instead.
          limit: seconds, or a ``timedelta``, on a file, where nobody else can write meanwhile.

        Raises:
          ConfigError: it is async.
          TooSlowError: it took longer than the limit; what it wrote was undone.
          SdkError: it has ended the transaction by itself.
          NotSupported: a server, not a store.
        """
        checked = check_seconds("limit", limit, positive=True)
        result: T = await run_transaction(self, function, args, id=id, limit=checked)
        return result

    # ---- waiting

    async def sleep(self, seconds: Seconds, checkpoint_id: str, state: Any = b"") -> None:
        """Sleep until a wall time that is saved first: a restart sleeps only the rest.

        A boundary for its whole length.

        Args:
          seconds: finite, 0 or more, or a ``timedelta``; ignored where an earlier run has
            saved a wake time.
          checkpoint_id: unique in the instance; ``state`` is saved under it.

        Raises:
          ConfigError: the duration is invalid.
          SdkError: this run has slept under the id already.
        """
        checked = check_seconds("seconds", seconds)
        checkpoint = self._id(checkpoint_id)
        data = encode(self._at(checkpoint), f"state of sleep {checkpoint_id!r}", state)
        with self._block.uses.once("sleep", checkpoint):
            await waiting.sleep(self._block, checked, checkpoint, data)

    @overload
    async def wait_for_signal(
        self, checkpoint_id: str, timeout: Seconds | None = None
    ) -> bytes: ...
    @overload
    async def wait_for_signal(
        self, checkpoint_id: str, timeout: Seconds | None = None, *, type: type[T]
    ) -> T: ...
    async def wait_for_signal(
        self, checkpoint_id: str, timeout: Seconds | None = None, type: type[Any] = bytes
    ) -> Any:
        """The payload that an operator sends to this id, waiting for it if need be.

        It is saved as a checkpoint before it is returned: a replay gets the same one. A
        boundary for its whole length.

        Args:
          checkpoint_id: unique in the instance; the operator sends to it, path included.
          timeout: seconds from the first wait on, over all restarts; None: for ever.
          type: what the payload is decoded to; ``bytes``: as it was sent. A text that is not
            the JSON of the type may be what the JSON text of it would be.

        Raises:
          TooSlowError: no signal came in time. That is saved: a replay raises it too, and a
            signal that comes later is refused.
          CodecError: the payload is not a ``type``. An operator may replace it.
          ConfigError: the timeout is invalid.
          SdkError: this run has waited under the id already, or another task waits.
        """
        limit = None if timeout is None else check_seconds("timeout", timeout)
        check_type(self._codec, f"signal {checkpoint_id!r}", type)
        full_id = self._id(checkpoint_id)
        with self._block.uses.once("wait for the signal", full_id):
            payload = await waiting.wait_for_signal(
                self._block, full_id, limit, lambda: schema_of(self._codec, type)
            )
            if payload is not None:
                return await self._accepted(full_id, payload, type)
        raise trio.TooSlowError(f"no signal came for {full_id!r} in time")

    @overload
    async def receive(self, name: str, timeout: Seconds | None = None) -> bytes: ...
    @overload
    async def receive(self, name: str, timeout: Seconds | None = None, *, type: type[T]) -> T: ...
    async def receive(
        self, name: str, timeout: Seconds | None = None, type: type[Any] = bytes
    ) -> Any:
        """The next message that was sent to this instance under ``name``, waiting for it if need
        be. Any number may be sent; each is handed out once, in the order in which they were sent.

        It is saved before it is returned: the n-th call for a name, in one path, gets the same
        message in every replay. A boundary for its whole length.

        Args:
          name: of the messages; see :meth:`InstanceHandle.send_message`.
          timeout: seconds from the first wait on, over all restarts; None: for ever.
          type: what the payload is decoded to; ``bytes``: as it was sent.

        Raises:
          TooSlowError: none came in time. That is saved: a replay raises it too.
          CodecError: the payload is not a ``type``.
          ConfigError: the timeout is invalid.
        """
        limit = None if timeout is None else check_seconds("timeout", timeout)
        what = f"the message {check_name_of('name', name)!r}"
        check_type(self._codec, what, type)
        path = self._path
        number = path.numbers.next(("receive", path.prefix, name))
        saved_as = received_id(path.prefix + path.within, name, number)
        payload = await waiting.receive(self._block, name, saved_as, limit)
        if payload is None:
            raise trio.TooSlowError(f"no message came for {name!r} in time")
        codec = at(self._codec, Place(self.instance_id, "message", name))
        return decode_sent(codec, what, payload, type)

    async def _accepted(self, checkpoint_id: str, payload: bytes, type: type[Any]) -> Any:
        """A signal's payload, decoded. One that cannot be is marked, and may be replaced."""
        try:
            codec = self._at(checkpoint_id)
            return decode_sent(codec, f"signal {checkpoint_id!r}", payload, type)
        except CodecError as exc:
            await self._block.requests.checkpoint(refused_id(checkpoint_id), b"")
            exc.add_note("an operator may replace it: runtara-trio signal --replace")
            raise

    def deadline(
        self, checkpoint_id: str, seconds: Seconds
    ) -> AbstractAsyncContextManager[trio.CancelScope]:
        """``trio.move_on_after``, over restarts: the time at which it cancels is saved first.

        ``scope.cancelled_caught`` says whether it cancelled the work; that is saved as well,
        and the same in a replay. A run that comes back after the deadline replays what is
        stored, and is cancelled at the first thing that is new.

        Args:
          checkpoint_id: unique in the instance.
          seconds: finite, 0 or more, or a ``timedelta``; ignored where an earlier run has
            saved a deadline. A program that moves ``scope.deadline`` has it its own way, in
            this run.

        Raises:
          ConfigError: the duration is invalid.
          SdkError: this run has had a deadline of the id already.
        """
        checked = check_seconds("seconds", seconds)
        return waiting.deadline(self._block, self._id(checkpoint_id), checked)

    # ---- asyncio

    async def asyncio(
        self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """The result of a coroutine function that needs asyncio, run through trio-asyncio.

        All such calls of a block share one loop, opened at first use. A cancelled scope
        cancels the asyncio task.

        Args:
          function: the coroutine function.
          args, kwargs: its arguments.

        Raises:
          ConfigError: trio-asyncio cannot be imported.
        """
        result: T = await self._loop.run(function, *args, **kwargs)
        return result
