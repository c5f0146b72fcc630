"""Which index leads a list: the same decision for both databases."""

from __future__ import annotations

from ..messages import CountInstances, ListInstances
from ..types import InstanceStatus


def is_led_by_status(message: ListInstances | CountInstances, *, broad: bool = False) -> bool:
    """Whether the index of statuses leads: where nothing says more, and few are of such a status,
    as most have completed. Each status is then asked for by itself.

    ``broad``: many ids begin with the prefix, which says little then.
    """
    filter, statuses = message.filter, message.statuses
    prefix = None if broad else filter.id_prefix
    given = (filter.parent_id, filter.waiting_for, prefix)
    says_more = (
        any(one is not None for one in given)
        or filter.parked
        or filter.no_live_worker
        or bool(filter.attributes)
    )
    return statuses is not None and not says_more and InstanceStatus.COMPLETED not in statuses
