"""What PostgreSQL's errors mean to a user: once, where they enter."""

from __future__ import annotations

import errno
import os

import psycopg
import trio

from ...errors import SdkError, StoreError
from .connection import READ_ONLY, STALE, ReadOnlySession


def is_lost(exc: BaseException) -> bool:
    """Whether the connection is what failed, and not the statement: on another one it may be
    tried again."""
    if isinstance(exc, ReadOnlySession):
        return False
    if isinstance(exc, psycopg.Error) and exc.sqlstate is not None:
        return exc.sqlstate in (*STALE, READ_ONLY) or may_pass(exc)
    return isinstance(exc, (psycopg.OperationalError, OSError, trio.TooSlowError))


def is_unsure(exc: BaseException) -> bool:
    """Whether a commit that failed so may have been made: the server did not refuse it."""
    refused = isinstance(exc, psycopg.Error) and exc.sqlstate in (*STALE, READ_ONLY)
    return is_lost(exc) and not refused


def may_pass(exc: BaseException) -> bool:
    """Whether a connection that failed so may succeed in a while."""
    if isinstance(exc, psycopg.Error) and exc.sqlstate is not None:
        return exc.sqlstate.startswith(_PASSING) or exc.diag.severity_nonlocalized in (
            "FATAL",
            "PANIC",
        )
    return _refusal(exc) is None and is_lost(exc)


_PASSING = ("08", "57P", "53300")
"""How SQLSTATEs begin that pass: of connections, of servers that start or stop or are full."""


def is_of_network(exc: BaseException) -> bool:
    """Whether the network failed, or the name: no server has said anything."""
    return any(os.strerror(code) in str(exc) for code in _OF_NETWORK)


_OF_NETWORK = (
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.ENOENT,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ETIMEDOUT,
    errno.EPIPE,
)


def translated(exc: BaseException, name: str) -> BaseException:
    """The SdkError for an exception of psycopg; others as they are."""
    if isinstance(exc, SdkError):
        return exc
    text = " ".join(str(exc).split()) or type(exc).__name__
    if isinstance(exc, trio.TooSlowError):
        text = "no answer"
    known = _refusal(exc) or _by_sqlstate(exc)
    if known is not None:
        remedy, transient = known
        return _made(name, text, remedy, exc, transient=transient)
    if isinstance(exc, (psycopg.Error, OSError, trio.TooSlowError)):
        remedy = "check that the server runs and takes connections" if is_lost(exc) else ""
        return _made(name, text, remedy, exc, transient=is_lost(exc))
    return exc


def _refusal(exc: BaseException) -> tuple[str, bool] | None:
    """What libpq itself refuses, in its own words: it has no codes."""
    if isinstance(exc, psycopg.OperationalError) and exc.sqlstate is None:
        for said, remedy in _REFUSALS:
            if said in str(exc):
                return remedy, False
    return None


def _by_sqlstate(exc: BaseException) -> tuple[str, bool] | None:
    if isinstance(exc, ReadOnlySession):
        return _READ_ONLY_ROLE, False
    if isinstance(exc, psycopg.Error) and exc.sqlstate is not None:
        for begins, remedy, transient in _REMEDIES:
            if exc.sqlstate.startswith(begins):
                return remedy, transient
    return None


def no_answer(name: str, last: BaseException | None = None) -> StoreError:
    """Patience is over. ``last``: what went wrong last, if anything did."""
    if last is not None:
        made = translated(last, name)
        if isinstance(made, StoreError):
            return made
    return StoreError(f"{name}: no answer in time; it may have been carried out", transient=True)


def _made(name: str, text: str, remedy: str, exc: BaseException, *, transient: bool) -> StoreError:
    made = StoreError(f"{name}: {text}{'; ' if remedy else ''}{remedy}", transient=transient)
    made.__cause__ = exc
    return made


_MORE_CONNECTIONS = (
    "the server, the database or the role has too few; a backend takes up to 8: raise "
    "max_connections or the role's CONNECTION LIMIT, or open one backend for many instances"
)
_REFUSALS = (
    ("no password supplied", "give a password in the URL, in ~/.pgpass or PGPASSWORD"),
    ("server does not support SSL", "turn ssl on there, or take sslmode off the URL"),
    ("certificate verify failed", "give the CA in sslrootcert=, or the host of the certificate"),
    ("does not match host name", "give the host that the certificate names"),
    ("root certificate file", "give the CA's file in sslrootcert="),
)
"""What libpq says before there is a connection, and the remedy. None of it passes by itself."""

_READ_ONLY_ROLE = (
    "sessions of this role, or in this database, are read-only: set "
    "default_transaction_read_only = off for it, or give another role"
)
_REMEDIES: tuple[tuple[str | tuple[str, ...], str, bool], ...] = (
    ("28P01", "check the user and the password of the URL", False),
    ("28", "check the user of the URL, or create it first: createuser; and pg_hba.conf", False),
    ("3D000", "create it first: createdb", False),
    ("3F000", "the schema of search_path: CREATE SCHEMA first, and GRANT USAGE on it", False),
    (("42602", "42704", "22023"), "check options= in the URL", False),
    ("53300", _MORE_CONNECTIONS, True),
    (READ_ONLY, "this is a read-only standby: give the primary's URL, or all hosts", True),
    (
        ("57014", "55P03"),
        "a timeout of the server ended the statement: raise it, or see who holds the lock",
        True,
    ),
    ("42501", "the user needs rights on the tables, or to make them", False),
    ("53100", "make room on the server", True),
    ("53200", "make room on the server", True),
    ("40", "it may be tried again", True),
)
"""How a SQLSTATE begins: the remedy, and whether waiting may help."""
