"""Fixtures of the tests of workers."""

from __future__ import annotations

import pytest

from ..helpers.runs import Log


@pytest.fixture
def log() -> Log:
    return Log()
