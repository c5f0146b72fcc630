"""Whether tables are those of the runtara-core that this package knows."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import StoreError


def check_core(
    found: set[tuple[int, str]], migrations: Iterable[tuple[int, str, str]], name: str, place: str
) -> None:
    """Whether core's records (version, checksum) are those of 1.4.1. Raises StoreError."""
    expected = {(version, checksum) for version, _, checksum in migrations}
    if found > expected:
        raise StoreError(f"{name} is of a newer runtara-core than 1.4.1; use a newer runtara-trio")
    if found and found < expected:
        raise StoreError(
            f"{name} is of an older runtara-core than 1.4.1; start runtara-core 1.4.1 on it "
            "once, which brings it up to date"
        )
    if found != expected:
        raise StoreError(
            f"{name} has a table 'instances' that is not runtara-core 1.4.1's; "
            f"give the store {place}"
        )
