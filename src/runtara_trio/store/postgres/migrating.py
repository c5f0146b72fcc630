"""How far the tables of a database are, and bringing them to this version."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..structs import TableVersions
from . import schema
from .backend import named
from .connection import Connection
from .failures import translated
from .hosts import Hosts
from .pool import Pool
from .run_schema import RUNS_VERSION


async def versions(url: str) -> TableVersions:
    """What there is; nothing is changed.

    Raises:
      StoreError: no tables of ours, or of a newer version; the server cannot be used.
    """
    async with _connected(url) as (connection, name):
        core, ours = await schema.made(connection, name)
        return TableVersions(
            core=core,
            ours=ours,
            workflows=await schema.runs_version(connection, name),
            newest=RUNS_VERSION,
        )


async def migrate(url: str, core: str = "1.4.1") -> None:
    """Make what is missing. Programs that work on it go on. ``core``: whose tables new ones are.

    Raises:
      StoreError: as :func:`versions`; this role may not make tables.
    """
    async with _connected(url) as (connection, name):
        await schema.create(connection, name, core)
        await schema.create_runs(connection, name)


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[tuple[Connection, str]]:
    """A connection, and what errors call its server."""
    name = named(url)
    pool = Pool(Hosts(url), name)
    try:
        async with pool.lent() as connection:
            yield connection, name
    except Exception as exc:
        told = translated(exc, name)
        if told is exc:
            raise
        raise told from exc
    finally:
        pool.close()
