"""What PostgreSQL's errors mean to a user: once, where they enter."""

from __future__ import annotations

import psycopg
import trio
from psycopg import errors

from ..errors import SdkError, StoreError


def is_lost(exc: BaseException) -> bool:
    """Whether the connection is what failed, and not the statement."""
    if isinstance(exc, psycopg.Error) and exc.sqlstate is not None:
        return exc.diag.severity_nonlocalized in ("FATAL", "PANIC")  # the server hangs up
    return isinstance(exc, (psycopg.OperationalError, OSError, trio.TooSlowError))


def translated(exc: BaseException, name: str) -> BaseException:
    """The SdkError for an exception of psycopg; others as they are."""
    if isinstance(exc, SdkError):
        return exc
    text = " ".join(str(exc).split()) or type(exc).__name__
    if isinstance(exc, trio.TooSlowError):
        text = "no answer"
    for said, remedy, transient in _REFUSALS:
        if isinstance(exc, psycopg.OperationalError) and said in text:
            return _made(name, text, remedy, exc, transient=transient)
    for kinds, remedy, transient in _REMEDIES:
        if isinstance(exc, kinds):
            return _made(name, text, remedy, exc, transient=transient)
    if isinstance(exc, (psycopg.Error, OSError, trio.TooSlowError)):
        remedy = "check that the server runs and takes connections" if is_lost(exc) else ""
        return _made(name, text, remedy, exc, transient=is_lost(exc))
    return exc


def no_answer(name: str) -> StoreError:
    """Patience is over."""
    return StoreError(f"{name}: no answer in time; it may have been carried out", transient=True)


def _made(name: str, text: str, remedy: str, exc: BaseException, *, transient: bool) -> StoreError:
    made = StoreError(f"{name}: {text}{'; ' if remedy else ''}{remedy}", transient=transient)
    made.__cause__ = exc
    return made


_MORE_CONNECTIONS = "raise max_connections, or open one backend for many instances"
_REFUSALS = (
    ("password authentication failed", "check the user and the password of the URL", False),
    ("no password supplied", "give a password in the URL, in ~/.pgpass or PGPASSWORD", False),
    ("too many connections", _MORE_CONNECTIONS, True),
    ("too many clients", _MORE_CONNECTIONS, True),
    ("remaining connection slots", _MORE_CONNECTIONS, True),
    ("server does not support SSL", "turn ssl on there, or take sslmode off the URL", False),
    (
        "certificate verify failed",
        "give the CA in sslrootcert=, or the host of the certificate",
        False,
    ),
    ("does not match host name", "give the host that the certificate names", False),
    ("root certificate file", "give the CA's file in sslrootcert=", False),
    ('" does not exist', "create it first: createdb, createuser", False),
)
"""What a server says before there is a connection; psycopg has no codes for it."""

_REMEDIES: tuple[tuple[tuple[type[BaseException], ...], str, bool], ...] = (
    ((errors.TooManyConnections,), _MORE_CONNECTIONS, True),
    (
        (errors.ReadOnlySqlTransaction,),
        "this is a read-only standby: give the primary's URL",
        False,
    ),
    (
        (errors.QueryCanceled, errors.LockNotAvailable),
        "a timeout of the server ended the statement: raise it, or see who holds the lock",
        True,
    ),
    (
        (errors.InsufficientPrivilege,),
        "the user needs rights on the tables, or to make them",
        False,
    ),
    ((errors.DiskFull, errors.OutOfMemory), "make room on the server", True),
    (
        (errors.DeadlockDetected, errors.SerializationFailure),
        "it may be tried again",
        True,
    ),
)
