"""From the JSON schema of what a wait is for to a form, and from the form to the payload."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

RAW = "payload"
"""The field of a payload that no form is made of."""
PREFIX = "f."
MOST_FIELDS = 40


@dataclass(frozen=True, slots=True)
class Field:
    """One input of a form."""

    name: str
    label: str
    kind: str
    """text, number, integer, boolean, choice, json"""
    required: bool
    choices: tuple[str, ...] = ()
    """JSON texts."""
    hint: str = ""
    default: str = ""


class Invalid(Exception):
    """What somebody has typed is not what is asked for."""


def fields(asks: str | None) -> list[Field] | None:
    """The inputs for a schema; None: one for the payload as it is, or as JSON."""
    if asks is None:
        return None
    try:
        schema = msgspec.json.decode(asks)
    except msgspec.DecodeError:
        return None
    root = _resolved(schema, schema)
    properties = root.get("properties")
    if root.get("type") == "object" and isinstance(properties, dict) and properties:
        if len(properties) > MOST_FIELDS:
            return None
        required = root.get("required", [])
        return [
            _field(f"{PREFIX}{name}", name, one, schema, required=name in required)
            for name, one in properties.items()
        ]
    if root.get("type") in ("string", "integer", "number", "boolean") or "enum" in root:
        return [_field(PREFIX, "answer", root, schema, required=True)]
    return None


def _resolved(part: Any, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A part of a schema, where it refers to another: that one; where it may be null: the rest."""
    for _ in range(10):
        if not isinstance(part, dict):
            return {}
        reference = part.get("$ref")
        options = part.get("anyOf")
        if isinstance(reference, str):
            part = schema.get("$defs", {}).get(reference.removeprefix("#/$defs/"), {})
        elif isinstance(options, list):
            others = [one for one in options if one != {"type": "null"}]
            if len(others) != 1:
                return {}
            part = others[0]
        else:
            break
    return part if isinstance(part, dict) else {}


def _field(name: str, label: str, part: Any, schema: Mapping[str, Any], *, required: bool) -> Field:
    found = _resolved(part, schema)
    title = found.get("description") or part.get("description") or ""
    default = part.get("default")
    shown = "" if default is None else msgspec.json.encode(default).decode()
    if "enum" in found or "const" in found:
        given = found.get("enum", [found.get("const")])
        choices = tuple(msgspec.json.encode(one).decode() for one in given)
        return Field(name, label, "choice", required, choices, title, shown)
    kinds = {"string": "text", "integer": "integer", "number": "number", "boolean": "boolean"}
    kind = kinds.get(str(found.get("type")), "json")
    if kind == "text":
        shown = default or ""
    limits = [f"{words} {found[key]}" for key, words in _LIMITS if key in found]
    return Field(name, label, kind, required, (), "; ".join(filter(None, [title, *limits])), shown)


_LIMITS = (
    ("minimum", "at least"),
    ("maximum", "at most"),
    ("exclusiveMinimum", "above"),
    ("minLength", "characters, at least"),
    ("maxLength", "characters, at most"),
)


def typed(text: str) -> str:
    """What somebody has typed: browsers send a line's end as two characters."""
    return text.replace("\r\n", "\n")


def payload_of(asks: str | None, given: Mapping[str, str]) -> bytes:
    """The payload that somebody has typed. Raises Invalid."""
    wanted = fields(asks)
    if wanted is None:
        text = typed(given.get(RAW, ""))
        if asks is not None:
            _json(RAW, text)
        return text.encode()
    if [one.name for one in wanted] == [PREFIX]:
        return msgspec.json.encode(_of_field(wanted[0], given))
    values = {}
    for one in wanted:
        if not one.required and not given.get(one.name, "").strip():
            continue  # its default
        values[one.name.removeprefix(PREFIX)] = _of_field(one, given)
    return msgspec.json.encode(values)


def _of_field(field: Field, given: Mapping[str, str]) -> Any:
    text = given.get(field.name, "")
    if field.kind == "text":
        return typed(text)
    if not text.strip():
        raise Invalid(f"{field.label}: give a value")
    if field.kind == "boolean":
        if text not in ("true", "false"):
            raise Invalid(f"{field.label}: {text!r} is not true or false")
        return text == "true"
    if field.kind == "choice" and text not in field.choices:
        raise Invalid(f"{field.label}: {text!r} is not one of {', '.join(field.choices)}")
    value = _json(field.label, text)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if field.kind == "integer" and not (is_number and isinstance(value, int)):
        raise Invalid(f"{field.label}: {text!r} is not a whole number")
    if field.kind == "number" and not is_number:
        raise Invalid(f"{field.label}: {text!r} is not a number")
    return value


def _json(label: str, text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as exc:
        raise Invalid(f"{label}: {text[:80]!r} is not JSON: {exc}") from exc
