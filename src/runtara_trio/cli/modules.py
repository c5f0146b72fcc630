"""What commands find in modules: workflows, functions, codecs."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import Any

import click

from ..codec import Codec


def find_module(module_name: str) -> ModuleType:
    """A module, looked for in the current folder too."""
    try:
        sys.path.insert(0, os.getcwd())
    except FileNotFoundError as exc:
        raise click.UsageError("the working folder of this process is gone; enter another") from exc
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not (module_name + ".").startswith(exc.name + "."):
            raise  # something that the program itself imports
        raise click.UsageError(f"there is no module {module_name!r} here") from exc


def find_codec(target: str) -> Codec:
    """The codec that ``module:object`` names."""
    module_name, separator, name = target.partition(":")
    if not separator or not module_name or not name:
        raise click.UsageError(f"the codec {target!r} is not of the form module:object")
    found: Any = getattr(find_module(module_name), name, None)
    if isinstance(found, type) or not (hasattr(found, "encode") and hasattr(found, "decode")):
        raise click.UsageError(f"{target!r} is not a codec: it has no encode and decode")
    codec: Codec = found
    return codec
