"""Coroutines of asyncio libraries, run by trio-asyncio: one loop a block.

The loop is a service of the block's backend, opened at first use: what uses it is
cancelled by the scope it is called in, and the loop itself ends after the body, before the
outcome is recorded.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

import outcome
import trio

from .. import logs
from ..engine.block import Block
from ..errors import ConfigError, SdkError

if TYPE_CHECKING:
    import trio_asyncio

T = TypeVar("T")

calling_task: ContextVar[trio.lowlevel.Task | None] = ContextVar(
    "runtara_trio_calling_task", default=None
)
"""Of asyncio's code, the task of Trio that has called it."""

CLOSE_WITHIN = 5.0
"""Seconds that tasks which a library has left behind get to end."""


class AsyncioLoop:
    """The asyncio loop of one block."""

    def __init__(self, block: Block) -> None:
        self._block = block
        self._loop: trio_asyncio.TrioEventLoop | None = None
        self._ready: trio.Event | None = None
        self._over = trio.Event()
        self._closed = trio.Event()

    async def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The result of a coroutine function, called in the loop."""
        loop = await self._opened()
        made = function(*args, **kwargs)
        if not inspect.iscoroutine(made):
            raise ConfigError(
                f"{getattr(function, '__name__', function)} returned a {type(made).__name__}, "
                "not a coroutine; only an async function needs asyncio"
            )
        calling_task.set(trio.lowlevel.current_task())
        result = await loop.run_aio_coroutine(_captured(made))
        return result.unwrap()

    async def _opened(self) -> trio_asyncio.TrioEventLoop:
        if self._ready is None:
            self._block.state.check_open()
            opens = _open_loop()
            self._ready = trio.Event()
            self._block.ending.first.append(self._close)
            self._block.shared.start_soon(self._serve, opens)
        await self._ready.wait()
        if self._loop is None:
            raise SdkError("the asyncio loop of this block has closed")
        return self._loop

    async def _serve(self, opens: Callable[[], Any]) -> None:
        assert self._ready is not None
        try:
            async with opens() as loop:
                loop.set_exception_handler(_log)
                loop.set_task_factory(self._make_task)
                self._guard_callbacks(loop)
                self._loop = loop
                self._ready.set()
                await self._over.wait()
                self._loop = None
                await _end_tasks(loop)
        finally:
            self._loop = None
            self._ready.set()
            self._closed.set()

    def _make_task(self, loop: Any, coroutine: Any, **options: Any) -> Any:
        import asyncio

        return asyncio.Task(self._guarded(coroutine), loop=loop, **options)

    def _guard_callbacks(self, loop: Any) -> None:
        """See :meth:`_guarded`: what a library has called by the loop can end the program too. Each
        step of a task is such a call."""
        for name, position in _CALLERS.items():
            setattr(loop, name, self._guarding(loop, getattr(loop, name), position))

    def _guarding(self, loop: Any, caller: Callable[..., Any], position: int) -> Callable[..., Any]:
        # Of C: trio-asyncio patches the names in asyncio, and who has imported get_running_loop
        # from there before that, as AnyIO has, asks these.
        from _asyncio import _get_running_loop, _set_running_loop

        def call(*args: Any, **options: Any) -> Any:
            before, callback, after = args[:position], args[position], args[position + 1 :]

            def guarded(*values: Any) -> None:
                around = _get_running_loop()
                _set_running_loop(loop)
                try:
                    callback(*values)
                except _ENDS as exc:
                    self._block.stop(f"stopped by {type(exc).__name__}", exc)
                finally:
                    _set_running_loop(around)

            return caller(*before, guarded, *after, **options)

        return call

    async def _guarded(self, coroutine: Awaitable[T]) -> T:
        """A task of the loop. One that ends the program ends the block: let through, it would
        end the loop and with it all that runs on the block's backend."""
        import asyncio

        try:
            return await coroutine
        except _ENDS as exc:
            self._block.stop(f"stopped by {type(exc).__name__}", exc)
            raise asyncio.CancelledError from exc

    async def _close(self) -> None:
        self._over.set()
        await self._closed.wait()


_ENDS = (SystemExit, KeyboardInterrupt)
"""What asyncio lets out of its loop."""


async def _captured(made: Coroutine[Any, Any, T]) -> outcome.Outcome[T]:
    """The result of a call, or what it raised to end the program: its caller's affair."""
    try:
        return outcome.Value(await made)
    except _ENDS as exc:
        return outcome.Error(exc)


_CALLERS = {
    "call_soon": 0,
    "call_soon_threadsafe": 0,
    "call_later": 1,
    "call_at": 1,
    "add_reader": 1,
    "add_writer": 1,
}
"""The loop's methods that take a callback, and at which place."""

_MISTAKES = (
    (
        "asyncio.run() cannot be called",
        "it runs in an event loop already: await the coroutine instead of asyncio.run",
    ),
    (
        "Task got bad yield",
        "asyncio code cannot await a function of Trio: call it from a Trio function, and "
        "sdk.asyncio(...) for the part that needs asyncio",
    ),
    ("no running event loop", "what it calls needs asyncio: give @durable(flavor='asyncio')"),
    (
        "within a Trio environment",
        "asyncio.run cannot be called here: give @durable(flavor='asyncio'), and await",
    ),
)
"""What asyncio and trio-asyncio say where a function is of the other flavor; and the remedy."""


def explained(name: str, error: RuntimeError) -> SdkError | None:
    """What to do about an error of mixing Trio and asyncio; None: it is another error."""
    for said, remedy in _MISTAKES:
        if said in str(error):
            return SdkError(f"{name}: {remedy} ({error})")
    return None


def _open_loop() -> Callable[[], Any]:
    try:
        # At first use only: it patches asyncio. On 3.12 and 3.13 it is warned of what 3.14
        # lacks; where a program makes errors of warnings, the patch would stop half-way.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            from trio_asyncio import open_loop
    except (ImportError, AttributeError) as exc:  # it asks for what 3.14's asyncio lacks
        raise ConfigError(
            "asyncio libraries need trio-asyncio, which is not there: it has no release for "
            f"this Python, or was not installed ({exc}); use a Trio library, or trio.to_thread"
        ) from exc
    opens: Callable[[], Any] = open_loop
    return opens


def _log(loop: Any, context: dict[str, Any]) -> None:
    """What asyncio has no one to tell: a task of a library that failed, and the like."""
    error = context.get("exception")
    logs.asyncio_error(exc_info=error, error=context.get("message", "an unhandled error"))


async def _end_tasks(loop: trio_asyncio.TrioEventLoop) -> None:
    """Cancel the tasks that were left behind, and let go of those that do not end."""
    import asyncio

    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    with trio.move_on_after(CLOSE_WITHIN):
        while any(not task.done() for task in left):
            await loop.synchronize()
            await trio.sleep(0.01)
    stuck = [task for task in left if not task.done()]
    for task in stuck:  # or the end of the loop would wait for them
        asyncio._unregister_task(task)
    if stuck:
        logs.asyncio_stuck(count=len(stuck))
