"""Parameters of ours in URLs that somebody else reads."""

from __future__ import annotations


def without(url: str, name: str) -> tuple[str, list[str]]:
    """A URL without one of its parameters, and what that says each time that it is there."""
    place, mark, query = url.rpartition("?")
    if not mark:
        return url, []
    parts, begins = query.split("&"), f"{name}="
    values = [one.removeprefix(begins) for one in parts if one.startswith(begins)]
    rest = "&".join(one for one in parts if not one.startswith(begins))
    return f"{place}{mark if rest else ''}{rest}", values
