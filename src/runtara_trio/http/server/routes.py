"""From method and path to what answers them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar
from urllib.parse import unquote_to_bytes, urlsplit

from .messages import Head, Refused, Reply, text

HandlerT = TypeVar("HandlerT")

PARAMETER = ""
"""Stands for any segment."""


class Route(NamedTuple, Generic[HandlerT]):
    """One call."""

    method: str
    path: str
    """With ``{name}`` for a segment that may be anything."""
    handler: HandlerT
    reads: bool = False
    """It reads a body in JSON."""


class Found(NamedTuple, Generic[HandlerT]):
    """What answers a request."""

    handler: HandlerT
    values: tuple[str, ...]
    """What stands in the path for its parameters."""
    query: str


class _Node(Generic[HandlerT]):
    def __init__(self) -> None:
        self.below: dict[str, _Node[HandlerT]] = {}
        self.routes: dict[str, Route[HandlerT]] = {}


class Routes(Generic[HandlerT]):
    """All calls of a server."""

    def __init__(self, routes: Iterable[Route[HandlerT]]) -> None:
        self._root: _Node[HandlerT] = _Node()
        for route in routes:
            node = self._root
            for segment in route.path.split("/")[1:]:
                name = PARAMETER if segment.startswith("{") else segment
                node = node.below.setdefault(name, _Node())
            node.routes[route.method] = route

    def find(self, head: Head) -> Found[HandlerT]:
        """What answers a request. Raises Refused."""
        path, query = _target(head.target)
        try:
            segments = [unquote_to_bytes(one).decode() for one in path.split(b"/")[1:]]
        except UnicodeDecodeError as exc:
            raise Refused(text(400, "invalid URL: it is not UTF-8")) from exc
        if any("\0" in one for one in segments):
            raise Refused(text(400, "invalid URL: an id holds a NUL character"))
        node, values = self._root, []
        for number, segment in enumerate(segments, 1):
            next_one = node.below.get(segment) if segment else None
            if next_one is None:
                next_one = node.below.get(PARAMETER)
                values.append(segment)
            if next_one is None or (number == len(segments) and not segment):
                raise Refused(Reply(status=404))
            node = next_one
        route = node.routes.get("GET" if head.method == "HEAD" else head.method)
        if route is None:
            raise Refused(_wrong_method(node.routes))
        if route.reads and not _is_json(head.header(b"content-type")):
            raise Refused(text(415, "send the header Content-Type: application/json"))
        return Found(route.handler, tuple(values), query.decode("latin-1"))


def _target(target: bytes) -> tuple[bytes, bytes]:
    """Path and query of a target, which may be a whole URL."""
    if not target.startswith(b"/"):
        try:
            parts = urlsplit(target)
        except ValueError as exc:
            raise Refused(text(400, f"invalid URL: {exc}")) from exc
        return parts.path, parts.query
    path, _, query = target.partition(b"?")
    return path, query


def _wrong_method(routes: dict[str, Route[HandlerT]]) -> Reply:
    if not routes:
        return Reply(status=404)
    names = [*routes, *(["HEAD"] if "GET" in routes else [])]
    return Reply(status=405, headers=(("allow", ",".join(sorted(names))),))


def _is_json(kind: str) -> bool:
    name = kind.partition(";")[0].strip().lower()
    return name == "application/json" or (
        name.startswith("application/") and name.endswith("+json")
    )
