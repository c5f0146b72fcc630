"""How bytes begin that a codec of ours has wrapped: by it a codec that changed is told from a value
that is damaged. No UTF-8 begins so, and thus no JSON."""

from __future__ import annotations

ENCRYPTED = b"\xffrtE\1"
COMPRESSED = b"\xffrtZ\1"


def key_id(data: bytes) -> str | None:
    """The id of the key that something is encrypted by; None: it cannot be told."""
    at = len(ENCRYPTED)
    if not data.startswith(ENCRYPTED) or len(data) <= at:
        return None
    try:
        return data[at + 1 : at + 1 + data[at]].decode() or None
    except UnicodeDecodeError:
        return None


def written_by(data: bytes) -> str | None:
    """Which codec has written something, for an error; None: none of those that leave a mark."""
    if data.startswith(ENCRYPTED):
        key = key_id(data)
        by = "" if key is None else f" with the key {key!r}"
        return f"encrypted{by}: give the codec Encrypted that has it"
    if data.startswith(COMPRESSED):
        return "compressed: give the codec Compressed"
    return None
