"""``start_in``: a start in the user's own transaction."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVarTuple, Unpack, overload

from ..clock import Seconds
from ..codec import JSON, Codec
from ..errors import ConfigError
from ..ids import check_tenant_id
from ..messages import Existing, NewRun
from ..sdk.starts import IfExists, Start, StartOptions, check_existing, check_start, made
from ..sdk.workflow import Workflow
from ..store.sqlite import starting as on_sqlite

if TYPE_CHECKING:
    import psycopg

    Connection = sqlite3.Connection | psycopg.Connection[Any]

Ts = TypeVarTuple("Ts")


@overload
def start_in(
    connection: Connection,
    workflow: Workflow[*Ts, Any],
    *args: *Ts,
    tenant_id: str,
    codec: Codec = JSON,
    **options: Unpack[StartOptions],
) -> str: ...
@overload
def start_in(
    connection: Connection,
    workflow: str,
    *args: Any,
    tenant_id: str,
    codec: Codec = JSON,
    **options: Unpack[StartOptions],
) -> str: ...
def start_in(  # type: ignore[misc]  # a workflow of any arguments
    connection: Any,
    workflow: Any,
    *args: Any,
    tenant_id: str,
    codec: Codec = JSON,
    id: str | None = None,
    if_exists: IfExists = "attach",
    queue: str | None = None,
    priority: int = 0,
    delay: Seconds | None = None,
    at: datetime | None = None,
    key: str | None = None,
    attributes: Mapping[str, str | int | float | bool] | None = None,
    version: int | None = None,
) -> str:
    """Start a run in a transaction of the caller's, on the store's database. Returns its id.

    The instance exists if and only if that transaction commits. Workers are not told: one finds
    it within a second. The tables must be there, and on PostgreSQL on the connection's
    ``search_path``.

    Args:
      connection: of ``sqlite3``, or of ``psycopg``; in a transaction, or one begins.
      workflow: a :class:`Workflow`, or the name of one.
      args: its arguments.
      tenant_id: the tenant it belongs to.
      codec: encodes the arguments; that of the workers.
      id: the instance's id. None: a random one that sorts by its time (UUIDv7).
      if_exists: "attach", or "fail", as of :meth:`Client.start`.
      queue: None: the workflow's; by name, ``default``.
      priority: 0 to 9; the higher first, among the runs of one key of one tenant.
      delay: seconds, or a ``timedelta``, before it is ready.
      at: when it is ready instead: an aware ``datetime``.
      key: runs of a key take turns with those of others.
      attributes: up to 20 texts, numbers or bools, by name.
      version: None: the workflow's; by name, 1.

    Raises:
      StoreError: the tables are missing. Else what :meth:`Client.start` raises.
    """
    start: Start[Any] = Start(
        args=args,
        id=id,
        queue=queue,
        priority=priority,
        delay=delay,
        at=at,
        key=key,
        attributes=attributes,
    )
    check_start(workflow, if_exists)
    tenant = check_tenant_id(tenant_id)
    run = made(workflow, start, version=version, codec=codec)
    check_existing(_started(connection, tenant, run), run, tenant, codec, if_exists)
    return run.instance_id


def _started(connection: Any, tenant_id: str, run: NewRun) -> Existing | None:
    if isinstance(connection, sqlite3.Connection):
        return on_sqlite.start(connection, tenant_id, run, time.time())
    try:
        import psycopg
    except ImportError:
        psycopg = None  # type: ignore[assignment]
    if psycopg is None or not isinstance(connection, psycopg.Connection):
        raise ConfigError(
            "start_in needs a sqlite3.Connection or a psycopg.Connection, not a "
            f"{type(connection).__name__}"
        )
    from ..store.postgres import starting as on_postgres

    return on_postgres.start(connection, tenant_id, run)
