"""The attributes of an instance: what it is found by."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import ConfigError
from ..ids import check_name_of, check_text

MOST_ATTRIBUTES = 20


def check_attributes(
    values: Mapping[str, str | int | float | bool],
) -> dict[str, str | int | float | bool]:
    """Attributes that can be stored. Raises ConfigError."""
    if len(values) > MOST_ATTRIBUTES:
        raise ConfigError(f"attributes has {len(values)} entries, at most {MOST_ATTRIBUTES}")
    for name, value in values.items():
        check_name_of("the name of an attribute", name)
        if isinstance(value, str):
            check_text(f"the attribute {name}", value)
        elif (
            not isinstance(value, (bool, int, float))
            or value != value
            or abs(value) == float("inf")
        ):
            raise ConfigError(
                f"the attribute {name} must be a text, a finite number or a bool, not {value!r}"
            )
    return dict(values)
