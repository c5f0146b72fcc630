"""The suite, and its rules of determinism.

1. No test sleeps real time to wait for something: it waits for the thing itself, for an
   event, a line of output, a row. A test that must show that something does *not* happen
   shows what happens instead.
2. Where time matters and nothing real takes part, the clock is Trio's MockClock with
   autojump, on ``:memory:``. A database thread or a socket makes autojump wrong: the
   clock would jump while they work.
3. Other processes are real ones. They say what they have done on their standard output,
   and the test waits for that line.
4. Every wait for another process has a timeout, so that a mistake ends the test, not CI.
5. No test asserts how long something took, but where the promise is a time (150 ms to a
   signal); there the bound has room for a slow machine.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from runtara_trio import Operator, SharedBackend, open_backend

from .helpers.places import (
    CORES,
    HTTP_CORES,
    SERVED,
    SERVED_HTTP,
    STORES,
    Place,
    Shared,
    core_place,
    http_core_place,
    postgres_place,
    served_http_place,
    served_place,
    store_place,
)
from .helpers.pooler import running_pgbouncer
from .helpers.postgres import running_postgres

for name in [name for name in os.environ if name.startswith("RUNTARA_")]:
    del os.environ[name]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--core",
        action="append",
        choices=[*CORES, *HTTP_CORES],
        help="run the tests of every backend against a stock runtara-core on this database",
    )
    parser.addoption(
        "--pooled",
        action="store_true",
        help="put a PgBouncer in transaction mode in front of the PostgreSQL server",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests of every backend, marked ``core``, run behind our server too, or on a core."""
    if "place" not in metafunc.fixturenames:
        return
    kinds = list(STORES)
    if metafunc.definition.get_closest_marker("alone"):
        kinds = ["memory"]
    if metafunc.definition.get_closest_marker("core"):
        cores = metafunc.config.getoption("--core")
        kinds = list(cores) if cores else [*STORES, SERVED, SERVED_HTTP]
    if metafunc.definition.get_closest_marker("unless_http"):
        kinds = [kind for kind in kinds if kind not in (*HTTP_CORES, SERVED_HTTP)]
    metafunc.parametrize("place", kinds, indirect=True)


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a PostgreSQL server: TEST_POSTGRES, else one of our own."""
    if request.config.getoption("--pooled"):
        with running_postgres() as url, running_pgbouncer(url, "transaction") as pooled:
            yield f"{pooled}?pooler=transaction"
        return
    given = os.environ.get("TEST_POSTGRES")
    if given is not None:
        yield given
        return
    with running_postgres() as url:
        yield url


@pytest.fixture
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """A backend of each kind, and the operator of its instances."""
    match request.param:
        case "memory":
            opening = store_place(":memory:")
        case "file":
            opening = store_place(f"sqlite:///{tmp_path}/store.db")
        case "postgres":
            opening = postgres_place(request.getfixturevalue("postgres_server"))
        case "served":
            opening = served_place()
        case kind if kind == SERVED_HTTP:
            opening = served_http_place()
        case kind if kind in HTTP_CORES:
            opening = http_core_place(kind, tmp_path)
        case kind:
            opening = core_place(kind, tmp_path)
    async with opening as opened:
        yield opened


@pytest.fixture(params=["file", "postgres"])
async def shared(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shared]:
    """Each store that several processes can open."""
    if request.param == "file":
        yield Shared(f"sqlite:///{tmp_path}/store.db")
    else:
        async with postgres_place(request.getfixturevalue("postgres_server")) as opened:
            yield Shared(opened.url)


@pytest.fixture
def backend(place: Place) -> SharedBackend:
    """An open backend of each kind."""
    return place.backend


@pytest.fixture
async def memory() -> AsyncIterator[SharedBackend]:
    """An open backend in memory: no thread, so that a MockClock may jump."""
    async with open_backend(":memory:") as opened:
        yield opened


@pytest.fixture
def operator(place: Place) -> Operator:
    operator: Operator = place.operator
    return operator


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The URL of a file that is not there yet."""
    return f"sqlite:///{tmp_path}/store.db"
