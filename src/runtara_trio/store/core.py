"""Whether tables are those of a runtara-core that this package knows."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import StoreError

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
