"""What a durable call says of itself to people: ``@durable(summary="charge {cents} cents")``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ..errors import ConfigError
from ..ids import storable
from .keys import check_format

LONGEST = 200
"""Characters of a summary; the rest is left out."""


class Summary:
    """Makes the summaries of one function's calls."""

    __slots__ = ("_signature", "_text")

    def __init__(self, name: str, function: Callable[..., Any], text: str | None) -> None:
        """``text``: a format string over the arguments; None: no summaries.

        Raises:
          ConfigError: it names an unknown parameter, or is invalid.
        """
        self._text = text
        self._signature = inspect.signature(function)
        if text is None:
            return
        if not isinstance(text, str):
            raise ConfigError(f"summary of {name} must be a format string, not {text!r}")
        check_format(f"summary of {name}", text, self._signature)

    def of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """The summary of a call. Arguments that the text cannot show do not fail the call."""
        if self._text is None:
            return None
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        try:
            return storable(self._text.format(**bound.arguments), LONGEST)
        except Exception as exc:
            return storable(f"{self._text} ({type(exc).__name__}: {exc})", LONGEST)
