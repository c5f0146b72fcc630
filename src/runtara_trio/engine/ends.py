"""Waiting for the ends of runs: one watch for all who wait on a backend.

Ends have numbers, from one sequence. The watch asks for those behind the last one that it has
seen, when the store says that there is news, and once a second where it is not told. On
PostgreSQL a number may be committed after a later one: a gap is asked for again, for a while.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import outcome
import trio

from .. import logs
from ..backend import Backend
from ..errors import NotSupported, SdkError, StoreError
from ..messages import EndsSince, GetResults, ReplyT, Request, Result
from ..tasks import RepeatedEvent

LOOK = 1.0
"""Seconds between two looks where there is no news."""

LOOK_AT_ALL = 5.0
"""Seconds between two looks at all instances that are waited for: one that no client has started
has no number, and one that a program of 0.1 ends gets none."""

IDLE = 1.0
"""Seconds without anybody who waits, after which the watch begins anew."""

BEHIND = 1000
"""Numbers that may be committed after a later one."""

GAP = 10.0
"""Seconds for which a missing number may still come."""

AT_ONCE = 1000
"""Results that are asked for in one message."""


class Shared(Backend, Protocol):
    """What the watch needs of the backend that it is of."""

    def every(self, seconds: float) -> float:
        """Seconds between two looks at what nobody may have told of."""

    def start_service(self, service: EndsOfRuns) -> None:
        """Have the watch run until the backend is closed."""


class EndsOfRuns:
    """The ends of runs on one backend."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._waiting: dict[str, dict[Waits, None]] = {}
        self._fresh: dict[str, None] = {}
        self._more = RepeatedEvent()
        self._started = False
        self._told = False
        self._numbers = Numbers()

    @contextmanager
    def waiting(self, instance_id: str) -> Iterator[Waiter]:
        """Around a wait for the result of an instance."""
        waiter = Waiter()
        self.add(instance_id, waiter)
        try:
            yield waiter
        finally:
            self.remove(instance_id, waiter)

    def add(self, instance_id: str, waiter: Waits) -> None:
        """Tell a waiter of the end of an instance, once, until :meth:`remove`."""
        self._waiting.setdefault(instance_id, {})[waiter] = None
        self._fresh[instance_id] = None
        if not self._started:
            self._started = True
            self._shared.start_service(self)
        self._more.set()

    def remove(self, instance_id: str, waiter: Waits) -> None:
        """It wants to hear no more; one that was not added is fine."""
        waiters = self._waiting.get(instance_id, {})
        waiters.pop(waiter, None)
        if not waiters:
            self._waiting.pop(instance_id, None)
            self._fresh.pop(instance_id, None)

    def tell(self) -> None:
        """Some may have ended."""
        self._told = True
        self._more.set()

    async def watch(self) -> None:
        """Give results to those who wait. Runs until cancelled."""
        trouble = logs.Outage(logs.poll_failed, "the look for results")
        while True:
            if not self._waiting:
                idle_since = trio.current_time()
                await self._more.wait()
                if trio.current_time() - idle_since > IDLE:
                    self._numbers.forget()
                continue
            self._told = False
            try:
                await self._look()
            except SdkError as exc:
                if isinstance(exc, NotSupported) or (
                    isinstance(exc, StoreError) and not exc.transient
                ):
                    self._fail(exc)
                    continue
                # The store is away: who waits goes on waiting.
                trouble.goes_on(str(exc))
                await trio.sleep(LOOK)
                continue
            trouble.over()
            if not (self._told or self._fresh):
                with trio.move_on_after(self._shared.every(LOOK)):
                    await self._more.wait()

    async def _look(self) -> None:
        if self._numbers.last is None:
            self._numbers.begin((await self._ask(EndsSince(after=None))).last)
            self._fresh.update(dict.fromkeys(self._waiting))
        now = trio.current_time()
        after = self._numbers.after(now)
        while True:
            page = await self._ask(EndsSince(after=after, limit=AT_ONCE))
            new = self._numbers.add(page.ended, now)
            self._fresh.update((one, None) for one in new if one in self._waiting)
            if len(page.ended) < AT_ONCE:
                break
            after = page.ended[-1][0]  # also behind a gap that many have come after
        if self._numbers.is_time_for_all(now):
            self._fresh.update(dict.fromkeys(self._waiting))
        while self._fresh:
            ids = tuple(self._fresh)[:AT_ONCE]
            for one in ids:
                del self._fresh[one]
            try:
                found = (await self._ask(GetResults(instance_ids=ids))).results
            except BaseException:
                self._fresh.update((one, None) for one in ids if one in self._waiting)
                raise
            for instance in ids:
                result = found.get(instance)
                for waiter in list(self._waiting.get(instance, ())):
                    if result is not None and result.status.finished:
                        waiter.give(result)
                    else:
                        waiter.not_yet()

    def _fail(self, error: SdkError) -> None:
        """Waiting helps nobody."""
        for waiters in list(self._waiting.values()):
            for waiter in list(waiters):
                waiter.fail(error)
        self._waiting.clear()
        self._fresh.clear()

    async def _ask(self, message: Request[ReplyT]) -> ReplyT:
        return await self._shared.request(message)


class Waits(Protocol):
    """One who is told of an end."""

    def give(self, result: Result) -> None:
        """It has ended."""

    def not_yet(self) -> None:
        """It has not, as of now."""

    def fail(self, error: SdkError) -> None:
        """The store cannot tell."""


class Waiter:
    """One who waits for a result."""

    __slots__ = ("_event", "_result")

    def __init__(self) -> None:
        self._event = trio.Event()
        self._result: outcome.Outcome[Result]

    def give(self, result: Result) -> None:
        self._result = outcome.Value(result)
        self._event.set()

    def not_yet(self) -> None:
        pass

    def fail(self, error: SdkError) -> None:
        self._result = outcome.Error(error)
        self._event.set()

    async def wait(self) -> Result:
        """The result. Raises what keeps the store from giving it for good."""
        await self._event.wait()
        return self._result.unwrap()


class Numbers:
    """Which numbers of ends were seen: all up to one, and some behind it."""

    def __init__(self) -> None:
        self.last: int | None = None
        self._seen: set[int] = set()
        self._gap_since = 0.0
        self._next_all = 0.0

    def begin(self, last: int) -> None:
        """This is the newest that has been committed; some before it may not have been yet."""
        self.last = max(0, last - BEHIND)
        self._next_all = trio.current_time() + LOOK_AT_ALL

    def forget(self) -> None:
        """Nobody waits: the next who does begins anew."""
        self.last = None
        self._seen.clear()

    def after(self, now: float) -> int:
        """The number behind which to ask: a gap is given up after a while."""
        assert self.last is not None
        if self._seen and now - self._gap_since > GAP:
            self.last = min(self._seen) - 1
            self._close()
        return self.last

    def add(self, ended: tuple[tuple[int, str], ...], now: float) -> list[str]:
        """Note a page. The ids in it that were not seen before."""
        new = [instance for number, instance in ended if number not in self._seen]
        if not self._seen:
            self._gap_since = now
        self._seen.update(number for number, _ in ended)
        if self._close():
            self._gap_since = now
        return new

    def _close(self) -> bool:
        """Move on behind what was seen without a gap."""
        assert self.last is not None
        moved = False
        while self.last + 1 in self._seen:
            self.last += 1
            self._seen.discard(self.last)
            moved = True
        return moved

    def is_time_for_all(self, now: float) -> bool:
        """Whether everything is to be looked at once more."""
        if now < self._next_all:
            return False
        self._next_all = now + LOOK_AT_ALL
        return True
