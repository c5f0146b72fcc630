"""Parameters and results of statements, in PostgreSQL's binary form: the few types that the store
uses."""

from __future__ import annotations

import contextlib
import struct
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import pq

BOOL, BYTEA, INT8, TEXT, BYTEAS, INT8S, TEXTS, TIMES = 16, 17, 20, 25, 1001, 1016, 1009, 1184
"""Object ids of the types."""

Parameter = None | str | bytes | int | list[str] | list[bytes] | list[int]
Row = tuple[Any, ...]

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_INT8 = struct.Struct("!q")
_INTEGERS = {20: _INT8, 21: struct.Struct("!h"), 23: struct.Struct("!i")}
_LENGTH = struct.Struct("!i")


def type_of(value: Parameter) -> int:
    if isinstance(value, list):
        if not value or isinstance(value[0], str):
            return TEXTS
        return BYTEAS if isinstance(value[0], bytes) else INT8S
    if isinstance(value, bytes):
        return BYTEA
    return INT8 if isinstance(value, int) and not isinstance(value, bool) else 0


def packed(value: Parameter) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    if isinstance(value, list):
        return _packed_list(value)
    return _INT8.pack(value)


def _packed_list(values: list[Any]) -> bytes:
    element = {TEXTS: TEXT, BYTEAS: BYTEA, INT8S: INT8}[type_of(values)]
    parts = [struct.pack("!iiiii", 1, 0, element, len(values), 1)]
    for value in values:
        data = packed(value) or b""
        parts += (_LENGTH.pack(len(data)), data)
    return b"".join(parts)


def rows(result: pq.abc.PGresult) -> list[Row]:
    columns = range(result.nfields)
    loads = [_LOADS.get(result.ftype(column), _text) for column in columns]
    get = result.get_value
    return [
        tuple(
            [
                None if (data := get(row, column)) is None else loads[column](data)
                for column in columns
            ]
        )
        for row in range(result.ntuples)
    ]


def _text(data: bytes) -> str:
    return data.decode()


def _time(data: bytes) -> datetime:
    with contextlib.suppress(OverflowError):
        return _EPOCH + timedelta(microseconds=_INT8.unpack(data)[0])
    return datetime.max.replace(tzinfo=UTC)


_LOADS: dict[int, Any] = {
    BOOL: lambda data: data == b"\1",
    BYTEA: bytes,
    TIMES: _time,
    **{kind: lambda data, form=form: form.unpack(data)[0] for kind, form in _INTEGERS.items()},
}
