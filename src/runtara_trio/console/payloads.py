"""What instances contain, for people: JSON folded, texts as they are, other bytes as hex.

However large it is, a page of it is not: what does not fit is counted, and the export has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
from markupsafe import Markup, escape

from ..codec.marks import written_by

OPEN_BELOW = 2
"""Objects that are nested less deep than this are open."""
MOST = 200_000
"""Characters of one payload that are shown, so many for each item besides what it says."""
OF_AN_ITEM = 60
LARGEST = 2**20
"""Bytes of JSON that are folded; what is larger is a text, for the event loop waits for it."""
LONGEST_TEXT = 20_000
AROUND = 500
"""Characters before the first mark, where that is further behind."""
MOST_BYTES = 4096
DEEPEST = 40


def shown(data: bytes | None, find: str = "") -> Markup:
    """Bytes as HTML. ``find``: a text that is marked; what holds it is open, and comes first where
    not all is shown."""
    if data is None:
        return Markup('<p class="quiet">not set</p>')
    if not data:
        return Markup('<p class="quiet">empty</p>')
    by = written_by(data)
    if by is not None:
        return Markup('<p class="quiet">{}</p>').format(by)
    drawing = _Drawing(find)
    if len(data) > LARGEST:
        return _text(data, drawing)
    try:
        value = msgspec.json.decode(data)
        return Markup(f'<div class="json">{drawing.value(value, 0)}</div>')
    except (msgspec.DecodeError, RecursionError):
        return _text(data, drawing)


def _text(data: bytes, drawing: _Drawing) -> Markup:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        more = f"\n… {len(data) - MOST_BYTES:,} bytes more" if len(data) > MOST_BYTES else ""
        lines = "\n".join(_hex_lines(data[:MOST_BYTES]))
        return Markup("<pre class=hex>{}{}</pre>").format(lines, more)
    return Markup(f"<pre>{drawing.text(text)}</pre>")


def _hex_lines(data: bytes) -> Iterator[str]:
    for at in range(0, len(data), 16):
        part = data[at : at + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        yield f"{at:08x}  {part.hex(' '):<47}  {text}"


class _Drawing:
    """One payload."""

    def __init__(self, find: str) -> None:
        self._find = re.compile(f"({re.escape(find)})", re.IGNORECASE) if find else None
        self._holds: dict[int, bool] = {}
        """By object or list, whether what is looked for is in it."""
        self._room = MOST

    def value(self, value: Any, depth: int) -> str:
        if depth == 0 and self._find is not None:
            self._look(value, depth)
        if isinstance(value, dict | list) and value:
            return "<span>…</span>" if depth >= DEEPEST else self._folded(value, depth)
        if isinstance(value, str):
            return f'<span class="s">"{self.text(value)}"</span>'
        kind = "n" if isinstance(value, int | float) and not isinstance(value, bool) else "w"
        return f'<span class="{kind}">{self.text(msgspec.json.encode(value).decode())}</span>'

    def text(self, text: str) -> str:
        """A text, escaped, as much of it as there is room for, with what was looked for marked."""
        most = max(0, min(LONGEST_TEXT, self._room))
        before = 0
        if len(text) > most and self._find is not None:
            found = self._find.search(text)
            before = 0 if found is None or found.end() <= most else max(0, found.start() - AROUND)
        part = text[before : before + most]
        self._room -= len(part) + OF_AN_ITEM
        behind = len(text) - before - len(part)
        head = f"{before:,} characters before …" if before else ""
        tail = f"… {behind:,} characters more" if behind else ""
        return f"{head}{self._marked(part)}{tail}"

    def _marked(self, text: str) -> str:
        if self._find is None:
            return str(escape(text))
        parts = self._find.split(text)  # every other one is what was found
        parts[::2] = [str(escape(part)) for part in parts[::2]]
        parts[1::2] = [f"<mark>{escape(part)}</mark>" for part in parts[1::2]]
        return "".join(parts)

    def _folded(self, value: dict[str, Any] | list[Any], depth: int) -> str:
        pairs = list(value.items() if isinstance(value, dict) else enumerate(value))
        holds = self._holds.get(id(value), False)
        if holds:
            pairs.sort(key=lambda pair: not self._is_in(*pair))
        items: list[str] = []
        for name, one in pairs:
            if self._room <= 0:
                items.append(f"<li>… {len(pairs) - len(items):,} more</li>")
                break
            key = self.text(str(name))
            items.append(f"<li><span class=k>{key}</span>: {self.value(one, depth + 1)}</li>")
        is_open = depth < OPEN_BELOW or holds
        what = f"{{{len(value)}}}" if isinstance(value, dict) else f"[{len(value)}]"
        return (
            f"<details{' open' if is_open else ''}><summary>{what}</summary>"
            f"<ul>{''.join(items)}</ul></details>"
        )

    def _look(self, value: Any, depth: int) -> bool:
        """Note what holds what is looked for."""
        assert self._find is not None
        if isinstance(value, dict | list):
            if depth >= DEEPEST:
                return False
            pairs = value.items() if isinstance(value, dict) else enumerate(value)
            found = [self._look(one, depth + 1) or self._is_in(name, None) for name, one in pairs]
            self._holds[id(value)] = any(found)
            return any(found)
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        return self._find.search(text) is not None

    def _is_in(self, name: object, value: Any) -> bool:
        """Whether what is looked for is in a name, or in what has it."""
        assert self._find is not None
        if isinstance(name, str) and self._find.search(name):
            return True
        if isinstance(value, dict | list):
            return self._holds.get(id(value), False)
        return value is not None and self._look(value, 0)
