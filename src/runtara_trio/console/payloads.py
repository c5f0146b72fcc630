"""What instances contain, for people: JSON folded, texts as they are, other bytes as hex."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from markupsafe import Markup, escape

OPEN_BELOW = 2
"""Objects that are nested less deep than this are open."""
MOST_ITEMS = 500
"""Items of one object or list that are shown."""
LONGEST_TEXT = 20_000
MOST_BYTES = 4096
DEEPEST = 40


def shown(data: bytes | None, find: str = "") -> Markup:
    """Bytes as HTML. ``find``: a text that is marked, and what holds it is open."""
    if data is None:
        return Markup('<p class="quiet">not set</p>')
    if not data:
        return Markup('<p class="quiet">empty</p>')
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return _text(data, find)
    return Markup(f'<div class="json">{_value(value, find.lower(), 0)}</div>')


def _text(data: bytes, find: str) -> Markup:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        more = f"\n… {len(data) - MOST_BYTES:,} bytes more" if len(data) > MOST_BYTES else ""
        lines = "\n".join(_hex_lines(data[:MOST_BYTES]))
        return Markup("<pre class=hex>{}{}</pre>").format(lines, more)
    return Markup(f"<pre>{_marked(_short(text), find.lower())}</pre>")


def _hex_lines(data: bytes) -> Iterator[str]:
    for at in range(0, len(data), 16):
        part = data[at : at + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        yield f"{at:08x}  {part.hex(' '):<47}  {text}"


def _short(text: str) -> str:
    if len(text) <= LONGEST_TEXT:
        return text
    return f"{text[:LONGEST_TEXT]}… {len(text) - LONGEST_TEXT:,} characters more"


def _value(value: Any, find: str, depth: int) -> str:
    if isinstance(value, dict | list) and value:
        if depth >= DEEPEST:
            return "<span>…</span>"
        return _folded(value, find, depth)
    if isinstance(value, str):
        return f'<span class="s">"{_marked(_short(value), find)}"</span>'
    kind = "n" if isinstance(value, int | float) and not isinstance(value, bool) else "w"
    return f'<span class="{kind}">{_marked(msgspec.json.encode(value).decode(), find)}</span>'


def _folded(value: dict[str, Any] | list[Any], find: str, depth: int) -> str:
    is_object = isinstance(value, dict)
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    items = "".join(
        f"<li><span class=k>{_marked(str(name), find)}</span>: {_value(one, find, depth + 1)}</li>"
        for name, one in list(pairs)[:MOST_ITEMS]
    )
    if len(value) > MOST_ITEMS:
        items += f"<li>… {len(value) - MOST_ITEMS:,} more</li>"
    is_open = depth < OPEN_BELOW or (find and "<mark>" in items)
    what = f"{{{len(value)}}}" if is_object else f"[{len(value)}]"
    return (
        f"<details{' open' if is_open else ''}><summary>{what}</summary><ul>{items}</ul></details>"
    )


def _marked(text: str, find: str) -> str:
    """A text, escaped, with what was looked for marked."""
    if not find or find not in text.lower():
        return str(escape(text))
    parts: list[str] = []
    rest = text
    while (at := rest.lower().find(find)) >= 0:
        parts += [str(escape(rest[:at])), f"<mark>{escape(rest[at : at + len(find)])}</mark>"]
        rest = rest[at + len(find) :]
    return "".join([*parts, str(escape(rest))])
