"""Whose tables: those of the runtara-cores that this package knows."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import ConfigError, StoreError
from ..types import InstanceStatus, SignalType
from ..urls import without
from .structs import End

CORES = ("1.4.1", "1.6.4")
"""Whose tables new stores may have."""

Migrations = Iterable[tuple[int, str, str]]
"""Version, description and SHA-384 of each."""


def check_core(
    found: set[tuple[int, str]], first: Migrations, later: Migrations, name: str, place: str
) -> None:
    """Whether core's records (version, checksum) are those of 1.4.1, ``first``, and perhaps some of
    those that 1.6.4 has made since, ``later``: columns and tables that nobody must fill.

    Raises:
      StoreError: they are not.
    """
    expected = {(version, checksum) for version, _, checksum in first}
    known = expected | {(version, checksum) for version, _, checksum in later}
    if expected <= found <= known:
        return
    if found > expected and max(found)[0] > max(known)[0]:
        raise StoreError(f"{name} is of a newer runtara-core than 1.6.4; use a newer runtara-trio")
    if found and found < expected:
        raise StoreError(
            f"{name} is of an older runtara-core than 1.4.1; start runtara-core 1.4.1 on it "
            "once, which brings it up to date"
        )
    raise StoreError(
        f"{name} has a table 'instances' that is neither runtara-core 1.4.1's nor 1.6.4's; "
        f"give the store {place}"
    )


def split_core(url: str) -> tuple[str, str | None]:
    """A URL without its ``core=``, and what that says; None: nothing.

    Raises:
      ConfigError: an unknown version.
    """
    rest, versions = without(url, "core")
    for version in versions:
        if version not in CORES:
            raise ConfigError(f"core must be {' or '.join(CORES)}, not {version!r}")
    return rest, versions[-1] if versions else None


_TERMINATIONS: dict[InstanceStatus, tuple[str, int | None]] = {
    InstanceStatus.COMPLETED: ("completed", 0),
    InstanceStatus.FAILED: ("application_error", 1),
    InstanceStatus.CANCELLED: ("cancelled", None),
}


def termination_of(end: End) -> tuple[str | None, int | None]:
    """What the columns of 1.6.4 are told of an end: reason and exit code. No reason: a suspended
    instance that nobody has paused; it sleeps, if it has a time to wake."""
    if end.status is not InstanceStatus.SUSPENDED:
        return _TERMINATIONS[end.status]
    paused = end.signal is not None and end.signal.type is SignalType.PAUSE
    return "paused" if paused else None, None
