"""Whose turn it is: queues take turns, in a queue its tenants, in a tenant its keys.

A flood of one starves nobody, then. The last one served of each level goes into the next
claim, where the turn goes on behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..structs import Lane

Turns = Mapping[tuple[str, ...], str]
"""Path (nothing, a queue, or a queue and a tenant) to the one below it that was served last."""


def share(limit: int, count: int) -> int:
    """How much of ``limit`` each of ``count`` gets, rounded up."""
    return -(-limit // max(count, 1))


def ordered(names: Iterable[str], last: str | None) -> list[str]:
    """Names in their order, those behind the last one first."""
    found = sorted(names)
    return (
        found if last is None else [n for n in found if n > last] + [n for n in found if n <= last]
    )


def deal(
    lanes: Sequence[tuple[Lane, Sequence[str]]],
    turns: Turns,
    limit: int,
    most: Mapping[str, int] | None = None,
) -> tuple[list[str], dict[tuple[str, ...], str]]:
    """Up to ``limit`` ids out of lanes of keys, in turns, and whose turn was the last.

    ``most``: by queue, where it has a limit, how many of its own.
    """
    left = dict(most or {})
    queues: dict[str, dict[str, dict[str, list[str]]]] = {}
    for lane, ids in lanes:
        if ids:
            tenants = queues.setdefault(lane.queue, {})
            keys = tenants.setdefault(lane.tenant_id or "", {})
            keys[lane.key or ""] = list(ids)
    here = {(lane.queue, lane.tenant_id) for lane, _ in lanes}
    # Of a tenant that has nothing now nothing is kept: there may be any number of them.
    after = {path: name for path, name in turns.items() if len(path) < 2 or path in here}
    dealt: list[str] = []
    while queues and len(dealt) < limit:
        queue = ordered(queues, after.get(()))[0]
        tenants = queues[queue]
        tenant = ordered(tenants, after.get((queue,)))[0]
        keys = tenants[tenant]
        key = ordered(keys, after.get((queue, tenant)))[0]
        dealt.append(keys[key].pop(0))
        after[()], after[queue,], after[queue, tenant] = queue, tenant, key
        if queue in left:
            left[queue] -= 1
        if not keys[key]:
            del keys[key]
        if not keys:
            del tenants[tenant]
        if not tenants or left.get(queue) == 0:
            del queues[queue]
    return dealt, after
