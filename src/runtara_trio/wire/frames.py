"""Frames: six bytes of head, then one message.

A call is one stream: the client writes one frame and ends its side, the server answers
with one frame, or with none, and ends the other. The head is the payload's length and the
frame's type, big-endian (reference: runtara-core 1.4.1).
"""

from __future__ import annotations

import struct

REQUEST = 1
RESPONSE = 2
TYPES = frozenset(range(1, 7))
"""All that the protocol names. Of these only the first two occur; the server takes any as
a request, as runtara-core does."""

MAX_PAYLOAD = 64 * 1024 * 1024
"""Bytes of the largest payload."""

_HEAD = struct.Struct(">IH")
HEAD_SIZE = _HEAD.size


class FrameError(Exception):
    """Bytes that are no frame."""


def encode(kind: int, payload: bytes) -> bytes:
    """One frame."""
    return _HEAD.pack(len(payload), kind) + payload


class FrameReader:
    """Puts one frame together from the pieces that a stream delivers.

    What stands behind the frame is ignored. The announced length is checked before
    anything of that length is kept.
    """

    __slots__ = ("_limit", "_needed", "_pieces", "kind", "size")

    def __init__(self, limit: int = MAX_PAYLOAD) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._needed = -1  # bytes of the whole frame; not known before its head is there
        self.size = 0
        """Bytes that have come, the head among them."""
        self.kind = 0
        """The frame's type, once its head is there."""

    def feed(self, data: bytes) -> bool:
        """Take the next piece. Whether the frame is whole.

        Raises:
          FrameError: an unknown type, or a longer payload than the limit.
        """
        self._pieces.append(data)
        self.size += len(data)
        if self._needed < 0 and self.size >= HEAD_SIZE:
            self._read_head(data if len(self._pieces) == 1 else self._joined())
        return self.size >= self._needed > 0

    def payload(self) -> bytes:
        """The payload of a whole frame.

        Raises:
          FrameError: it is not whole; the stream ended early.
        """
        if not self.size >= self._needed > 0:
            raise FrameError(f"the stream ended after {self.size} bytes, inside its frame")
        return self._joined()[HEAD_SIZE : self._needed]

    def _read_head(self, data: bytes) -> None:
        length, self.kind = _HEAD.unpack_from(data)
        if self.kind not in TYPES:
            raise FrameError(f"no frame has the type {self.kind}")
        if length > self._limit:
            raise FrameError(f"a frame of {length} bytes was announced, more than {self._limit}")
        self._needed = HEAD_SIZE + length

    def _joined(self) -> bytes:
        if len(self._pieces) > 1:
            self._pieces = [b"".join(self._pieces)]
        return self._pieces[0] if self._pieces else b""
