"""Parallel durable work: nurseries and maps whose tasks have paths of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from typing import Any, Literal, TypeVar, overload

import trio

from ..engine import deadlines
from ..engine.block import Block
from ..errors import ConfigError
from ..ids import first_id
from .facts import Facts
from .maps import ItemT, Results, ResultT, map_items
from .paths import Path, below, check_name, scope

T = TypeVar("T")


class DurableNursery:
    """A nursery that gives each child a path; :meth:`RuntaraSdk.open_nursery` opens it."""

    def __init__(self, block: Block, nursery: trio.Nursery, path: Path) -> None:
        self._block = block
        self._nursery = nursery
        self._path = path

    @property
    def cancel_scope(self) -> trio.CancelScope:
        """The scope around all children."""
        return self._nursery.cancel_scope

    def start_soon(
        self, function: Callable[..., Awaitable[Any]], *args: Any, name: str | None = None
    ) -> None:
        """Start ``function(*args)`` as a child task.

        Args:
          function: an async function.
          args: its arguments.
          name: its part of the path. None: by the order of calls, which the task that
            opened the nursery fixes; from any other task a name is required.

        Raises:
          SdkError: a sibling has the name; or no name is given and the order is not fixed.
        """
        path = self._child(name)
        self._nursery.start_soon(self._run, path, function, args, name=function)

    async def start(
        self, function: Callable[..., Awaitable[Any]], *args: Any, name: str | None = None
    ) -> Any:
        """Start a child and wait for its ``task_status.started(value)``; returns the value.

        Args:
          function: what is called, with ``task_status`` besides its arguments.
          args: its arguments.
          name: its part of the path, as of :meth:`start_soon`.
        """
        path = self._child(name)

        async def run(*, task_status: trio.TaskStatus[Any]) -> None:
            with below(path.mine()):
                await function(*args, task_status=task_status)

        return await self._nursery.start(run, name=function)

    def _child(self, name: str | None) -> Path:
        if name is None:
            return self._path.child(self._path.next_name("task", "start_soon"))
        return self._path.child(check_name(name))

    async def _run(
        self, path: Path, function: Callable[..., Awaitable[Any]], args: tuple[Any, ...]
    ) -> None:
        with below(path.mine()):
            await function(*args)


@asynccontextmanager
async def open_nursery(
    block: Block, parent: Path, name: str | None
) -> AsyncIterator[DurableNursery]:
    """A nursery at a path below ``parent``."""
    own = parent.next_name("nursery", "open_nursery") if name is None else check_name(name)
    path = parent.begin(own)
    try:
        with below(path):
            async with trio.open_nursery() as nursery:
                yield DurableNursery(block, nursery, path)
    finally:
        parent.end(own)


async def first_of(
    block: Block,
    parent: Path,
    functions: Sequence[Callable[[], Awaitable[Any]]],
    name: str | None,
) -> tuple[int, Any]:
    """Call all; the number of the one that is first, and its result. Which one is saved."""
    if not functions:
        raise ConfigError("first needs at least one function")
    own = parent.next_name("first", "sdk.first") if name is None else check_name(name)
    path = parent.begin(own)
    won: list[tuple[int, Any]] = []

    async def run(number: int) -> None:
        with below(path.child(str(number)).mine()):
            result = await functions[number]()
        won.append((number, result))

    async def race(number: int, nursery: trio.Nursery) -> None:
        await run(number)
        nursery.cancel_scope.cancel()

    try:
        stored_as = first_id(path.prefix)
        stored = await block.requests.find(stored_as)
        await deadlines.note(stored)
        if stored is not None:
            await run(int(stored))
            return won[0]
        async with trio.open_nursery() as nursery:
            for number in range(len(functions)):
                nursery.start_soon(race, number, nursery, name=functions[number])
        await block.requests.checkpoint(stored_as, str(won[0][0]).encode())
        await block.boundary.reach_saved()
        return won[0]
    finally:
        parent.end(own)


class Parallel(Facts):
    """The verbs for parallel work."""

    @property
    def _path(self) -> Path:
        raise NotImplementedError

    def scope(self, name: str) -> AbstractContextManager[None]:
        """Put a path before every id below it: ``name/…``.

        The same name may be opened again once it is closed, and is the same work then. Two
        at the same time are an :class:`SdkError`.
        """
        return scope(self._path, check_name(name))

    def open_nursery(self, name: str | None = None) -> AbstractAsyncContextManager[DurableNursery]:
        """A nursery whose children have a path each, the same in every run.

        Args:
          name: its part of the path. None: by the order of calls in the task that opened
            the path around it.
        """
        return open_nursery(self._block, self._path, name)

    @overload
    def map(
        self,
        function: Callable[[ItemT], Awaitable[ResultT]],
        items: Iterable[ItemT],
        *,
        limit: int = 16,
        key: Callable[[ItemT], str] | None = None,
        name: str | None = None,
        on_error: Literal["cancel"] = "cancel",
        ordered: bool = False,
    ) -> AbstractAsyncContextManager[Results[ResultT]]: ...
    @overload
    def map(
        self,
        function: Callable[[ItemT], Awaitable[ResultT]],
        items: Iterable[ItemT],
        *,
        limit: int = 16,
        key: Callable[[ItemT], str] | None = None,
        name: str | None = None,
        on_error: Literal["collect"],
        ordered: bool = False,
    ) -> AbstractAsyncContextManager[Results[ResultT | Exception]]: ...
    def map(
        self,
        function: Callable[[ItemT], Awaitable[ResultT]],
        items: Iterable[ItemT],
        *,
        limit: int = 16,
        key: Callable[[ItemT], str] | None = None,
        name: str | None = None,
        on_error: Literal["cancel", "collect"] = "cancel",
        ordered: bool = False,
    ) -> AbstractAsyncContextManager[Results[Any]]:
        """Call ``function`` with each item in parallel; results come as they are ready::

            async with sdk.map(ship, parcels, limit=8) as results:
                async for label in results:
                    ...

        Each call has a path of its own, so that durable calls in it have ids that are the
        same in every run. Leaving the block cancels what still runs. An error of a call
        leaves it as from a nursery, in a group.

        Args:
          limit: how many run at once.
          key: an item's part of the path, which must differ from the others'. None: its
            position in ``items``.
          name: the map's part of the path; see :meth:`open_nursery`.
          on_error: "collect": the error of a call comes in place of its result, and the others
            go on.
          ordered: results come in the order of the items.

        Raises:
          SdkError: two items have one key.
        """
        return map_items(
            self._block,
            self._path,
            function,
            items,
            limit=limit,
            key=key,
            name=name,
            on_error=on_error,
            ordered=ordered,
        )

    async def first(
        self, *functions: Callable[[], Awaitable[T]], name: str | None = None
    ) -> tuple[int, T]:
        """Call all, cancel the others once one has returned, and return its number and result::

            number, offer = await sdk.first(partial(ask, "bank"), partial(ask, "broker"))

        Which one it was is saved: a replay calls that one alone. An error of a call before that
        leaves as from a nursery, in a group.

        Args:
          functions: async functions without arguments; at least one.
          name: its part of the path. None: by the order of calls; see :meth:`open_nursery`.
        """
        return await first_of(self._block, self._path, functions, name)
