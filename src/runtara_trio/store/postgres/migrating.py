"""How far the tables of a database are, and bringing them to this version."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..structs import TableVersions
from . import schema
from .connection import Connection
from .failures import translated
from .hosts import Hosts
from .pool import Pool
from .run_schema import RUNS_VERSION


async def versions(url: str, name: str) -> TableVersions:
    """What there is; nothing is changed.

    Raises:
      StoreError: no tables of ours, or of a newer version; the server cannot be used.
    """
    async with _connected(url, name) as connection:
        await schema.is_ready(connection, name)
        ((core, ours),) = await connection.run(
            "SELECT to_regclass('instances') IS NOT NULL,"
            " to_regclass('runtara_trio_schema') IS NOT NULL"
        )
        return TableVersions(
            core=bool(core),
            ours=bool(ours),
            workflows=await schema.runs_version(connection, name),
            newest=RUNS_VERSION,
        )


async def migrate(url: str, name: str) -> None:
    """Make what is missing. Programs that work on it go on.

    Raises:
      StoreError: as :func:`versions`; this role may not make tables.
    """
    async with _connected(url, name) as connection:
        await schema.create(connection, name)
        await schema.create_runs(connection, name)


@asynccontextmanager
async def _connected(url: str, name: str) -> AsyncIterator[Connection]:
    pool = Pool(Hosts(url), name)
    try:
        async with pool.lent() as connection:
            yield connection
    except Exception as exc:
        told = translated(exc, name)
        if told is exc:
            raise
        raise told from exc
    finally:
        pool.close()
