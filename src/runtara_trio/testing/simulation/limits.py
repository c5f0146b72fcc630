"""What queues allow, counted from outside."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

import msgspec
import trio

from ...types import Queue
from .process import Process


class Held(msgspec.Struct):
    """A lease, as its holder was told."""

    lease: int
    process: Process
    queue: str
    works: bool = True
    """It has not told that it waits."""
    saved_before: frozenset[str] = frozenset()
    """What was saved of the instance when it was taken."""


class Limits:
    """The limits and rates of one simulation."""

    def __init__(self, finding: Callable[[str, str], None]) -> None:
        self._finding = finding
        self._queues: dict[str, Queue] = {}
        self._begun: dict[str, list[tuple[float, float]]] = defaultdict(list)
        """When runs began, by the wall's clock and by the steady one."""
        self._ever_begun: set[str] = set()

    def set_queues(self, queues: Iterable[Queue]) -> None:
        """These limits count from now on."""
        self._queues.update((one.name, one) for one in queues)

    def key_limit(self, queue: str) -> int | None:
        """How many runs of a key may work at once."""
        stored = self._queues.get(queue)
        return None if stored is None else stored.key_limit

    def has_begun(self, instance_id: str) -> bool:
        """Whether a run was ever taken."""
        return instance_id in self._ever_begun

    def note_begin(self, instance_id: str, queue: str, now: float) -> None:
        """A run was taken; ``now``: wall time. The first time it begins."""
        if instance_id in self._ever_begun:
            return
        self._ever_begun.add(instance_id)
        begun = self._begun[queue]
        begun.append((now, trio.current_time()))
        stored = self._queues.get(queue)
        if stored is None or stored.rate is None:
            return
        per, steady = stored.rate.per, trio.current_time()
        # by both clocks: the wall's may have been set
        inside = sum(now - per < wall <= now and steady - per < time for wall, time in begun)
        if inside > stored.rate.count:
            self._finding(
                "rates are kept",
                f"{inside} runs of the queue {queue!r} began within {stored.rate.per:g} s, and "
                f"{stored.rate.count} may",
            )

    def check(self, queues: Iterable[str], held: Iterable[Held]) -> None:
        """Somebody has got a place in these queues; ``held``: all leases."""
        leases = list(held)
        for queue in sorted(queues):
            stored = self._queues.get(queue)
            if stored is None:
                continue
            working = [
                one
                for one in leases
                if one.queue == queue and one.works and one.process.holds_leases
            ]
            most = max(Counter(one.process.name for one in working).values(), default=0)
            for what, count, limit in (
                ("limit", len(working), stored.limit),
                ("per_worker", most, stored.per_worker),
            ):
                if limit is not None and count > limit:
                    self._finding(
                        "limits are kept",
                        f"{count} runs of the queue {queue!r} work, and its {what} is {limit}",
                    )
