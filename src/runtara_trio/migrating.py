"""The versions of a store's tables, whichever database they are in."""

from __future__ import annotations

import msgspec

from .store.core import CORES, split_core
from .store.location import is_postgres, locate, needing_psycopg
from .store.sqlite import migrating as on_sqlite
from .store.structs import TableVersions
from .threads import in_thread


async def table_versions(url: str) -> TableVersions:
    """How far the tables of a store are. It makes and changes nothing.

    Args:
      url: of a file or of a PostgreSQL server.

    Raises:
      ConfigError: not the URL of one.
      StoreError: what is there is not ours, or of a newer runtara-trio; it cannot be used.
    """
    url, _ = split_core(url)
    if is_postgres(url):
        with needing_psycopg(url):
            from .store.postgres.migrating import versions

        return await versions(url)
    return await in_thread(on_sqlite.versions, locate(url))


async def migrate(url: str) -> None:
    """Bring the tables of a store to this version, or make them. What is there already stays as it
    is: programs of the version before go on working.

    Args:
      url: of a file or of a PostgreSQL server.

    Raises:
      ConfigError: not the URL of one.
      StoreError: as of :func:`table_versions`; a runtara-core works on the file; no right to.
    """
    url, core = split_core(url)
    if is_postgres(url):
        with needing_psycopg(url):
            from .store.postgres.migrating import migrate as on_postgres

        await on_postgres(url, core or CORES[0])
    else:
        location = msgspec.structs.replace(locate(url), core=core or CORES[0])
        await in_thread(on_sqlite.migrate, location)
