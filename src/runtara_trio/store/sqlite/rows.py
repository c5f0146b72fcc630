"""The rows that both saving and the answers read and write: checkpoints under their ids."""

from __future__ import annotations

import sqlite3

from ..values import as_bytes

_SAVE = (
    "INSERT INTO checkpoints (instance_id, checkpoint_id, state, created_at)"
    " VALUES (?, ?, ?, ?) ON CONFLICT (instance_id, checkpoint_id) DO NOTHING"
)
_READ = "SELECT state FROM checkpoints WHERE instance_id = ? AND checkpoint_id = ?"


def save(
    db: sqlite3.Connection, instance_id: str, checkpoint_id: str, state: bytes, time: str
) -> bool:
    """Store a state, unless there is one. Whether it was stored."""
    return db.execute(_SAVE, (instance_id, checkpoint_id, state, time)).rowcount == 1


def stored(db: sqlite3.Connection, instance_id: str, checkpoint_id: str) -> bytes | None:
    """What is stored under an id; None: nothing."""
    found = db.execute(_READ, (instance_id, checkpoint_id)).fetchone()
    return None if found is None else as_bytes(found[0])
