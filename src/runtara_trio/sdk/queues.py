"""What a queue allows, checked."""

from __future__ import annotations

from ..clock import check_seconds
from ..errors import ConfigError
from ..ids import check_name_of
from ..types import Queue, Rate

MOST = 1_000_000


def checked_queue(queue: Queue) -> Queue:
    """A queue whose values can be stored.

    Raises:
      ConfigError: names the value, and what it must be.
    """
    if not isinstance(queue, Queue):
        raise ConfigError(f"a queue must be a Queue(name, ...), not {queue!r}")
    name = check_name_of("queue", queue.name)
    for what in ("limit", "per_worker", "key_limit"):
        value = getattr(queue, what)
        if value is not None:
            _check_count(f"{what} of the queue {name}", value)
    rate = queue.rate
    if rate is None:
        return queue
    if not isinstance(rate, Rate):
        raise ConfigError(f"rate of the queue {name} must be a Rate(count, per=...), not {rate!r}")
    _check_count(f"count of the rate of the queue {name}", rate.count)
    per = check_seconds(f"per of the rate of the queue {name}", rate.per, positive=True)
    return Queue(name, queue.limit, queue.per_worker, Rate(rate.count, per), queue.key_limit)


def _check_count(what: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST:
        raise ConfigError(f"{what} must be a whole number from 1 to {MOST}, not {value!r}")
