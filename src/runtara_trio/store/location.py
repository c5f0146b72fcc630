"""From a store's URL to a file.

``sqlite:///x.db`` is relative and ``sqlite:////abs/x.db`` absolute, as in SQLAlchemy;
runtara-core's ``sqlite://x.db?mode=rwc`` is taken too. runtara-core itself reads
``sqlite:///x.db`` as ``/x.db``: where exactly that file exists, nobody guesses.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qsl, unquote

import msgspec

from ..errors import ConfigError
from ..ids import check_text

OPENS = (
    "this version opens sqlite:///PATH, :memory: and postgresql://HOST/DATABASE, given as the "
    "target or in RUNTARA_DATABASE_URL, and servers as quic://HOST:PORT"
)


POSTGRES = ("postgresql", "postgres")
"""The schemes of a server's URL, libpq's own."""


def is_postgres(url: str) -> bool:
    """Whether a URL names a PostgreSQL server."""
    scheme, separator, _ = url.partition("://")
    return bool(separator) and scheme in POSTGRES


@contextmanager
def needing_psycopg(url: str) -> Iterator[None]:
    """Around the imports of what speaks to a server. Raises ConfigError: psycopg is missing."""
    try:
        yield
    except ImportError as exc:
        raise ConfigError(
            f"{url.partition('://')[0]}:// needs psycopg: pip install 'runtara-trio[postgres]'"
        ) from exc


def without_password(text: str) -> str:
    """A URL, or a text with one in it, without passwords."""
    text = re.sub(r"(://[^:/?#@\s]*):[^/?#\s]*@", r"\1:***@", text)
    return re.sub(r"(password=)[^&\s]*", r"\1***", text)


class Location(msgspec.Struct, frozen=True):
    """Where a store is."""

    path: str | None
    """Absolute and without links; None: in memory."""
    create: bool = True
    """Whether a register may make the file."""
    core: str = "1.4.1"
    """Which runtara-core's tables a new one gets."""

    @property
    def name(self) -> str:
        """What errors call it."""
        return ":memory:" if self.path is None else self.path


def locate(url: str) -> Location:
    """Resolve a URL.

    Raises:
      ConfigError: no URL of a store that this version opens.
    """
    check_text("the URL of a store", url)
    if url in (":memory:", "sqlite::memory:", "sqlite://", "sqlite:///:memory:"):
        return Location(None)
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise ConfigError(
            f"{url!r} is not the URL of a store, as 'sqlite:///orders.db' is; {OPENS}"
        )
    if scheme != "sqlite":
        raise ConfigError(f"cannot open {url!r}: {OPENS}")
    path, _, query = rest.partition("?")
    create = _may_create(url, query)
    if path in (":memory:", "/:memory:"):
        return Location(None)
    if path.startswith("/"):  # sqlite:///x.db: what follows the third slash
        relative = path[1:]
        if not relative:
            raise ConfigError(f"{url!r} names no file; {OPENS}")
        ours = _real(url, relative)
        if not os.path.isabs(relative) and not os.path.exists(ours) and os.path.exists(path):
            raise ConfigError(
                f"{url!r} means {ours!r} here and {path!r} to runtara-core, and only the "
                f"second exists; write 'sqlite:///{path}' for it"
            )
        return Location(ours, create)
    return Location(_as_core_reads(url, path), create)


def _as_core_reads(url: str, path: str) -> str:
    """The file of ``sqlite://path``, as core reads it: percent-escapes are resolved.

    0.1 did not resolve them: where its file is, and no other, it is meant.
    """
    resolved = _real(url, unquote(path))
    literal = _real(url, path)
    if literal != resolved and os.path.exists(literal):
        if os.path.exists(resolved):
            raise ConfigError(
                f"{url!r} means {resolved!r} to runtara-core and meant {literal!r} to runtara-trio "
                f"0.1, and both are there; write 'sqlite:///{literal}' or 'sqlite:///{resolved}'"
            )
        return literal
    return resolved


def _real(url: str, path: str) -> str:
    """A path without links. Raises ConfigError where it leads nowhere."""
    try:
        return os.path.realpath(path)
    except FileNotFoundError as exc:
        raise ConfigError(
            f"{url!r} is relative, and the working folder of this process is gone; give an "
            "absolute path, or start the program in another folder"
        ) from exc


def _may_create(url: str, query: str) -> bool:
    create = True
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key != "mode" or value not in ("rwc", "rw"):
            raise ConfigError(f"{url!r}: of the parameters only mode=rwc and mode=rw are known")
        create = value == "rwc"
    return create
